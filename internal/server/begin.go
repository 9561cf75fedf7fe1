package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"keygate/auth"
	"keygate/config"
	"keygate/internal/keys"
	redisstore "keygate/internal/store/redis"
)

const (
	// startTimeout bounds each step of the start that waits for the store.
	startTimeout = 10 * time.Second
	// lockPause lies between two tries to lock the data directory.
	lockPause = 20 * time.Millisecond
	// startPause lies between two tries to reach a shared store.
	startPause = time.Second
)

// beginning is what a start does at the store: number the policy, read the
// change feed, make the first keys. The listeners are open meanwhile; while a
// shared store is away they answer 503, and this goes on trying.
type beginning struct {
	Options
	back    *backing
	policy  *policyLoader
	service *keys.Service
	feed    <-chan struct{} // closed when the change feed is being read
	log     *zap.Logger
	kept    bool // generated keys were written to the data directory
}

func (b *beginning) run(ctx context.Context, loaded *config.Policy) (keys.Bootstrapped, error) {
	var told time.Time
	for {
		err := b.reach(ctx)
		var first keys.Bootstrapped
		if err == nil {
			first, err = b.once(ctx, loaded)
		}
		if err == nil {
			b.back.logAdvice(ctx, b.log)
			return first, nil
		}
		if _, newer := errors.AsType[*redisstore.SchemaError](err); newer {
			err = &SetupError{err}
		}
		if _, setup := errors.AsType[*SetupError](err); setup || !b.back.shared {
			return first, err
		}
		if time.Since(told) >= outageAgain {
			b.log.Warn("keygate listens, but Redis cannot be used yet: requests are answered 503 until it can", zap.String("redis", b.back.redis), zap.Error(err))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return first, context.Cause(ctx)
		case <-time.After(startPause):
		}
	}
}

// reach asks a shared store for a sign of life, so that an operator need not wait
// for the longer time-outs of the steps to read that there is none.
func (b *beginning) reach(ctx context.Context) error {
	if !b.back.shared {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startPause)
	defer cancel()
	return b.back.store.Ping(ctx)
}

func (b *beginning) once(ctx context.Context, loaded *config.Policy) (keys.Bootstrapped, error) {
	if b.back.prepare != nil {
		if err := b.back.prepare(ctx); err != nil {
			return keys.Bootstrapped{}, fmt.Errorf("the limits could not be prepared: %w", err)
		}
	}
	if err := b.policy.install(ctx, loaded); err != nil {
		return keys.Bootstrapped{}, err
	}
	select {
	case <-b.feed:
	case <-time.After(startTimeout):
		return keys.Bootstrapped{}, errors.New("the store's change feed could not be read")
	}
	return b.bootstrap(ctx)
}

// bootstrap makes the first start's records, or applies a chosen key.
func (b *beginning) bootstrap(ctx context.Context) (keys.Bootstrapped, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if dir := b.Config.DataDir; b.back.shared && dir != "" {
		unlock, err := lockDir(ctx, dir)
		if err != nil {
			return keys.Bootstrapped{}, err
		}
		defer unlock()
	}
	made, err := b.service.Bootstrap(ctx, keys.BootstrapOptions{
		Secret:    b.Config.BootstrapKey.Reveal(),
		ClientKey: b.Config.PolicyFile == "" && b.Config.Policy == "",
		Keep:      b.keep,
	})
	if taken, ok := errors.AsType[*keys.SecretTakenError](err); ok {
		return made, &SetupError{fmt.Errorf("KEYGATE_BOOTSTRAP_KEY: %w", taken)}
	}
	if err != nil {
		return made, fmt.Errorf("the administrator's key could not be made: %w", err)
	}
	if b.kept && !made.First { // another replica was first: those keys never became valid
		if err := dropSecrets(b.Config.DataDir); err != nil {
			return made, err
		}
	}
	if made.Warning != "" {
		b.log.Warn("KEYGATE_BOOTSTRAP_KEY: " + made.Warning)
	}
	return made, nil
}

// lockDir has replicas that share a data directory start one after the other: the
// files with the keys of the first would be replaced by those of the next, and
// removed with them. Where the file system knows no locks there is none.
func lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("KEYGATE_DATA_DIR: %w", err)
	}
	for errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		select {
		case <-ctx.Done():
			_ = f.Close() // nothing was written
			return nil, fmt.Errorf("KEYGATE_DATA_DIR: another process that starts has %s locked: %w", dir, ctx.Err())
		case <-time.After(lockPause):
		}
	}
	return func() { _ = f.Close() }, nil // which unlocks it
}

// keep puts generated keys where they outlive this process, unless a person is
// there to see them.
func (b *beginning) keep(made keys.Bootstrapped) error {
	switch {
	case b.Config.DataDir == "":
		return &SetupError{errors.New("KEYGATE_BOOTSTRAP_KEY: is required at the first start with REDIS_URL: 'keygate keys generate' prints one. " +
			"Or set KEYGATE_DATA_DIR to a directory in which a generated one is kept")}
	case b.Terminal:
		return nil
	}
	b.kept = true
	return keepSecrets(b.Config.DataDir, made)
}

// follow reads the change feed until the instance ends; started is closed when
// no change can be missed any more.
func follow(a *auth.Authenticator, store keys.Store, cleanUp *cleanUps) (started <-chan struct{}) {
	reading := make(chan struct{})
	cleanUp.add(inBackground(func(ctx context.Context) { a.Follow(ctx, store, reading) }))
	return reading
}
