package ratelimit_test

import (
	"context"
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
	period    time.Duration // of calendar quotas, if there are any
	keys      []string
	terms     [][]ratelimit.Limit // by key, in full
}

// An account is a limit with what was admitted of it.
type account struct {
	ratelimit.Limit
	period   time.Duration // of a calendar quota
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
	scale := 1 + 9*w.IntN(2)
	limit := func(name string, least, most int) ratelimit.Limit {
		quota := least + w.IntN(most-least)
		if w.IntN(8) == 0 {
			quota = 1 + w.IntN(39) // too small for leases
		}
		return ratelimit.Limit{Name: name, Quota: int64(quota * scale), Per: time.Duration(1+w.IntN(6)) * time.Second}
	}
	if quota := w.IntN(3); quota == 0 {
		w.period = time.Duration(2+w.IntN(8)) * time.Second
	}
	own, org, second := limit("own", 40, 200), limit("org", 40, 300), limit("second", 100, 400)
	for i := range 2 {
		key := fmt.Sprint("key_", i)
		w.keys = append(w.keys, key)
		own.Holder, org.Holder, second.Holder = key, "org_a", key
		if w.period > 0 { // the last one is a calendar quota
			second.Per = 0
		}
		limits := []ratelimit.Limit{own, org, second}[:1+w.IntN(3)]
		w.terms = append(w.terms, limits)
		for _, l := range limits {
			w.limits[l.Holder+l.Name] = &account{Limit: l, period: w.period}
		}
	}
}

// inPeriod gives calendar quotas the period of a time.
func (w *world) inPeriod(limits []ratelimit.Limit, at time.Time) []ratelimit.Limit {
	for i := range limits {
		if limits[i].Per == 0 {
			l := slices.Clone(limits)
			l[i].Start = at.Truncate(w.period)
			l[i].End, l[i].NextEnd = l[i].Start.Add(w.period), l[i].Start.Add(2*w.period)
			return l
		}
	}
	return limits
}

// periods are the limits of a key as they are now.
func (w *world) periods(k int) []ratelimit.Limit {
	return w.inPeriod(w.terms[k], time.UnixMicro(w.now))
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

// periods are the limits of a key as they are by the replica's clock.
func (r *replica) periods(k int) []ratelimit.Limit {
	return r.w.inPeriod(r.w.terms[k], time.UnixMicro(r.w.now+(r.w.now-epoch)*r.drift/1000))
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

// take picks a message at random, or the latest, which leaves another copy behind
// at times.
func (w *world) take(from *[]message, latest bool) (m message, ok bool) {
	if len(*from) == 0 {
		return m, false
	}
	i := 0
	switch {
	case latest:
		i = len(*from) - 1
	case w.drop || w.double:
		i = w.IntN(len(*from))
	}
	m = (*from)[i]
	if !w.double || w.IntN(6) > 0 {
		*from = slices.Delete(*from, i, i+1)
	}
	return m, !w.drop || w.IntN(12) > 0
}

// deliver brings an ask to the ledger.
func (w *world) deliver(latest bool) {
	m, ok := w.take(&w.asks, latest)
	if !ok {
		return
	}
	grants := make([]ratelimit.Grant, 1)
	if err := w.ledger.Lease(context.Background(), []ratelimit.Ask{m.ask}, grants); err != nil {
		if w.period == 0 { // else it came so late that its period is long over
			w.fail("%v", err)
		}
		if r := m.from; m.round != nil {
			again := r.Fail(m.key, m.round, err)
			r.takeReturns()
			r.settleWaiters(&m)
			r.due[m.key] = r.due[m.key] || again
		}
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
func (w *world) receive(latest bool) {
	m, ok := w.take(&w.answers, latest)
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
		for range 1 + w.IntN(1+w.IntN(20)) {
			r.request(k, cost)
		}
	case n < 58: // what is due goes to the ledger and back
		r.exchange(w.keys[k])
	case n < 63:
		r.send(w.keys[k])
	case n < 68:
		w.deliver(false)
	case n < 73:
		w.receive(false)
	case n < 82:
		r.look(w.keys[k])
	case n < 90:
		w.now += w.Int64N(20_000)
	case n < 95: // a while in which leases are looked after, or not
		for range w.IntN(5) {
			w.now += w.Int64N(150_000)
			r.look(w.keys[k])
			r.exchange(w.keys[k])
			r.request(k, 1)
		}
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
	a := ratelimit.Ask{Organization: "org_a", Key: w.keys[k], Version: ratelimit.MaxVersion, Rules: w.rules, Limits: w.periods(k), Cost: 1}
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
