// Package memory is the ledger of a single replica: budgets live in this
// process and are gone when it ends.
//
// It decides exactly as the ledger in Redis does, one step at a time, in whole
// microseconds of a clock that never runs backwards. A holder with one limit and
// one charge takes about 400 bytes, a full array of charges 1 KiB more for each
// limit. A holder is forgotten some time after its last charge has ended, as
// asks come in: at most twice the holders in use are kept, and a few per shard.
package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"keygate/ratelimit"
)

// shards is how many decisions can run side by side at most: more than any
// machine has cores that do nothing else.
const shards = 64

// Options configures a [Ledger].
type Options struct {
	// Now is the clock; time.Now by default. Only differences count, so that
	// with time.Now the ledger follows the monotonic clock: setting the wall
	// clock neither opens nor freezes a window.
	Now func() time.Time
}

// Ledger implements [ratelimit.Ledger]. It starts no goroutine.
type Ledger struct {
	now    func() time.Time
	origin time.Time
	seed   maphash.Seed
	base   int64 // the clock's reading at origin
	lag    atomic.Pointer[lag]
	lostAt atomic.Int64 // when what was spent may have been lost; 0: it was not
	shards [shards]shard
	// Of a ledger that Open made.
	dir     string
	journal *journal
	closed  atomic.Bool
}

var _ ratelimit.Ledger = (*Ledger)(nil)

// New returns an empty ledger.
func New(o Options) *Ledger {
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Ledger{now: o.Now, origin: o.Now(), seed: maphash.MakeSeed()}
	l.base = l.origin.UnixMicro()
	l.lag.Store(new(lag))
	for i := range l.shards {
		l.shards[i].holders = make(map[holderKey]*holder)
	}
	return l
}

// Lease implements [ratelimit.Ledger]. Unless an ask is malformed, or the
// context has ended before anything was booked, it does not fail.
func (l *Ledger) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	if len(asks) != len(grants) {
		return fmt.Errorf("memory ledger: %d asks, memory for %d grants", len(asks), len(grants))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range asks {
		if err := asks[i].Validate(); err != nil {
			return fmt.Errorf("memory ledger: %w", err)
		}
	}
	// What the disk must know first is claimed for all of them at once: one sync, and
	// where it fails none of them has been counted.
	var claimed []claim
	if l.journal != nil && len(asks) > 1 {
		for i := range asks {
			claims, err := l.shard(&asks[i]).lease(l, &asks[i], &grants[i], nil, false)
			if err != nil {
				return fmt.Errorf("memory ledger: %w", err)
			}
			claimed = append(claimed, claims...)
		}
		if err := l.journal.add(claimed, l.date); err != nil {
			return fmt.Errorf("memory ledger: %w", err)
		}
	}
	for i := range asks {
		if err := l.lease(&asks[i], &grants[i], claimed); err != nil {
			return fmt.Errorf("memory ledger: %w", err)
		}
	}
	return nil
}

// lease answers one ask. Where the disk must know first what it may be given, it is
// decided once that is so; others can have used that up meanwhile.
func (l *Ledger) lease(a *ratelimit.Ask, g *ratelimit.Grant, claimed []claim) error {
	for {
		claims, err := l.shard(a).lease(l, a, g, claimed, true)
		if err != nil || len(claims) == 0 {
			return err
		}
		if err := l.journal.add(claims, l.date); err != nil {
			return err
		}
		claimed = claims
	}
}

// Peek implements [ratelimit.Ledger].
func (l *Ledger) Peek(ctx context.Context, a ratelimit.Ask) (ratelimit.Grant, error) {
	if err := ctx.Err(); err != nil {
		return ratelimit.Grant{}, err
	}
	if err := a.Validate(); err != nil {
		return ratelimit.Grant{}, fmt.Errorf("memory ledger: %w", err)
	}
	g := ratelimit.Grant{Limits: make([]ratelimit.State, 0, len(a.Limits))}
	if err := l.shard(&a).peek(l, &a, &g); err != nil {
		return ratelimit.Grant{}, fmt.Errorf("memory ledger: %w", err)
	}
	return g, nil
}

// Lose says that what was spent before now may be missing.
func (l *Ledger) Lose() { l.lostAt.Store(l.clock()) }

// Holders is the number of keys and organizations that something is kept of.
func (l *Ledger) Holders() int {
	n := 0
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].order)
		l.shards[i].mu.Unlock()
	}
	return n
}

func (l *Ledger) shard(a *ratelimit.Ask) *shard { return l.shardOf(placeOf(a)) }

func (l *Ledger) shardOf(place string) *shard {
	return &l.shards[maphash.String(l.seed, place)%shards]
}

// clock is read before the shard is locked, to keep the lock short. A decision
// made at a time a little past is still one after the ask was sent, which is
// where whoever asked counts its deadlines from.
func (l *Ledger) clock() int64 {
	now, _ := l.time()
	return now
}

// A lag is by how much the wall clock is ahead of the ledger's, in µs, and since when
// by the ledger's.
type lag struct{ by, since int64 }

// lagStep is what the two may differ by before anybody looks: that the wall clock is
// slewed moves no period.
const lagStep = int64(time.Second / time.Microsecond)

// time reads the clock. Calendar periods are those of the wall clock, which goes on
// while the machine sleeps, and is put right after the start of one that does not know
// the time: the ledger's, which then stays behind for good, says only how long ago
// something was. Where it is ahead of the wall clock, periods go by it.
func (l *Ledger) time() (now int64, wall lag) {
	at := l.now()
	now, held := l.base+at.Sub(l.origin).Microseconds(), l.lag.Load()
	by := max(0, at.UnixMicro()-now)
	if by-held.by < lagStep && held.by-by < lagStep {
		return now, *held
	}
	held = &lag{by, now}
	l.lag.Store(held)
	return now, *held
}

// date is the time that calendar periods go by.
func (l *Ledger) date() int64 {
	now, wall := l.time()
	return now + wall.by
}
