package redis

import (
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"keygate/ratelimit"
)

// Time-outs of the ledger's client. An answer that takes longer than
// [ratelimit.CallTimeout] admits nothing, so that it is not waited for.
const (
	ioTimeout  = ratelimit.CallTimeout
	maxBackoff = 5 * time.Millisecond
)

// Options returns the options of the client that a [Ledger] needs, for the same
// Redis as base, which stays as it is. The client is the ledger's alone: waiting
// long and trying again is right for other commands, and wrong for these.
//
//   - MaxRetries -1: nothing is sent twice. In a cluster, redirections are followed.
//   - DialTimeout, ReadTimeout, WriteTimeout, PoolTimeout 50 ms, DialerRetries 1,
//     ContextTimeoutEnabled: a Redis that is away is known to be away at once.
//     Of a crowd of 400 on a busy machine half gave up waiting for a connection
//     after 25 ms, and nearly nobody after 50; more connections made it worse.
//   - No reads from replicas: what is left of a budget is what the master says.
//   - Batches share the pool, and a new connection says hello and nothing more.
func Options(base *goredis.UniversalOptions) *goredis.UniversalOptions {
	o := *base
	o.MaxRetries = -1
	o.MaxRetryBackoff = maxBackoff
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = ioTimeout, ioTimeout, ioTimeout
	o.PoolTimeout = ratelimit.CallTimeout
	o.DialerRetries = 1
	o.ContextTimeoutEnabled = true
	o.PipelinePoolSize = -1
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &o
}
