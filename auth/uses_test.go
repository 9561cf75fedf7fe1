package auth

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"keygate/internal/keys"
)

// useStore keeps what is written to it; the first calls may fail.
type useStore struct {
	mu    sync.Mutex
	fails int
	calls [][]keys.Use
	wrote chan struct{} // if not nil, gets a value for each call
}

func (s *useStore) Used(_ context.Context, uses []keys.Use) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrote != nil {
		defer func() { s.wrote <- struct{}{} }()
	}
	if s.fails > 0 {
		s.fails--
		return errors.New("away")
	}
	s.calls = append(s.calls, append([]keys.Use(nil), uses...))
	return nil
}

// noted ends the recording and returns all that was written.
func (f *fixture) noted(s *useStore) []keys.Use {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.RecordUses(ctx, s)
	var all []keys.Use
	for _, c := range s.calls {
		all = append(all, c...)
	}
	return all
}

func TestUseIsNotedOncePerMinute(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	for range 100 {
		f.reason(secret)
	}
	first := f.now()
	uses := f.noted(&useStore{})
	if len(uses) != 1 || uses[0].Key != someKey.ID || uses[0].Secret != (keys.Hash{}) || !uses[0].At.Equal(first.Truncate(time.Microsecond)) || uses[0].At.Location() != time.UTC {
		t.Fatalf("%+v", uses)
	}
	f.advance(keys.UseEvery - 1)
	f.reason(secret)
	if uses := f.noted(&useStore{}); len(uses) != 0 {
		t.Errorf("noted again within a minute: %+v", uses)
	}
	f.advance(1)
	f.reason(secret)
	if uses := f.noted(&useStore{}); len(uses) != 1 {
		t.Errorf("after a minute: %+v", uses)
	}
	f.advance(-time.Hour) // the clock is set back
	f.reason(secret)
	f.reason(secret)
	if uses := f.noted(&useStore{}); len(uses) != 1 {
		t.Errorf("after the clock was set back: %+v", uses)
	}
}

// TestKnownUseIsNotNoted: what the store has counts as noted, and of a key with
// several secrets each is noted by itself.
func TestKnownUseIsNotNoted(t *testing.T) {
	f := newFixture(t)
	secret, former := f.format.Generate(), f.format.Generate()
	k := someKey
	k.LastUsedAt = f.now().Add(-keys.UseEvery + time.Second)
	f.store.put(secret, k)
	f.reason(secret)
	if uses := f.noted(&useStore{}); len(uses) != 0 {
		t.Errorf("the store knows already: %+v", uses)
	}
	k.Secrets = []keys.Secret{{Hash: keys.HashSecret(secret), LastUsedAt: k.LastUsedAt}, {Hash: keys.HashSecret(former), EndsAt: f.now().Add(time.Hour)}}
	f.store.found[keys.HashSecret(secret)] = keys.Found{Key: k, Organization: keys.Organization{ID: "org_1", Plan: "free"}}
	f.store.found[keys.HashSecret(former)] = keys.Found{Key: k, Secret: 1, Organization: keys.Organization{ID: "org_1", Plan: "free"}}
	f.Changed(keys.Change{Kind: keys.KindKey, ID: k.ID, Version: 2})
	f.reason(secret)
	f.reason(former)
	if uses := f.noted(&useStore{}); len(uses) != 1 || uses[0].Secret != keys.HashSecret(former) {
		t.Errorf("%+v", uses)
	}
}

// TestRefusedKeysAreNotUsed: nor is one that somebody only asks about.
func TestRefusedKeysAreNotUsed(t *testing.T) {
	f := newFixture(t)
	for i, change := range []func(*keys.Key){
		func(k *keys.Key) { k.RevokedAt = f.now() },
		func(k *keys.Key) { k.PausedAt = f.now() },
		func(k *keys.Key) { k.ExpiresAt = f.now() },
		func(k *keys.Key) { k.Overrides = []byte("{") },
	} {
		secret, k := f.format.Generate(), someKey
		change(&k)
		f.store.put(secret, k)
		if f.reason(secret) == 0 {
			t.Errorf("%d: admitted", i)
		}
	}
	f.reason(f.format.Generate())
	if uses := f.noted(&useStore{}); len(uses) != 0 {
		t.Errorf("%+v", uses)
	}
}

// TestUsesAreOfferedAgain: what the store did not take is kept, the newest of
// each key, and written with what came since.
func TestUsesAreOfferedAgain(t *testing.T) {
	f := newFixture(t)
	f.uses.every = time.Millisecond
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	s := &useStore{fails: 2, wrote: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { f.RecordUses(ctx, s); close(ended) }()
	f.reason(secret)
	<-s.wrote
	f.advance(2 * keys.UseEvery)
	latest := f.now()
	f.reason(secret)
	<-s.wrote
	<-s.wrote
	cancel()
	<-ended
	if len(s.calls) != 1 || len(s.calls[0]) != 1 || !s.calls[0][0].At.Equal(latest.Truncate(time.Microsecond)) {
		t.Errorf("%+v", s.calls)
	}
}

// TestUsesAreBounded: without a store that takes them requests go on, and what
// is lost is counted.
func TestUsesAreBounded(t *testing.T) {
	f := newFixture(t)
	now := f.now()
	for range maxUsesQueued + 5 {
		f.uses.note(&entry{record: record{key: Key{ID: someKey.ID}}}, keys.Hash{}, now)
	}
	if n := f.Stats().UsesDropped.Load(); n != 5 {
		t.Errorf("%d dropped, want 5", n)
	}
	w := &useWriter{uses: f.uses, store: &useStore{fails: 1}, pending: make(map[useID]time.Time)}
	w.drain()
	for i := range maxUsesPending + 3 {
		w.add(keys.Use{Key: someKey.ID, Secret: keys.Hash{byte(i), byte(i >> 8), 1}, At: now})
	}
	if n := f.Stats().UsesDropped.Load(); n != 5+4 || len(w.pending) != maxUsesPending {
		t.Errorf("%d dropped, %d pending", n, len(w.pending))
	}
	w.flush(context.Background())
	if len(w.pending) != maxUsesPending {
		t.Errorf("%d pending after a failure", len(w.pending))
	}
	w.flush(context.Background())
	calls := w.store.(*useStore).calls
	if len(w.pending) != 0 || len(calls) != (maxUsesPending+usesBatch-1)/usesBatch || len(calls[0]) != usesBatch {
		t.Errorf("%d pending, %d calls", len(w.pending), len(calls))
	}
}
