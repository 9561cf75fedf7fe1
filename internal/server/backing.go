package server

import (
	"context"
	"fmt"
	"os"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/keys"
	redisstore "keygate/internal/store/redis"
	"keygate/internal/store/sqlite"
	"keygate/ratelimit"
	"keygate/ratelimit/memory"
	redisledger "keygate/ratelimit/redis"
)

// Bounds on what a request waits for a shared Redis.
const (
	// lookupTimeout covers a key that is not in memory, new connection included.
	lookupTimeout = 100 * time.Millisecond
	// limitTimeout is that of one decision: what comes later admits nothing.
	limitTimeout = ratelimit.CallTimeout
	// freshFor is how long remembered keys are trusted while the change feed is
	// silent.
	freshFor = time.Second
)

// backing is where an instance keeps what it must not forget: in its data
// directory, or in the Redis that it shares with other replicas.
type backing struct {
	store   keys.Store
	lookups auth.Lookups
	ledger  ratelimit.LimiterOptions
	// freshFor and lookupTimeout are the Authenticator's.
	freshFor, lookupTimeout time.Duration
	// stopper marks changed keys at the ledger, nil where nobody else could
	// miss the change.
	stopper ratelimit.Stopper
	// settler corrects charges whose cost shows later.
	settler ratelimit.Settler
	// prepare is done at each start before this instance is ready; nil: nothing.
	prepare func(context.Context) error
	// suspect is told of signs of a loss that the ledger has yet to hear of; nil
	// where it cannot lose anything while this process lives.
	suspect func(ratelimit.Loss)
	// replicas is nil where there is only this one.
	replicas keys.ReplicaRegistry
	shared   bool
	mode     string // for people
	redis    string // the address of a shared Redis, without a password
	advice   func(context.Context) ([]string, error)
}

// open opens the store that the configuration names. A shared Redis may be away
// at the start; an embedded store may not.
func open(ctx context.Context, o Options, g *guards, cleanUp *cleanUps) (*backing, error) {
	if o.Config.RedisURL != "" {
		return openRedis(o, g, cleanUp)
	}
	store, err := sqlite.Open(ctx, sqlite.Options{Dir: o.Config.DataDir})
	if err != nil {
		return nil, &SetupError{err}
	}
	cleanUp.add(store.Close)
	ledger, err := openLedger(o, g.log, cleanUp)
	if err != nil {
		return nil, err
	}
	return &backing{
		store: store, lookups: store, settler: ledger,
		ledger: ratelimit.LimiterOptions{Ledger: ledger},
		mode:   "one replica on the embedded store in " + o.Config.DataDir,
		advice: func(context.Context) ([]string, error) { return nil, nil },
	}, nil
}

// openLedger takes over what the limits knew at the last stop.
func openLedger(o Options, log *zap.Logger, cleanUp *cleanUps) (*memory.Ledger, error) {
	ledger, found, err := memory.Open(o.Config.DataDir, memory.Options{})
	if err != nil {
		return nil, &SetupError{err}
	}
	cleanUp.add(ledger.Close)
	if found.Warning != nil {
		log.Error("what limits had counted before is not known", zap.Error(found.Warning))
	}
	if found.Full != nil {
		log.Error("the disk takes no claims of calendar quotas: what needs one is refused until it does", zap.Error(found.Full))
	}
	if found.Crashed {
		log.Warn("the last run did not stop in order: quotas go on where they were or somewhat further, never before it, and sliding limits start anew",
			zap.Bool("wait_after_crash", o.Config.CrashWait))
		if o.Config.CrashWait {
			ledger.Lose()
		}
	}
	return ledger, nil
}

// CheckRedisURL reports what is wrong with a URL of Redis, without asking Redis.
func CheckRedisURL(url string) error {
	client, err := redisstore.NewClient(url)
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	return client.Close()
}

func openRedis(o Options, g *guards, cleanUp *cleanUps) (*backing, error) {
	if dir := o.Config.DataDir; dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, &SetupError{fmt.Errorf("KEYGATE_DATA_DIR: %w", err)}
		}
	}
	quietRedis(g.log)
	url := o.Config.RedisURL.Reveal()
	client, err := redisstore.NewClient(url)
	if err != nil {
		return nil, &SetupError{fmt.Errorf("REDIS_URL: %w", err)}
	}
	loss := newLosses(g.log, g.registry)
	store, err := redisstore.New(redisstore.Options{Client: client, Turned: loss.note})
	if err != nil {
		return nil, &SetupError{err}
	}
	cleanUp.add(store.Close)
	// Decisions have a client of their own, which never waits long nor sends
	// anything twice.
	limits, err := redisstore.NewClient(url, func(u *goredis.UniversalOptions) { *u = *redisledger.Options(u) })
	if err != nil {
		return nil, &SetupError{fmt.Errorf("REDIS_URL: %w", err)}
	}
	cleanUp.add(limits.Close)
	ledger := redisledger.New(limits)
	loss.store, loss.ledger = store, ledger
	cleanUp.add(inBackground(loss.follow))
	return &backing{
		store: store, lookups: g.lookups(store),
		ledger: ratelimit.LimiterOptions{
			Ledger: g.ledger(ledger), Timeout: limitTimeout, Local: memory.New(memory.Options{}),
		},
		freshFor: freshFor, lookupTimeout: lookupTimeout,
		stopper: ledger, settler: ledger, prepare: loss.prepare, suspect: loss.suspect, replicas: store, shared: true,
		mode: "sharing " + redisstore.Redact(url), redis: redisstore.Redact(url),
		advice: store.Advice,
	}, nil
}

// logAdvice tells the operator how the store could be safer.
func (b *backing) logAdvice(ctx context.Context, log *zap.Logger) {
	lines, err := b.advice(ctx)
	if err != nil {
		log.Info("the settings of Redis cannot be looked at", zap.Error(err)) // some managed services forbid it
	}
	for _, line := range lines {
		log.Warn("Redis: " + line)
	}
}
