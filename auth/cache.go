package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"keygate/internal/keys"
)

const (
	// unknownFor is how long an unknown key is remembered as unknown.
	unknownFor = 5 * time.Second
	// maxUnknown bounds how many of them are remembered.
	maxUnknown = 16_384
	// maxSpaces bounds the remembered answers to "which space is this?".
	maxSpaces = 65_536
	// lookupTimeout bounds a store lookup, whose callers wait together.
	lookupTimeout = 2 * time.Second
)

// Lookups is what the cache asks the store for.
type Lookups interface {
	Lookup(ctx context.Context, h keys.Hash) (keys.Found, error)
	Space(ctx context.Context, organization, ref string) (keys.Space, error)
}

// cache remembers keys by the hash of their secret. It never serves what it
// knows to have changed.
type cache struct {
	store   Lookups
	now     func() time.Time
	stamps  *stamps
	found   *otter.Cache[keys.Hash, *entry]
	unknown *otter.Cache[keys.Hash, unknown]
	spaces  *otter.Cache[spaceRef, spaceEntry]
	flights singleflight.Group
	stats   Stats
}

// Stats counts what the cache did. All fields only grow.
type Stats struct {
	Hits, Misses, UnknownHits, Failures, Flushes atomic.Uint64
}

type entry struct {
	found keys.Found
	stamp stamp
	// principal is what the key amounts to under the policy last used.
	principal atomic.Pointer[Principal]
}

type unknown struct {
	until   time.Time
	created uint64
}

type spaceRef struct{ organization, ref string }

type spaceEntry struct {
	space *keys.Space // nil: there is none
	stamp stamp
	until time.Time // for none
}

func newCache(store Lookups, size int, now func() time.Time) *cache {
	return &cache{
		store:   store,
		now:     now,
		stamps:  newStamps(),
		found:   otter.Must(&otter.Options[keys.Hash, *entry]{MaximumSize: size}),
		unknown: otter.Must(&otter.Options[keys.Hash, unknown]{MaximumSize: maxUnknown}),
		spaces:  otter.Must(&otter.Options[spaceRef, spaceEntry]{MaximumSize: maxSpaces}),
	}
}

// key returns what the store has under the hash; nil without an error means
// that it has nothing.
func (c *cache) key(ctx context.Context, h keys.Hash) (*entry, error) {
	if e, ok := c.found.GetIfPresent(h); ok && c.stamps.holds(&e.stamp) {
		c.stats.Hits.Add(1)
		return e, nil
	}
	if u, ok := c.unknown.GetIfPresent(h); ok && u.created == c.stamps.created.Load() && c.now().Before(u.until) {
		c.stats.UnknownHits.Add(1)
		return nil, nil
	}
	c.stats.Misses.Add(1)
	return c.fetch(ctx, h)
}

// fetch asks the store once for all who miss the same key at the same time.
// Nobody joins a fetch that began before a change of which they may know.
func (c *cache) fetch(ctx context.Context, h keys.Hash) (*entry, error) {
	epoch := c.stamps.epoch.Load()
	flight := string(binary.BigEndian.AppendUint64(h[:], epoch))
	result := c.flights.DoChan(flight, func() (any, error) {
		// The first to ask may go away; the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		return c.lookup(ctx, h, epoch)
	})
	select {
	case r := <-result:
		e, _ := r.Val.(*entry)
		return e, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *cache) lookup(ctx context.Context, h keys.Hash, epoch uint64) (*entry, error) {
	created := c.stamps.created.Load()
	found, err := c.store.Lookup(ctx, h)
	if errors.Is(err, keys.ErrNotFound) {
		c.unknown.Set(h, unknown{until: c.now().Add(unknownFor), created: created})
		return nil, nil
	}
	if err != nil {
		c.stats.Failures.Add(1)
		return nil, err
	}
	e := &entry{found: found, stamp: c.stamps.take(found.Key.ID, found.Key.Organization, found.Key.Account)}
	if c.stamps.epoch.Load() == epoch {
		c.found.Set(h, e)
	}
	return e, nil
}

// space returns the space that a request names by id or slug, or nil.
func (c *cache) space(ctx context.Context, organization, ref string) (*keys.Space, error) {
	at := spaceRef{organization, ref}
	if e, ok := c.spaces.GetIfPresent(at); ok && c.stamps.holds(&e.stamp) && (e.space != nil || c.now().Before(e.until)) {
		return e.space, nil
	}
	epoch := c.stamps.epoch.Load()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	space, err := c.store.Space(ctx, organization, ref)
	e := spaceEntry{space: &space, stamp: c.stamps.take(organization)}
	switch {
	case errors.Is(err, keys.ErrNotFound):
		e.space, e.until = nil, c.now().Add(unknownFor)
	case err != nil:
		c.stats.Failures.Add(1)
		return nil, err
	}
	if c.stamps.epoch.Load() == epoch {
		c.spaces.Set(at, e)
	}
	return e.space, nil
}
