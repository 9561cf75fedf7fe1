package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// The simulated network: replicas that run the very code of the Limiter, one
// ledger, and between them messages that are lost, doubled, delayed and
// overtaken. Everything happens in one goroutine, one step at a time, and is
// determined by a seed.

// A faults says what may go wrong.
type faults struct {
	drop, double, pause, crash, drift, change bool
}

// instant is a time of the world, in microseconds.
type instant = int64

func micros(d time.Duration) instant { return d.Microseconds() }

// world is one simulated run.
type world struct {
	*rand.Rand
	faults
	violation error // the first
	now       instant
	ledger    ratelimit.Ledger
	replicas  []*replica
	asks      []message
	answers   []message
	limits    map[string]*account // by holder and name
	expiry    map[string]instant  // of sessions, as the ledger has it
	stops     map[string]stop     // by key
	rules     int64
	names     int
	keys      []string
	terms     [][]ratelimit.Limit // by key, in full
}

// An account is a limit with what was admitted of it.
type account struct {
	ratelimit.Limit
	admitted []admission
}

type admission struct {
	at    instant
	units int64
}

// A stop is a change of a key that the ledger knows of.
type stop struct {
	version int64
	at      instant
}

// A message is an ask on its way, or the answer to it. Leases that are given
// back have no round.
type message struct {
	from  *replica
	key   string
	round *ratelimit.Round
	ask   ratelimit.Ask
	grant ratelimit.Grant
}

type replica struct {
	*ratelimit.Replica
	w       *world
	drift   int64 // its clock gains so many microseconds in a thousand
	stopped instant
	paused  bool // may be stopped at its next look at the clock
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

const epoch = instant(1_700_000_000_000_000)

func newWorld(seed uint64, f faults, ledger func(func() time.Time) ratelimit.Ledger) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 1)), faults: f, now: epoch,
		limits: map[string]*account{}, expiry: map[string]instant{}, stops: map[string]stop{},
	}
	w.ledger = ledger(func() time.Time { return time.UnixMicro(w.now) })
	w.setLimits()
	for range 1 + w.IntN(4) {
		w.replicas = append(w.replicas, w.newReplica())
	}
	return w
}

func onMemory(now func() time.Time) ratelimit.Ledger { return memory.New(memory.Options{Now: now}) }

// setLimits makes two keys of one organization that share a limit. Half of the
// worlds have room for long leases, in the others windows are full.
func (w *world) setLimits() {
	scale := 1 + 14*w.IntN(2)
	limit := func(name string, least, most int) ratelimit.Limit {
		quota := least + w.IntN(most-least)
		if w.IntN(8) == 0 {
			quota = 1 + w.IntN(39) // too small for leases
		}
		return ratelimit.Limit{Name: name, Quota: int64(quota * scale), Per: time.Duration(1+w.IntN(6)) * time.Second}
	}
	own, org, second := limit("own", 40, 200), limit("org", 40, 300), limit("second", 100, 400)
	for i := range 2 {
		key := fmt.Sprint("key_", i)
		w.keys = append(w.keys, key)
		own.Holder, org.Holder, second.Holder = key, "org_a", key
		limits := []ratelimit.Limit{own, org, second}[:1+w.IntN(3)]
		w.terms = append(w.terms, limits)
		for _, l := range limits {
			w.limits[l.Holder+l.Name] = &account{Limit: l}
		}
	}
}

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

// mayPause lets the process be stopped at its next look at the clock.
func (r *replica) mayPause() { r.paused = r.w.pause && r.w.IntN(24) == 0 }

func (w *world) fail(format string, args ...any) {
	if w.violation == nil {
		w.violation = fmt.Errorf(format, args...)
	}
}

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
	limits := w.terms[k]
	if r.rules%2 == 1 && len(limits) == 3 {
		limits = limits[:2] // the policy lacks the third
	}
	a := ratelimit.Ask{Organization: "org_a", Key: key, Version: r.version[key], Rules: r.rules, Limits: limits, Cost: cost}
	session, _, _, _ := r.Lease(key)
	r.mayPause()
	d, err, waiter, renew := r.Request(&a)
	r.paused = false
	r.due[key] = r.due[key] || renew
	switch {
	case waiter != nil:
		r.waiting[waiter] = asked{key, cost, a}
	case err != nil:
		if stopped, ok := errors.AsType[*ratelimit.StoppedError](err); ok {
			r.version[key] = stopped.Version // it reads the key again
		}
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

func (r *replica) takeReturns() {
	for _, a := range r.Returns {
		r.w.asks = append(r.w.asks, message{from: r, ask: a})
	}
	r.Returns = nil
}

// take picks a message at random, which leaves another copy behind at times.
func (w *world) take(from *[]message) (m message, ok bool) {
	if len(*from) == 0 {
		return m, false
	}
	i := 0
	if w.drop || w.double {
		i = w.IntN(len(*from))
	}
	m = (*from)[i]
	if !w.double || w.IntN(6) > 0 {
		*from = slices.Delete(*from, i, i+1)
	}
	return m, !w.drop || w.IntN(12) > 0
}

// deliver brings an ask to the ledger.
func (w *world) deliver() {
	m, ok := w.take(&w.asks)
	if !ok {
		return
	}
	grants := make([]ratelimit.Grant, 1)
	if err := w.ledger.Lease(context.Background(), []ratelimit.Ask{m.ask}, grants); err != nil {
		w.fail("%v", err)
		return
	}
	m.grant = grants[0]
	if g := &m.grant; g.TTL > 0 {
		id := m.ask.Session
		if g.Status == ratelimit.Expired {
			id = m.ask.NextSession
		}
		w.expiry[id] = max(w.expiry[id], g.Now.UnixMicro()+micros(g.TTL))
	}
	if m.round != nil {
		w.answers = append(w.answers, m)
	}
}

// receive brings an answer back.
func (w *world) receive() {
	m, ok := w.take(&w.answers)
	if !ok {
		return
	}
	r := m.from
	r.mayPause()
	g := m.grant
	if !r.accepts(&m, &g) {
		return
	}
	r.settleWaiters(&m)
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
	brief := time.Duration(1 << 60)
	for i, s := range g.Limits {
		if s.Violated {
			wait = max(wait, s.RetryAfter)
		}
		brief = min(brief, m.ask.Limits[i].Per/100)
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
			if stopped, ok := errors.AsType[*ratelimit.StoppedError](err); ok {
				r.version[q.key] = max(r.version[q.key], stopped.Version)
			}
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

// step is one thing that happens.
func (w *world) step() {
	r := w.replicas[w.IntN(len(w.replicas))]
	k := w.IntN(len(w.keys))
	switch n := w.IntN(100); {
	case n < 34:
		cost := int64(1)
		if w.IntN(8) == 0 {
			cost += w.Int64N(4)
		}
		for range 1 + w.IntN(1+w.IntN(40)) {
			r.request(k, cost)
		}
	case n < 58: // what is due goes to the ledger and back
		r.send(w.keys[k])
		w.deliver()
		w.receive()
	case n < 63:
		r.send(w.keys[k])
	case n < 68:
		w.deliver()
	case n < 73:
		w.receive()
	case n < 82:
		if send, _ := r.Tick(w.keys[k]); send {
			r.due[w.keys[k]] = true
		}
		r.takeReturns()
	case n < 90:
		w.now += w.Int64N(20_000)
	case n < 95:
		w.now += w.Int64N(400_000)
	case n < 96:
		w.now += w.Int64N(2_000_000)
	case n < 98:
		w.giveUpOrEdge(r, k)
	default:
		w.rare(r, k)
	}
}

// giveUpOrEdge has a call time out, or goes to the edge of a window, where a
// charge that ends too early shows.
func (w *world) giveUpOrEdge(r *replica, k int) {
	if w.drop && w.IntN(2) == 0 {
		r.giveUp()
		return
	}
	a := ratelimit.Ask{Organization: "org_a", Key: w.keys[k], Version: ratelimit.MaxVersion, Limits: w.terms[k], Cost: 1}
	if g, err := w.ledger.Peek(context.Background(), a); err == nil {
		w.now += micros(g.Limits[w.IntN(len(g.Limits))].NextUnit)
	}
}

func (w *world) rare(r *replica, k int) {
	switch w.IntN(8) {
	case 0:
		if w.crash {
			r.start()
		}
	case 1:
		if w.drop {
			w.asks, w.answers = nil, nil
		}
	case 2:
		if w.change { // another policy, which a replica hears of when it does
			w.rules++
			r.rules = w.rules
		}
	case 3:
		if w.change {
			s := stop{w.stops[w.keys[k]].version + 1, w.now}
			if old, ok := w.stops[w.keys[k]]; ok {
				s.at = old.at // the first stop is the one that older versions count from
				if r.version[w.keys[k]] == old.version {
					s.at = w.now
				}
			}
			if stopper, ok := w.ledger.(ratelimit.Stopper); ok {
				_ = stopper.Stop(context.Background(), "org_a", w.keys[k], s.version)
				w.stops[w.keys[k]] = stop{s.version, w.now}
			}
		}
	case 4:
		for waiter, q := range r.waiting {
			if r.Abandon(q.key, waiter) {
				delete(r.waiting, waiter)
			}
			break
		}
	case 5:
		w.now += w.Int64N(9_000_000)
	}
}

// check holds the invariants between two steps.
func (w *world) check() {
	held := map[string]int64{} // spendable, by holder
	shared := int64(0)
	for _, r := range w.replicas {
		for _, key := range w.keys {
			if _, granted, total, live := r.Lease(key); live {
				held[key] += granted - total
				shared += granted - total
				if total > granted {
					w.fail("invariant 3: %d spent of %d", total, granted)
				}
			}
		}
		if spent, burnt := r.Spent(), int64(r.Counts().Burnt.Load()); spent+r.booked != r.allowed+burnt {
			w.fail("invariant 3: %d spent of leases and %d booked, %d admitted and %d burnt", spent, r.booked, r.allowed, burnt)
		}
	}
	held["org_a"] = shared
	for k, key := range w.keys {
		a := ratelimit.Ask{Organization: "org_a", Key: key, Version: ratelimit.MaxVersion, Limits: w.terms[k], Cost: 1}
		g, err := w.ledger.Peek(context.Background(), a)
		if err != nil {
			w.fail("%v", err)
			return
		}
		for i, s := range g.Limits {
			l := &w.terms[k][i]
			acc := w.limits[l.Holder+l.Name]
			if charged, spent := s.Quota-s.Remaining, acc.since(w.now); charged < spent+w.spendable(l, held, i) {
				w.fail("invariant 2: limit %s of %s: %d charged, %d admitted in the window and %d spendable", l.Name, l.Holder, charged, spent, held[l.Holder])
			}
		}
	}
}

// spendable is what replicas hold of a limit. While two policies are in force
// they may hold units that were never granted against the third.
func (w *world) spendable(l *ratelimit.Limit, held map[string]int64, i int) int64 {
	if i == 2 && w.rules > 0 || l.Holder == "org_a" && !w.allShare() {
		return 0
	}
	return held[l.Holder]
}

// allShare reports whether every key draws on the organization's budget.
func (w *world) allShare() bool {
	return !slices.ContainsFunc(w.terms, func(limits []ratelimit.Limit) bool { return len(limits) < 2 })
}

// since is what was admitted in the window that ends now.
func (a *account) since(now instant) (sum int64) {
	from := now - micros(a.Per)
	for i := len(a.admitted) - 1; i >= 0 && a.admitted[i].at > from; i-- {
		sum += a.admitted[i].units
	}
	return sum
}

// most is the largest sum in any window.
func (a *account) most() (most int64) {
	sum, first := int64(0), 0
	for _, e := range a.admitted {
		sum += e.units
		for a.admitted[first].at <= e.at-micros(a.Per) {
			sum -= a.admitted[first].units
			first++
		}
		most = max(most, sum)
	}
	return most
}

// end holds what must be so of the whole run, and after it.
func (w *world) end() {
	longest := time.Duration(0)
	for _, acc := range w.limits {
		if most := acc.most(); most > acc.Quota {
			w.fail("invariant 1: limit %s of %s: %d admitted in a window, allowed are %d", acc.Name, acc.Holder, most, acc.Quota)
		}
		longest = max(longest, acc.Per)
	}
	w.now += micros(longest + ratelimit.LeaseTime(longest) + ratelimit.CallTimeout)
	for k, key := range w.keys {
		a := ratelimit.Ask{Organization: "org_a", Key: key, Version: ratelimit.MaxVersion, Limits: w.terms[k], Cost: 1}
		g, err := w.ledger.Peek(context.Background(), a)
		if err != nil {
			w.fail("%v", err)
			return
		}
		for _, s := range g.Limits {
			if s.Remaining != s.Quota {
				w.fail("invariant 6: after silence %d of %d are left of %s", s.Remaining, s.Quota, s.Name)
			}
		}
	}
	w.uncontended()
}

// uncontended: what fits is granted in one trip.
func (w *world) uncontended() {
	w.faults = faults{}
	w.asks, w.answers = nil, nil
	r := w.newReplica()
	r.version[w.keys[0]] = w.stops[w.keys[0]].version
	r.request(0, 1)
	r.send(w.keys[0])
	w.deliver()
	w.receive()
	if r.allowed != 1 {
		w.fail("invariant 7: a request that nothing stands against was not admitted in one trip")
	}
}

// simulate is one run; what it finds is an error.
func simulate(seed uint64, f faults, ledger func(func() time.Time) ratelimit.Ledger) error {
	w := newWorld(seed, f, ledger)
	for range 150 + w.IntN(250) {
		w.step()
		w.check()
		if w.violation != nil {
			return w.violation
		}
	}
	w.end()
	return w.violation
}
