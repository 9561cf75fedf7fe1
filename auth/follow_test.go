package auth

import (
	"context"
	"errors"
	"testing"
	"time"

	"keygate/internal/clocktest"
	"keygate/internal/keys"
)

// feed replays batches and errors.
type feed struct {
	steps chan func() (keys.ChangeBatch, error)
}

func (f feed) Changes(ctx context.Context, _ int64, _ time.Duration) (keys.ChangeBatch, error) {
	select {
	case step := <-f.steps:
		return step()
	case <-ctx.Done():
		return keys.ChangeBatch{}, ctx.Err()
	}
}

func TestFollow(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	steps := make(chan func() (keys.ChangeBatch, error))
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan struct{}), make(chan struct{})
	go func() { f.Follow(ctx, feed{steps}, started); close(ended) }()
	steps <- func() (keys.ChangeBatch, error) { return keys.ChangeBatch{Next: 7}, nil }
	<-started
	var n int64
	for name, step := range map[string]func() (keys.ChangeBatch, error){
		"change": func() (keys.ChangeBatch, error) {
			return keys.ChangeBatch{Next: 8, Changes: []keys.Change{{Kind: keys.KindKey, ID: someKey.ID, Version: 2}}}, nil
		},
		"gap": func() (keys.ChangeBatch, error) { return keys.ChangeBatch{Next: 9, Gap: true}, nil },
	} {
		f.reason(secret)
		n = f.store.lookups.Load()
		steps <- step
		// The next step is taken only when this one was acted upon.
		steps <- func() (keys.ChangeBatch, error) { return keys.ChangeBatch{Next: 9}, nil }
		f.reason(secret)
		if got := f.store.lookups.Load(); got != n+1 {
			t.Errorf("%s: the key was not asked for again", name)
		}
	}
	cancel()
	<-ended
}

// TestSilentFeed: while the feed says nothing, keys in memory are asked of the
// store each time, and nothing is refused for it.
func TestSilentFeed(t *testing.T) {
	f := newFixture(t)
	f.cache.freshFor = time.Second
	f.cache.spoke(f.now())
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	asked := func() int64 { f.reason(secret); return f.store.lookups.Load() }
	n := asked()
	f.advance(time.Second)
	if got := asked(); got != n {
		t.Errorf("%d lookups within the time of trust", got-n)
	}
	f.advance(1)
	if got := asked(); got != n+1 {
		t.Errorf("%d lookups after it, want 1", got-n)
	}
	revoked := someKey
	revoked.RevokedAt = f.now()
	f.store.put(secret, revoked) // and the feed does not tell
	if got := f.reason(secret); got != KeyRevoked {
		t.Errorf("reason %d, want %d", got, KeyRevoked)
	}
	f.cache.spoke(f.now())
	n = f.store.lookups.Load()
	if got := asked(); got != n {
		t.Error("the feed speaks again and the store was asked")
	}
}

// TestStoreOutage: what a remembered key may do without the store is its plan's
// matter; an unknown one is never called invalid.
func TestStoreOutage(t *testing.T) {
	f := newFixture(t)
	f.cache.freshFor = time.Second
	f.cache.spoke(f.now())
	patient := keys.BuiltinPlans()["free"]
	patient.Outage.Keys = time.Minute
	f.policy.Plans["free"] = patient
	free, strict := f.format.Generate(), f.format.Generate()
	f.store.put(free, someKey)
	other := someKey
	other.ID, other.Plan = "key_2", "pro"
	f.store.put(strict, other)
	f.reason(free)
	f.reason(strict)
	f.store.err = errors.New("gone")
	f.advance(time.Minute)
	if got := f.reason(free); got != 0 {
		t.Errorf("within outage.keys: reason %d", got)
	}
	if got := f.reason(strict); got != Unavailable {
		t.Errorf("a plan without outage.keys: reason %d", got)
	}
	if got := f.reason(f.format.Generate()); got != Unavailable {
		t.Errorf("an unknown key: reason %d", got)
	}
	f.advance(1)
	if got := f.reason(free); got != Unavailable {
		t.Errorf("after outage.keys: reason %d", got)
	}
	if f.Stats().Outage.Load() != 1 {
		t.Errorf("%d requests counted", f.Stats().Outage.Load())
	}
}

// How long a key was served without the store was counted by the wall clock: one that
// was set back by an hour let it be served for an hour more than outage.keys says.
func TestStoreOutageUnderAClockThatIsSetBack(t *testing.T) {
	f := newFixture(t)
	start, back, began := time.Now(), time.Duration(0), f.nanos.Load()
	f.cache.now = func() time.Time { return clocktest.SetBack(start.Add(time.Duration(f.nanos.Load()-began)), back) }
	f.cache.start, f.cache.freshFor = start, time.Second
	f.cache.spoke(f.cache.now())
	patient := keys.BuiltinPlans()["free"]
	patient.Outage.Keys = time.Minute
	f.policy.Plans["free"] = patient
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	f.reason(secret)
	f.store.err = errors.New("gone")
	back = time.Hour
	f.advance(time.Minute)
	if got := f.reason(secret); got != 0 {
		t.Errorf("within outage.keys: reason %d", got)
	}
	f.advance(1)
	if got := f.reason(secret); got != Unavailable {
		t.Errorf("after outage.keys: reason %d", got)
	}
}
