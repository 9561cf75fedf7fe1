package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keygate/ratelimit"
)

type replica struct {
	*ratelimit.Replica
	w       *world
	drift   int64 // its clock gains so many microseconds in a thousand
	paused  bool  // may be stopped at its next look at the clock
	entry   instant
	due     map[string]bool // rounds to compose
	waiting map[*ratelimit.Waiter]asked
	denied  map[denialOf]refusal
	rules   int64
	version map[string]int64
	booked  int64 // units that its takes were answered with
	allowed int64 // units that it admitted
}

type asked struct {
	key  string
	cost int64
	ask  ratelimit.Ask
}

type denialOf struct {
	key  string
	cost int64
}

// A refusal is until when a denial may be remembered, and until when it is true.
type refusal struct{ until, ends instant }

func (w *world) newReplica() *replica {
	r := &replica{w: w}
	if w.drift {
		r.drift = int64(w.IntN(3)) - 1
	}
	r.start()
	return r
}

// start gives the replica a process; what the former one knew is gone.
func (r *replica) start() {
	r.w.names++
	r.Replica = ratelimit.NewReplica(fmt.Sprint("r", r.w.names), r.clock)
	r.due, r.waiting = map[string]bool{}, map[*ratelimit.Waiter]asked{}
	r.denied, r.version = map[denialOf]refusal{}, map[string]int64{}
	r.booked, r.allowed = 0, 0
	r.rules = r.w.rules
}

// clock is what the replica reads. A process may be stopped at any place; where
// it matters is just before it reads the clock.
func (r *replica) clock() time.Time {
	r.entry = r.w.now
	if r.paused {
		r.paused = false
		r.w.now += r.w.Int64N(3_000_000)
	}
	local := r.w.now + (r.w.now-epoch)*r.drift/1000
	return time.UnixMicro(local)
}

// periods are the limits of a key as they are by the replica's clock.
func (r *replica) periods(k int) []ratelimit.Limit {
	return r.w.inPeriod(r.w.terms[k], time.UnixMicro(r.w.now+(r.w.now-epoch)*r.drift/1000))
}

// mayPause lets the process be stopped at its next look at the clock.
func (r *replica) mayPause() { r.paused = r.w.pause && r.w.IntN(24) == 0 }

// admit notes what was let through, and holds it against what the ledger said.
func (r *replica) admit(a *ratelimit.Ask, cost int64, at instant) {
	r.allowed += cost
	for i := range a.Limits {
		l := &a.Limits[i]
		acc := r.w.limits[l.Holder+l.Name]
		n := len(acc.admitted)
		for n > 0 && acc.admitted[n-1].at > at {
			n--
		}
		acc.admitted = slices.Insert(acc.admitted, n, admission{at, cost})
	}
	if s, ok := r.w.stops[a.Key]; ok && a.Version < s.version {
		bound := ratelimit.CallTimeout
		for _, l := range a.Limits {
			bound = max(bound, ratelimit.LeaseTime(l.Per))
		}
		if at > s.at+micros(bound) {
			r.w.fail("invariant 9: key %s admitted %s after it was stopped", a.Key, time.Duration(at-s.at)*time.Microsecond)
		}
	}
}

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
		if per := a.Limits[i].Per; per > 0 && s.NextUnit > per+ratelimit.LeaseTime(per) {
			r.w.fail("told %+v, which is more than τ after a window of %s", s, per)
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
