package ratelimit

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// LimiterOptions configures a [Limiter].
type LimiterOptions struct {
	// Ledger is where budgets are kept; required.
	Ledger Ledger
	// Timeout bounds one call of the ledger, and what one decision waits; 0 for
	// a ledger that cannot be slow.
	Timeout time.Duration
	// Local, if there is one, decides for open plans (Ask.Open) while the
	// ledger fails: each replica then admits up to the limits by itself.
	Local Ledger
	// Holders bounds how many keys leases are held for; DefaultHolders by
	// default. Requests of further ones are taken one by one.
	Holders int
	// Stale is called where a replica with a newer policy has used a budget: the
	// policy should be read and registered again. Until then the limits that the
	// ledger stores decide. It must not block.
	Stale func()
	// Alarm is told of every sign that the ledger lost what was spent. It is
	// called while a request waits and must not block.
	Alarm func(Loss)
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Limiter is the side of the limits that stands in the request path. It holds
// leases of the ledger for the keys in use and decides most requests from them,
// without asking; [Limiter.Run] looks after them. docs/limits.md explains how and
// why no window ever holds more than its quota.
// Safe for concurrent use.
type Limiter struct {
	client
	ledger   Ledger
	timeout  time.Duration
	local    Ledger
	start    time.Time
	stale    func()
	table    table
	schedule schedule
	courier  courier
	waiters  sync.Pool // of *waiter
	calls    sync.Pool // of *call
}

// NewLimiter returns a limiter in front of o.Ledger.
func NewLimiter(o LimiterOptions) *Limiter {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Alarm == nil {
		o.Alarm = func(Loss) {}
	}
	if o.Stale == nil {
		o.Stale = func() {}
	}
	if o.Holders == 0 {
		o.Holders = DefaultHolders
	}
	l := &Limiter{ledger: o.Ledger, timeout: o.Timeout, local: o.Local, start: o.Now(), stale: o.Stale}
	l.now, l.alarm, l.names.prefix = o.Now, o.Alarm, newSessionNames()
	l.release = l.courier.release
	l.rouse = func(h *holder, after time.Duration) { l.schedule.set(h, l.sinceStart()+after) }
	l.watch.clocks, _ = o.Ledger.(ManyClocks)
	l.table.max = int64(o.Holders)
	l.schedule.sooner = make(chan struct{}, 1)
	l.courier.client, l.courier.ledger, l.courier.timeout = &l.client, o.Ledger, o.Timeout
	l.courier.loads.New = func() any { return new(load) }
	l.waiters.New = func() any { return &waiter{done: make(chan struct{}, 1)} }
	l.calls.New = func() any { return new(call) }
	return l
}

// Decide books one request of cost ask.Cost (0 counts as 1) against all of
// ask.Limits or none, and says whether it may pass. Of the ask only
// Organization, Key, Version, Rules, Open, Limits, Cost, Corrected and Handle are read; its
// limits must not be changed afterwards. An ask without limits is allowed without
// touching the ledger. The decision's states are appended to states[:0], which
// may be nil: with memory enough, deciding allocates nothing as a rule.
//
// A [*StoppedError] means that the key must be read again, a [*LostError] says
// when to try again. Any other error means
// that the ledger could not be asked: the request can be neither admitted nor
// said to be over its limits.
func (l *Limiter) Decide(ctx context.Context, ask *Ask, states []State) (d Decision, err error) {
	if len(ask.Limits) == 0 {
		return Decision{Allowed: true}, nil
	}
	err, done := l.decideHere(ask, states, &d)
	if done {
		return d, about(ask, err)
	}
	d, err = l.decideThere(ctx, ask, states)
	if l.fallsBack(ctx, ask, err) {
		l.stats.Degraded.Add(1)
		d, err = l.take(ctx, l.local, ask, false, states)
		d.Degraded, d.At = DegradedLocal, time.Time{}
	}
	return d, about(ask, err)
}

// decideHere decides without the ledger, from a lease or from memory.
func (l *Limiter) decideHere(ask *Ask, states []State, d *Decision) (err error, done bool) {
	h := l.table.find(ask)
	if h == nil {
		return nil, false
	}
	cost := max(1, ask.Cost)
	renew, ok := h.spend(&l.client, ask, cost, states, d)
	if renew {
		l.renew(h)
	}
	if ok {
		return nil, true
	}
	*d, err, done = h.recall(&l.client, ask, cost, states)
	return err, done
}

// renew has a lease asked for more before it is used up.
func (l *Limiter) renew(h *holder) {
	h.mu.Lock()
	send := !h.queued && h.round == nil && !h.dropped
	h.queued = h.queued || send
	h.mu.Unlock()
	if send {
		l.courier.send(h)
	}
}

// decideThere has the request wait for an answer of the ledger.
func (l *Limiter) decideThere(ctx context.Context, ask *Ask, states []State) (Decision, error) {
	if err := ctx.Err(); err != nil {
		return Decision{}, err
	}
	if l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	w := l.waiters.Get().(*waiter)
	w.states = states
	h, waits := l.join(ask, w)
	if h == nil {
		l.stats.Crowded.Add(1)
		return l.takeAlone(ctx, ask, false, states)
	}
	if waits && !l.await(ctx, h, w) {
		err := ctx.Err()
		l.countLate(err)
		return Decision{}, err // the waiter is not used again: an answer may be on its way to it
	}
	d, err := w.decision, w.err
	*w = waiter{done: w.done}
	l.waiters.Put(w)
	if errors.Is(err, ErrStale) {
		l.stale()
		return l.takeAlone(ctx, ask, true, states)
	}
	l.countLate(err)
	return d, err
}

// takeAlone decides a request without a holder.
func (l *Limiter) takeAlone(ctx context.Context, ask *Ask, stored bool, states []State) (Decision, error) {
	d, err := l.take(ctx, l.ledger, ask, stored, states)
	l.countLate(err)
	return d, err
}

// join puts the request where the key's others wait. There is no holder if there
// is no room for one.
func (l *Limiter) join(ask *Ask, w *waiter) (h *holder, waits bool) {
	for {
		h, made := l.table.add(ask)
		if h == nil {
			return nil, false
		}
		h.mu.Lock()
		if h.dropped {
			h.mu.Unlock()
			continue // there is another by now, or will be
		}
		waits = h.join(&l.client, ask, max(1, ask.Cost), w)
		send := waits && !h.queued && h.round == nil
		h.queued = h.queued || send
		if made {
			l.rouse(h, idleLeases*maxLease)
		}
		h.mu.Unlock()
		if send {
			l.courier.carry(h)
		}
		return h, waits
	}
}

// await waits for the answer; it reports false if the context ended before.
func (l *Limiter) await(ctx context.Context, h *holder, w *waiter) bool {
	select {
	case <-w.done:
		return true
	default:
	}
	select {
	case <-w.done:
		return true
	case <-ctx.Done():
	}
	h.mu.Lock()
	gone := h.abandon(w)
	h.mu.Unlock()
	if gone {
		return false
	}
	<-w.done
	return true
}

// fallsBack reports whether this replica decides by itself after an error.
func (l *Limiter) fallsBack(ctx context.Context, ask *Ask, err error) bool {
	if err == nil || !ask.Open || l.local == nil || ctx.Err() != nil || errors.Is(err, ErrStale) {
		return false
	}
	_, stopped := errors.AsType[*StoppedError](err)
	return !stopped
}

// countLate counts a decision for which the ledger took too long. A
// connection's deadline may be over before the context's.
func (l *Limiter) countLate(err error) {
	if err != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrLate)) {
		l.stats.Late.Add(1)
	}
}

// Stats are the limiter's counters.
func (l *Limiter) Stats() *Stats { return &l.stats }

// Holders is the number of keys that something is held of.
func (l *Limiter) Holders() int { return int(l.table.size.Load()) }

// Burnt is the summed cost that was booked and not admitted because the
// ledger's answer came too late.
func (l *Limiter) Burnt() uint64 { return l.stats.Burnt.Load() }

// Late counts the decisions for which the ledger took too long.
func (l *Limiter) Late() uint64 { return l.stats.Late.Load() }

// Degraded counts the decisions that this replica made by itself.
func (l *Limiter) Degraded() uint64 { return l.stats.Degraded.Load() }

func (l *Limiter) sinceStart() time.Duration { return elapsed(l.start, l.now()) }

// elapsed is the larger of the monotonic and the wall time between two
// readings: the monotonic clock stands still while the machine sleeps, and the
// wall clock may be set back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), time.Duration(to.UnixNano()-from.UnixNano()))
}
