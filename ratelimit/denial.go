package ratelimit

import (
	"time"
)

// maxDenials bounds how many denials, each of another cost, a holder remembers.
const maxDenials = 4

// A denial is an answer that stays true for a while, so that a key over its
// limits costs no trip for each of its requests. It never changes.
type denial struct {
	cost   int64
	terms  *terms
	states []State
	lost   bool // the ledger waits, see [LostError]
	// sent and span bound the memory: the ledger counted RetryAfter from after
	// sent, so that the memory ends before what it says does.
	sent time.Time
	span time.Duration
	// received is what waits are counted from: the ledger had answered by then.
	received time.Time
}

// over reports whether the ledger must be asked again.
func (d *denial) over(now time.Time) bool { return elapsed(d.sent, now) >= d.span }

// retryAfter is the longest wait among the violated limits.
func retryAfter(states []State) (wait time.Duration) {
	for i := range states {
		if s := &states[i]; s.Violated {
			wait = max(wait, s.RetryAfter)
		}
	}
	return wait
}

// decision is the denial as it is at a later time.
func (d *denial) decision(dst []State, now time.Time) Decision {
	age := Less2Drift(elapsed(d.received, now))
	for i := range d.states {
		s := d.states[i]
		s.NextUnit = max(0, s.NextUnit-age)
		if s.Violated {
			s.RetryAfter = max(0, s.RetryAfter-age)
		}
		dst = append(dst, s)
	}
	return Decision{RetryAfter: retryAfter(dst), Limits: dst}
}

// denials are what a holder remembers. The slice is never changed but replaced.
type denials []denial

// find returns the denial that answers an ask, nil if there is none.
func (d denials) find(a *Ask, cost int64, now time.Time) *denial {
	for i := range d {
		if m := &d[i]; m.cost == cost && !m.over(now) && m.terms.hold(a) {
			return m
		}
	}
	return nil
}

// with adds one and forgets what is over, of the same cost, or beyond the bound.
func (d denials) with(m denial, now time.Time) denials {
	next := append(make(denials, 0, min(len(d)+1, maxDenials)), m)
	for _, former := range d {
		if len(next) < maxDenials && former.cost != m.cost && !former.over(now) {
			next = append(next, former)
		}
	}
	return next
}

// deny makes a denial of what the ledger answered to a request of the cost.
func deny(t *terms, cost int64, g *Grant, sent, received time.Time) denial {
	span := Less2Drift(retryAfter(g.Limits))
	if g.OthersHold || g.Status != Lost && !t.steady(g) {
		span = min(span, t.brief())
	}
	return denial{
		cost: cost, terms: t, states: append([]State(nil), g.Limits...), lost: g.Status == Lost,
		sent: sent, span: span, received: received,
	}
}
