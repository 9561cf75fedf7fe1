package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
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
	// maxRef is more bytes than any id or slug of a space has.
	maxRef = 128
)

// Lookups is what the cache asks the store for.
type Lookups interface {
	Lookup(ctx context.Context, h keys.Hash) (keys.Found, error)
	Space(ctx context.Context, organization, ref string) (keys.Space, error)
	Setting(ctx context.Context, name string) (keys.Setting, error)
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
	forms   atomic.Pointer[declaredForms]
	flights singleflight.Group
	stats   Stats

	timeout  time.Duration // of one lookup, whose callers wait together
	freshFor time.Duration // 0: every change is made by this process
	shared   *shared
	prefix   string // of most secrets
	start    time.Time
	fresh    atomic.Int64 // nanoseconds after start as of which no change was missed
}

// Stats counts what the cache did. All fields only grow.
type Stats struct {
	Hits, Misses, UnknownHits, Failures, Flushes atomic.Uint64
	// Verified counts keys in memory that were asked of the store all the same
	// because the change feed was silent; Outage those that served without.
	Verified, Outage atomic.Uint64
	// UsesDropped counts uses of keys that were not recorded for want of room.
	UsesDropped atomic.Uint64
	// FailuresRefused counts failed requests beyond the budget of their address.
	FailuresRefused atomic.Uint64
}

type entry struct {
	record
	stamp   stamp
	fetched time.Duration // when the store was asked, since the cache's start
	// principal is what the key amounts to under the policy last used.
	principal atomic.Pointer[Principal]
	// used is the last use that is known or was noted, in nanoseconds of Unix time.
	used atomic.Int64
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

func newCache(o Options) *cache {
	return &cache{
		store:   o.Store,
		now:     o.Now,
		timeout: o.LookupTimeout, freshFor: o.FreshFor, start: o.Now(), shared: newShared(), prefix: o.Format.Prefix(),
		stamps:  newStamps(),
		found:   otter.Must(&otter.Options[keys.Hash, *entry]{MaximumSize: o.CacheKeys}),
		unknown: otter.Must(&otter.Options[keys.Hash, unknown]{MaximumSize: maxUnknown}),
		spaces:  otter.Must(&otter.Options[spaceRef, spaceEntry]{MaximumSize: maxSpaces}),
	}
}

// key returns what the store has under the hash; nil without an error means
// that it has nothing. With an error comes what is remembered, if anything is:
// it was not changed as far as this replica knows.
func (c *cache) key(ctx context.Context, h keys.Hash) (*entry, error) {
	e, ok := c.found.GetIfPresent(h)
	if ok = ok && c.stamps.holds(&e.stamp); ok {
		if c.isFresh() {
			c.stats.Hits.Add(1)
			return e, nil
		}
		c.stats.Verified.Add(1)
		verified, err := c.fetch(ctx, h)
		if err != nil {
			return e, err
		}
		return verified, nil
	}
	if u, ok := c.unknown.GetIfPresent(h); ok && c.isFresh() && u.created == c.stamps.created.Load() && c.now().Before(u.until) {
		c.stats.UnknownHits.Add(1)
		return nil, nil
	}
	c.stats.Misses.Add(1)
	return c.fetch(ctx, h)
}

// isFresh reports whether the change feed has spoken lately enough for what is
// remembered to be trusted.
func (c *cache) isFresh() bool { return c.freshFor == 0 || c.sinceFresh() <= c.freshFor }

func (c *cache) sinceFresh() time.Duration {
	return c.now().Sub(c.start) - time.Duration(c.fresh.Load())
}

// spoke notes that all changes made before at have been seen.
func (c *cache) spoke(at time.Time) { c.fresh.Store(int64(at.Sub(c.start))) }

// age is how long ago the entry was last known to be what the store has.
func (c *cache) age(e *entry) time.Duration {
	age := c.now().Sub(c.start) - e.fetched
	if c.freshFor > 0 {
		age = min(age, c.sinceFresh())
	}
	return age
}

// fetch asks the store once for all who miss the same key at the same time.
// Nobody joins a fetch that began before a change of which they may know.
func (c *cache) fetch(ctx context.Context, h keys.Hash) (*entry, error) {
	epoch := c.stamps.epoch.Load()
	flight := string(binary.BigEndian.AppendUint64(h[:], epoch))
	result := c.flights.DoChan(flight, func() (any, error) {
		// The first to ask may go away; the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		// Whoever was held up between its miss and this may come after the fetch
		// that it should have joined.
		if e, ok := c.found.GetIfPresent(h); ok && c.isFresh() && c.stamps.holds(&e.stamp) {
			return e, nil
		}
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
	created, asked := c.stamps.created.Load(), c.now()
	found, err := c.store.Lookup(ctx, h)
	if errors.Is(err, keys.ErrNotFound) {
		c.unknown.Set(h, unknown{until: c.now().Add(unknownFor), created: created})
		return nil, nil
	}
	if err != nil {
		c.stats.Failures.Add(1)
		return nil, err
	}
	e := &entry{record: c.shared.record(&found, c.prefix), fetched: asked.Sub(c.start), stamp: c.stamps.take(found.Key.ID, found.Key.Organization, found.Key.Account)}
	e.used.Store(lastUse(&found))
	if c.stamps.epoch.Load() == epoch {
		c.found.Set(h, e)
	}
	return e, nil
}

// space returns the space that a request names by id or slug, or nil.
func (c *cache) space(ctx context.Context, organization, ref string) (*keys.Space, error) {
	if len(ref) > maxRef {
		return nil, nil
	}
	at := spaceRef{organization, ref}
	if e, ok := c.spaces.GetIfPresent(at); ok && c.isFresh() && c.stamps.holds(&e.stamp) && (e.space != nil || c.now().Before(e.until)) {
		return e.space, nil
	}
	epoch := c.stamps.epoch.Load()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
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
		at.ref = strings.Clone(ref) // it is part of a request
		c.spaces.Set(at, e)
	}
	return e.space, nil
}
