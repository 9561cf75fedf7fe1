package ratelimit_test

import (
	"context"
	"errors"
	"time"

	"keygate/ratelimit"
)

// request is one request of a key.
func (r *replica) request(k int, cost int64) {
	w, key := r.w, r.w.keys[k]
	limits := r.periods(k)
	if r.rules%2 == 1 && len(limits) == 3 {
		limits = limits[:2] // the policy lacks the third
	}
	a := ratelimit.Ask{Organization: "org_a", Key: key, Version: r.version[key], Rules: r.rules, Limits: limits, Cost: cost}
	session, _, _, _ := r.Lease(key)
	r.mayPause()
	d, waiter, renew, err := r.Request(&a)
	r.paused = false
	r.due[key] = r.due[key] || renew
	switch {
	case waiter != nil:
		r.waiting[waiter] = asked{key, cost, a}
	case err != nil:
		r.learn(key, err)
	case d.Allowed:
		// The compare-and-swap came just before the last look at the clock.
		if ends, known := w.expiry[session]; !known || r.entry >= ends {
			w.fail("invariant 4: session %q spent at %d, the ledger has its end at %d", session, r.entry, ends)
		}
		r.admit(&a, cost, r.entry)
		r.checkStates(&a, d)
	default:
		r.checkRecalled(denialOf{key, cost}, d)
	}
}

// learn has the replica read again what it is told has changed.
func (r *replica) learn(key string, err error) {
	if stopped, ok := errors.AsType[*ratelimit.StoppedError](err); ok {
		r.version[key] = max(r.version[key], stopped.Version)
	}
	if errors.Is(err, ratelimit.ErrStale) {
		r.rules = r.w.rules
	}
}

// checkStates: what a client is told is never negative, and less than the quota.
func (r *replica) checkStates(a *ratelimit.Ask, d ratelimit.Decision) {
	for i, s := range d.Limits {
		if s.Name != a.Limits[i].Name || s.Remaining < 0 || s.Remaining >= s.Quota {
			r.w.fail("told %+v of limit %+v", s, a.Limits[i])
		}
	}
}

// checkRecalled: a denial is not remembered for longer than it is true, and the
// wait that it tells is no shorter.
func (r *replica) checkRecalled(k denialOf, d ratelimit.Decision) {
	held := r.denied[k]
	if r.w.now > held.until {
		r.w.fail("invariant 8: %+v denied at %d from memory, which had to end at %d", k, r.w.now, held.until)
	}
	if ends := r.w.now + micros(d.RetryAfter) + 1; ends < held.ends {
		r.w.fail("told to wait %s at %d, the denial ends at %d", d.RetryAfter, r.w.now, held.ends)
	}
}

// send composes what is due and puts it on its way.
func (r *replica) send(key string) {
	if !r.due[key] || r.Busy(key) {
		return
	}
	r.due[key] = false
	round := r.Compose(key)
	r.takeReturns()
	if round != nil {
		r.w.asks = append(r.w.asks, message{from: r, key: key, round: round, ask: ratelimit.AskOf(round)})
	}
	if r.w.pause && r.w.IntN(40) == 0 {
		r.w.now += r.w.Int64N(1_000_000) // stopped after t0 was read
	}
}

// exchange has what is due go to the ledger and back without delay.
func (r *replica) exchange(key string) {
	before := len(r.w.asks)
	if r.send(key); len(r.w.asks) > before {
		r.w.deliver(true)
		r.w.receive(true)
	}
}

// look is what happens to a lease from time to time.
func (r *replica) look(key string) {
	send, _ := r.Tick(key)
	r.due[key] = r.due[key] || send
	r.takeReturns()
}

func (r *replica) takeReturns() {
	for _, a := range r.Returns {
		r.w.asks = append(r.w.asks, message{from: r, ask: a})
	}
	r.Returns = nil
}

// accepts hands an answer to the replica.
func (r *replica) accepts(m *message, g *ratelimit.Grant) bool {
	k := denialOf{m.key, m.ask.Cost}
	accepted, again := r.Receive(m.key, m.round, g)
	r.paused = false
	r.takeReturns()
	if !accepted {
		return false
	}
	r.due[m.key] = r.due[m.key] || again
	r.booked += g.Taken
	var wait time.Duration
	brief := 100 * time.Millisecond
	for i, s := range g.Limits {
		if s.Violated {
			wait = max(wait, s.RetryAfter)
		}
		if per := m.ask.Limits[i].Per; per > 0 {
			brief = min(brief, per/100)
		}
	}
	if wait > 0 {
		held := refusal{ends: g.Now.UnixMicro() + micros(wait)}
		held.until = held.ends
		if g.OthersHold {
			held.until = min(held.until, r.w.now+micros(brief)+1+micros(brief)/500)
		}
		r.denied[k] = held
	}
	return true
}

// settleWaiters takes note of what those who waited were told.
func (r *replica) settleWaiters(m *message) {
	for waiter, q := range r.waiting {
		d, err, ok := ratelimit.Answer(waiter)
		if !ok {
			continue
		}
		delete(r.waiting, waiter)
		switch {
		case err != nil:
			r.learn(q.key, err)
		case d.Allowed:
			r.admit(&q.ask, q.cost, r.w.now)
			r.checkStates(&q.ask, d)
		}
	}
}

// giveUp has a round end without an answer, which may still come.
func (r *replica) giveUp() {
	for _, from := range [][]message{r.w.asks, r.w.answers} {
		for _, m := range from {
			if m.from == r && m.round != nil && r.Busy(m.key) {
				r.Fail(m.key, m.round, context.DeadlineExceeded)
				r.takeReturns()
				r.settleWaiters(&m)
				r.due[m.key] = true
				return
			}
		}
	}
}
