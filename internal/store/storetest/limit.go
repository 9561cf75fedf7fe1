package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"keygate/internal/keys"
)

// maxKeys: active and paused keys count, revoked and expired ones do not.
func maxKeys(w *world) {
	n, other := w.tenant("acme"), w.tenant("beta")
	bound := func(most int) *keys.MaxKeys { return &keys.MaxKeys{Organization: n.organization.ID, Max: most} }
	tooMany := func(most int) error { return &keys.TooManyKeysError{Organization: "acme", Max: most} }

	paused, revoked, expired, ending := w.key(n.account), w.key(n.account), w.key(n.account), w.key(n.account)
	paused.PausedAt = w.now
	revoked.RevokedAt = w.now
	revoked.ExpiresAt = w.now.Add(time.Hour)
	expired.ExpiresAt = w.now
	ending.ExpiresAt = w.now.Add(time.Microsecond)
	stored := w.create(w.key(n.account), paused, revoked, expired, ending, w.key(other.account), w.key(other.account))

	// Three count now, and two a microsecond later.
	w.refuses("bound below what is there", keys.Mutation{MaxKeys: bound(2)}, tooMany(2))
	w.apply(keys.Mutation{MaxKeys: bound(3)})
	w.apply(keys.Mutation{At: w.now.Add(time.Microsecond), MaxKeys: bound(2)})
	w.refuses("expiry at an earlier instant", keys.Mutation{At: w.now.Add(-time.Microsecond), MaxKeys: bound(3)}, tooMany(3))

	w.refuses("one key more", keys.Mutation{Keys: []keys.Key{w.key(n.account)}, MaxKeys: bound(3)}, tooMany(3))
	w.refuses("two keys more", keys.Mutation{Keys: []keys.Key{w.key(n.account), w.key(n.account)}, MaxKeys: bound(4)}, tooMany(4))
	w.refuses("none allowed", keys.Mutation{Keys: []keys.Key{w.key(n.account)}, MaxKeys: bound(0)}, tooMany(0))
	w.apply(keys.Mutation{Keys: []keys.Key{w.key(other.account)}, MaxKeys: bound(3)}) // another's key
	w.apply(keys.Mutation{Keys: []keys.Key{w.key(n.account)}, MaxKeys: bound(keys.Unlimited)})

	// Four count. A key that comes back counts again; one that goes makes room.
	back := stored[3]
	back.ExpiresAt = time.Time{}
	w.refuses("an expired key that comes back", keys.Mutation{Keys: []keys.Key{back}, MaxKeys: bound(4)}, tooMany(4))
	off := stored[0]
	off.RevokedAt = w.now
	w.apply(keys.Mutation{Keys: []keys.Key{off, back}, MaxKeys: bound(4)})
	w.apply(keys.Mutation{DeleteKeys: []keys.Key{stored[1]}, Keys: []keys.Key{w.key(n.account)}, MaxKeys: bound(4)})
	// A rotated key counts once.
	two := w.key(n.account)
	two.Secrets = append(two.Secrets, w.secret("another of its secrets"))
	w.apply(keys.Mutation{Keys: []keys.Key{two}, MaxKeys: bound(5)})
	w.refuses("the sixth", keys.Mutation{Keys: []keys.Key{w.key(n.account)}, MaxKeys: bound(5)}, tooMany(5))
}

// maxKeysUnderConcurrency: the bound is exact however many create at once.
func maxKeysUnderConcurrency(w *world) {
	const creators, most = 50, 7
	n := w.tenant("acme")
	all := make([]keys.Key, creators)
	for i := range all {
		all[i] = w.key(n.account)
	}
	outcomes := inParallel(creators, func(i int) error {
		return w.try(keys.Mutation{Keys: all[i : i+1], MaxKeys: &keys.MaxKeys{Organization: n.organization.ID, Max: most}})
	})
	made := 0
	for i, err := range outcomes {
		var tooMany *keys.TooManyKeysError
		_, lookupErr := w.s.Lookup(context.Background(), all[i].Secrets[0].Hash)
		switch {
		case err == nil && lookupErr == nil:
			made++
		case err == nil || lookupErr == nil || !errors.As(err, &tooMany):
			w.Errorf("creator %d: error %v, then Lookup: %v", i, err, lookupErr)
		}
	}
	if made != most {
		w.Errorf("%d keys were made; want %d", made, most)
	}
}

func inParallel(n int, do func(i int) error) []error {
	outcomes := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { outcomes[i] = do(i) })
	}
	all.Wait()
	return outcomes
}

// oneWriterWins: of changes based on the same version exactly one is made.
func oneWriterWins(w *world) {
	const writers, rounds = 8, 5
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	for range rounds {
		outcomes := inParallel(writers, func(i int) error {
			c := k
			c.Description = fmt.Sprint("writer ", i)
			return w.try(keys.Mutation{Keys: []keys.Key{c}})
		})
		winner := -1
		for i, err := range outcomes {
			switch {
			case err == nil && winner < 0:
				winner = i
			case !errors.Is(err, keys.ErrConflict):
				w.Fatalf("writer %d: %v; writer %d won", i, err, winner)
			}
		}
		k.Version++
		k.Description = fmt.Sprint("writer ", winner)
		same(w, "what the winner wrote", k)(w.s.Key(w.Context(), k.ID))
	}
}

// oneSlugWins: of equal slugs, hashes and settings made at once one is made.
func oneSlugWins(w *world) {
	const writers = 8
	n := w.tenant("acme")
	shared := w.secret("shared secret")
	type attempt struct {
		kind, field string
		m           func(i int) keys.Mutation
	}
	var organizations []keys.Organization
	var spaces []keys.Space
	var all []keys.Key
	for range writers {
		organizations = append(organizations, w.organization("race"))
		spaces = append(spaces, w.space(n.organization, "race"))
		k := w.key(n.account)
		k.Secrets = []keys.Secret{shared}
		all = append(all, k)
	}
	for _, a := range []attempt{
		{"organization", "slug", func(i int) keys.Mutation { return keys.Mutation{Organizations: organizations[i : i+1]} }},
		{"space", "slug", func(i int) keys.Mutation { return keys.Mutation{Spaces: spaces[i : i+1]} }},
		{"key", "hash", func(i int) keys.Mutation { return keys.Mutation{Keys: all[i : i+1]} }},
		{"setting", "name", func(i int) keys.Mutation {
			return keys.Mutation{Settings: []keys.Setting{{Name: "race", Value: fmt.Sprint(i)}}}
		}},
	} {
		won := 0
		for i, err := range inParallel(writers, func(i int) error { return w.try(a.m(i)) }) {
			var e *keys.ExistsError
			switch {
			case err == nil:
				won++
			case !errors.As(err, &e) || e.Kind != a.kind || e.Field != a.field:
				w.Errorf("%s, writer %d: %v", a.kind, i, err)
			}
		}
		if won != 1 {
			w.Errorf("%s: %d writers won", a.kind, won)
		}
	}
}
