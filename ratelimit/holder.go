package ratelimit

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// attempts bounds how often one decision asks the ledger. The second is for an
// answer that a pause of this process made late, or for a request that may fit
// once the rest of a lease has been given back.
const attempts = 2

// idleLeases is after how many τ without a request a holder is forgotten: its
// demand has decayed to nothing by then.
const idleLeases = 5

// A client is what all holders of a replica share: its clock, its counters and
// the ways to the ledger. The holders under it are state machines that take the
// time and the ledger's answers as inputs and start nothing by themselves, so
// that tests can drive them through any network.
type client struct {
	now   func() time.Time
	names sessionNames
	stats Stats
	watch clockWatches
	// closing ends leasing: what is given back must not be taken again.
	closing atomic.Bool
	// release sends an ask that gives a lease back; its answer is of no use.
	release func(Ask)
	// rouse has a holder looked at when the time has passed, or earlier.
	rouse func(h *holder, after time.Duration)
	// alarm is told of every sign that the ledger lost what was spent.
	alarm func(Loss)
}

// Loss is a sign that the ledger may have lost what was spent.
type Loss struct {
	// Organization and Key are whose lease the ledger did not know any more, or
	// beside whom the clock was set; empty where that was the ledger's only one.
	Organization, Key string
	// Step is by how much the ledger's clock was set.
	Step time.Duration
	// Since is a time of the ledger after which it happened.
	Since time.Time
	// Forgotten is what was spent of the lease: by so much quotas may be exceeded.
	Forgotten int64
}

// lost counts a sign of loss and tells of it.
func (c *client) lost(l Loss) {
	c.stats.Lost.Add(1)
	c.stats.Forgotten.Add(uint64(l.Forgotten))
	c.alarm(l)
}

// A holder is one key with what this replica may spend for it. Requests that
// find nothing to spend wait here. One ask is under way at a time; whoever comes
// after it was sent travels with the next.
type holder struct {
	key    string
	anchor *anchor                 // of the handles that lead here
	lease  atomic.Pointer[lease]   // nil: none
	denied atomic.Pointer[denials] // nil: none
	turned atomic.Int64            // cost of requests denied from memory, for demand
	alone  atomic.Bool             // its last call failed, perhaps on its account

	mu      sync.Mutex
	terms   *terms
	waiting []*waiter
	round   *round // under way
	queued  bool   // to be composed
	report  bool   // the next round reports even if it asks for nothing
	crowd   bool   // a request came while others waited
	dropped bool   // no longer in the table
	demand  demand
	opening string // see successor
	opened  time.Time
	// Asks for a lower version or an older policy than these are not worth a trip.
	stopped, newest int64
	used            time.Time // last seen spending or asking
	asked           time.Time // last ask on behalf of the lease,
	told            int64     // and the spending it reported
	slot            int       // in the schedule, from 1; 0: none. The schedule's lock guards it
	due             time.Duration
}

func newHolder(key string) *holder {
	h := &holder{key: key, anchor: new(anchor)}
	h.anchor.holder.Store(h)
	return h
}

// A waiter is a request for which this replica holds nothing.
type waiter struct {
	terms  *terms
	cost   int64
	states []State // the caller's memory
	exact  bool    // not from a lease, see Ask.Corrected
	tries  int
	gone   bool // nobody waits for the answer
	done   chan struct{}

	decision Decision
	err      error
}

func (w *waiter) answer(d Decision, err error) {
	w.decision, w.err = d, err
	w.done <- struct{}{}
}

// spend decides from the lease, if it can: the hot path. The decision goes where
// it is to end up: it is large, and copying it took longer than making it. renew says
// that it is time to ask for more.
func (h *holder) spend(c *client, a *Ask, cost int64, states []State, d *Decision) (renew, ok bool) {
	le := h.lease.Load()
	if le == nil || a.Corrected || !le.terms.Load().hold(a) {
		return false, false
	}
	v, total, age, o := le.spend(cost, c.now)
	if o != spent {
		if o == burnt {
			c.stats.Burnt.Add(uint64(cost))
		}
		return false, false
	}
	d.Allowed, d.Limits, d.At = true, v.show(states, total, age), v.now
	return total >= v.renew && total-cost < v.renew, true
}

// recall decides from memory, if it can.
func (h *holder) recall(c *client, a *Ask, cost int64, states []State) (d Decision, err error, ok bool) {
	if d, err, ok = h.recalled(a, cost, states, c.now); ok {
		h.turned.Add(cost)
		c.stats.Remembered.Add(1)
	}
	return d, err, ok
}

// recalled is what recall says, without counting it.
func (h *holder) recalled(a *Ask, cost int64, states []State, clock func() time.Time) (d Decision, err error, ok bool) {
	held := h.denied.Load()
	if held == nil {
		return d, nil, false
	}
	now := clock()
	m := held.find(a, cost, now)
	if m == nil {
		return d, nil, false
	}
	if d = m.decision(states[:0], now); m.lost {
		return Decision{}, &LostError{RetryAfter: d.RetryAfter}, true
	}
	return d, nil, true
}

// join lets a request wait for the next round, unless it can be answered now.
func (h *holder) join(c *client, a *Ask, cost int64, w *waiter) (waits bool) {
	now := c.now()
	if oldest := max(h.stopped, h.version()); a.Version < oldest {
		w.err = &StoppedError{Version: oldest}
		return false
	}
	if a.Rules < h.newest {
		w.err = ErrStale
		return false
	}
	if w.terms, w.err = h.adopt(c, a, now); w.err != nil {
		return false
	}
	h.used = now
	if le := h.lease.Load(); le != nil && !le.view.Load().live(now) {
		h.retire(c, now) // nothing more of it is to be burnt
	}
	if _, ok := h.spend(c, a, cost, w.states, &w.decision); ok {
		return false
	}
	var ok bool
	if w.decision, w.err, ok = h.recall(c, a, cost, w.states); ok {
		return false
	}
	w.cost, w.exact = cost, a.Corrected
	if !w.exact {
		h.demand.add(cost, now, h.terms.tau)
		h.crowd = h.crowd || h.round != nil || len(h.waiting) > 0
	}
	h.waiting = append(h.waiting, w)
	return true
}

func (h *holder) version() int64 {
	if h.terms == nil {
		return 0
	}
	return h.terms.version
}

// adopt returns the terms of an ask. Those of a newer key or policy are in force
// from now on: where they have the same limits a lease goes on under them,
// otherwise it is given back. Requests of an older policy are under way when it
// is replaced; they are decided by what they came with.
func (h *holder) adopt(c *client, a *Ask, now time.Time) (*terms, error) {
	if h.terms != nil && h.terms.hold(a) {
		return h.terms, nil
	}
	t, err := newTerms(a)
	if err != nil || h.terms != nil && h.terms.older(a) {
		return t, err
	}
	former := h.terms
	h.terms = t
	if former == nil || former.same(a) {
		if le := h.lease.Load(); le != nil {
			le.terms.Store(t)
		}
		return t, nil
	}
	h.opening = ""
	h.retire(c, now)
	return t, nil
}

// abandon takes a request out whose client has gone or was kept too long. It
// reports false if the answer is there.
func (h *holder) abandon(w *waiter) bool {
	if len(w.done) > 0 {
		return false
	}
	w.gone = true // of a round that is under way it stays a part
	h.waiting = slices.DeleteFunc(h.waiting, func(o *waiter) bool { return o == w })
	return true
}

// board takes the requests off the queue that travel together: those of the same
// terms and cost as the first, so that the ledger's answer is about each of them.
func (h *holder) board() (riders []*waiter) {
	if len(h.waiting) == 0 {
		return nil
	}
	first := h.waiting[0]
	rest := h.waiting[:0]
	for _, w := range h.waiting {
		if w.terms == first.terms && w.cost == first.cost && w.exact == first.exact && int64(len(riders)) < MaxQuota/w.cost {
			riders = append(riders, w)
		} else {
			rest = append(rest, w)
		}
	}
	clear(h.waiting[len(rest):])
	if h.waiting = rest; len(rest) == 0 {
		h.waiting = nil // an idle holder keeps no array
	}
	return riders
}

// sample takes in what was spent from the lease and refused from memory since
// the last time.
func (h *holder) sample(c *client, now time.Time) {
	units := h.turned.Swap(0)
	if le := h.lease.Load(); le != nil {
		n := le.spent() - h.demand.seen
		c.stats.Leased.Add(uint64(n))
		h.demand.seen += n
		units += n
	}
	if units > 0 {
		h.used = now
	}
	h.demand.add(units, now, h.terms.tau)
}

// retire ends the lease and gives back what is left of it. Where an ask about it
// is under way, that is told afterwards: the ledger hears of one session one
// thing at a time.
func (h *holder) retire(c *client, now time.Time) {
	le := h.lease.Load()
	if le == nil {
		return
	}
	total := le.close()
	h.sample(c, now)
	h.lease.Store(nil)
	if r := h.round; r != nil && r.lease == le {
		r.retired = true
		return
	}
	h.giveBack(c, le.terms.Load(), le.session, total, le.view.Load().granted)
}

// giveBack sends what a session has spent in the end, so that the rest returns
// to the budget. Lost, it is charged until the lease would have ended.
func (h *holder) giveBack(c *client, t *terms, session string, total, granted int64) {
	if total >= granted {
		return // only the report would be new, and it is not worth a trip
	}
	a := t.ask(1)
	a.Session, a.Spent, a.Seen, a.Release = session, total, granted, true
	h.denied.Store(nil) // there may be room now
	c.stats.Released.Add(1)
	c.stats.Returned.Add(uint64(granted - total))
	c.release(a)
}

// forsake ends a lease that the ledger does not know any more.
func (h *holder) forsake(c *client, now time.Time) {
	if le := h.lease.Load(); le != nil {
		le.close()
		h.sample(c, now)
		h.lease.Store(nil)
	}
}

// tick looks after the lease. It returns whether a round should be composed, how
// long until the next look, and whether the holder may be forgotten.
//
// After two thirds of τ without an ask the lease is reported and prolonged, or,
// if nothing was spent meanwhile, given back: left to expire, its units would be
// missing for a whole window. A third of τ is enough to see that a lease holds
// much more than is used.
func (h *holder) tick(c *client) (send bool, after time.Duration, idle bool) {
	if h.terms == nil {
		return false, 0, true // nobody has ever asked something that can be answered
	}
	now := c.now()
	tau := h.terms.tau
	if h.round != nil || h.queued {
		return false, tau / 8, false
	}
	le := h.lease.Load()
	if le == nil {
		h.sample(c, now)
		after = idleLeases*tau - elapsed(h.used, now)
		return false, max(after, tau/3), after <= 0
	}
	h.sample(c, now)
	v, total := le.view.Load(), le.spent()
	since := elapsed(h.asked, now)
	want := h.demand.want(h.terms.most, false)
	switch {
	case !v.live(now), since >= tau*2/3 && total == h.told, c.closing.Load():
		h.retire(c, now)
	case v.granted-total > 2*want+h.terms.most/4 && since >= tau/3:
		h.retire(c, now)
	case since >= tau*2/3:
		h.report, h.queued = true, true
		return true, tau / 8, false
	}
	return false, max(tau/3-since%(tau/3), tau/16), false
}
