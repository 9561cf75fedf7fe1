package redis

import (
	"context"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Defaults of a client; a URL may set others. Reads and changes may be sent
// twice: a change carries a token, so that it is made once.
const (
	dialTimeout = time.Second
	ioTimeout   = time.Second
	retries     = 1
)

// NewClient returns a client for a URL:
//
//	redis://[user:password@]host[:port][/db]
//	unix://[user:password@]/path/of/socket[?db=1]
//	redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db]
//	redis+cluster://[user:password@]host[:port][,host[:port]…]
//
// rediss://, rediss+sentinel:// and rediss+cluster:// use TLS, as does tls=true.
// Parameters: timeout (of a read or a write, at least 500ms; 1s), dial_timeout
// (1s), pool_size (connections to each server; 10 for each processor), db,
// client_name, ca_file (PEM, in place of the system's authorities), cert_file and
// key_file (a client certificate), skip_verify=true (accept any certificate),
// sentinel_username and sentinel_password.
//
// An error never repeats a part of the URL that may hold a secret. tune changes
// what the URL says. No connection is made before it is needed.
func NewClient(url string, tune ...func(*goredis.UniversalOptions)) (goredis.UniversalClient, error) {
	o, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	for _, f := range tune {
		f(o)
	}
	c := goredis.NewUniversalClient(o)
	if cluster, ok := c.(*goredis.ClusterClient); ok {
		cluster.AddHook(relearn{cluster})
	}
	return c, nil
}

// relearn has a client learn the cluster's layout anew when a node does not
// answer. By itself it would do so once a minute, and send everything to a dead
// master until then.
type relearn struct{ c *goredis.ClusterClient }

func (r relearn) after(ctx context.Context, err error) error {
	if err != nil && !isReply(err) && !errors.Is(err, context.Canceled) {
		r.c.ReloadState(ctx) // in the background, five times a second at most
	}
	return err
}

func (r relearn) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (r relearn) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error { return r.after(ctx, next(ctx, cmd)) }
}

func (r relearn) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error { return r.after(ctx, next(ctx, cmds)) }
}

// defaults are what URLs of all forms begin with.
func defaults() *goredis.UniversalOptions {
	return &goredis.UniversalOptions{
		DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, PoolTimeout: ioTimeout,
		MaxRetries: retries, DialerRetries: 1,
		// Deadlines of contexts count, and no pool of its own for pipelines.
		ContextTimeoutEnabled: true, PipelinePoolSize: -1,
		// Nothing here needs RESP3, and proxies and old versions know RESP2 best.
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}
