package memory

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
)

// A replica spends leases as the leasing client will: one word of spent tokens,
// a deadline on its own clock, cumulative reports. It is driven step by step.
type replica struct {
	key    string
	limits []ratelimit.Limit
	drift  int64 // its clock gains so many microseconds per thousand seconds of 1e6

	session        string
	granted, spent int64
	deadline       int64 // own clock
	waiting        *call // the one call that an answer is accepted to

	heard time.Time // the ledger's time in the last answer
	bill  bill
}

// A bill is a series of corrections: what was reserved for requests whose cost
// shows later, and what it came to.
type bill struct {
	name                   string
	reserved, actual, seen int64
	at                     time.Time // of the earliest that is not known to be settled
}

// A settlement is a bill on its way.
type settlement struct {
	r      *replica
	res    ratelimit.Reservation
	actual int64
}

// A call is an ask on its way. It is given up when the replica sends the next:
// the ledger may still come to see it, but its answers are ignored from then on.
type call struct {
	r    *replica
	ask  ratelimit.Ask
	sent int64 // own clock
}

// An answer is what the ledger said to one copy of a call.
type answer struct {
	*call
	grant ratelimit.Grant
}

type world struct {
	t        *rapid.T
	l        *Ledger
	c        *fakeClock
	replicas []*replica
	asks     []*call
	answers  []answer
	settles  []settlement
	period   int64 // of the calendar quota
	names    int
	admitted map[string]*admissions // by holder and limit
	expiry   map[string]int64       // of every session, as the ledger last had it
}

func (w *world) now() int64                 { return w.l.clock() }
func (w *world) local(r *replica) int64     { n := w.now(); return n + n%1e12*r.drift/1000 }
func (w *world) name() string               { w.names++; return fmt.Sprint("s", w.names) }
func (w *world) int(name string, n int) int { return rapid.IntRange(0, n-1).Draw(w.t, name) }

// less2Drift is the deadline's allowance, in microseconds.
func less2Drift(d time.Duration) int64 { return ratelimit.Less2Drift(d).Microseconds() }

func (w *world) advance(us int64) { w.c.advance(time.Duration(us) * time.Microsecond) }

// admit notes requests that were let through and cost as much in the end.
func (w *world) admit(r *replica, at, n int64) {
	if n == 0 {
		return
	}
	for _, l := range r.limits {
		w.admitted[l.Holder+l.Name].add(at, n)
	}
}

// serve has admitted requests cost less than was reserved for them, or more, and
// puts it on the bill. What is guaranteed counts no more than what was reserved.
func (w *world) serve(r *replica, at, reserved int64) {
	if reserved == 0 {
		return
	}
	actual := reserved
	if w.int("cost shows later", 2) == 0 {
		actual = int64(w.int("actual", int(reserved)+2))
		if r.bill.reserved == r.bill.seen {
			r.bill.at = r.heard
		}
		r.bill.reserved += reserved
		r.bill.actual += actual
	}
	w.admit(r, at, min(actual, reserved))
}

// bounded are the limits as the replica asks them: the calendar quota with the
// present period, by a clock that may be slow.
func (w *world) bounded(r *replica) []ratelimit.Limit {
	limits := slices.Clone(r.limits)
	for i := range limits {
		if l := &limits[i]; l.Per == 0 {
			start := w.now() / w.period * w.period
			if w.int("slow calendar", 4) == 0 {
				start -= w.period
			}
			l.Start, l.End, l.NextEnd = time.UnixMicro(start), time.UnixMicro(start+w.period), time.UnixMicro(start+2*w.period)
		}
	}
	return limits
}

// settle sends the bill; it is delivered late, perhaps, perhaps twice or never.
func (w *world) settle(r *replica) {
	b := &r.bill
	if b.reserved == b.seen {
		return
	}
	res := ratelimit.Reservation{
		Organization: "org_a", Key: r.key, Limits: w.bounded(r), Session: b.name, Reserved: b.reserved, Seen: b.seen, At: b.at,
	}
	w.settles = append(w.settles, settlement{r, res, b.actual})
}

func (w *world) settleDelivered() {
	if len(w.settles) == 0 {
		return
	}
	i := w.int("which bill", len(w.settles))
	m := w.settles[i]
	if w.int("bill comes again", 4) > 0 {
		w.settles = slices.Delete(w.settles, i, i+1)
	}
	m.res.Actual = m.actual
	err := w.l.settle(&m.res)
	b := &m.r.bill
	switch {
	case b.name != m.res.Session || w.int("answer is lost", 4) == 0:
	case errors.Is(err, ratelimit.ErrForgotten):
		*b = bill{name: w.name()}
	case err == nil && m.res.Reserved > b.seen:
		b.seen = m.res.Reserved
	}
}

// open gives the replica a new session; what it holds of the old one is lost.
func (w *world) open(r *replica) {
	r.session, r.granted, r.spent, r.deadline = w.name(), 0, 0, 0
}

// request is the hot path: spend a token by compare-and-swap, which is the
// instant of admission, then look at the clock; a late one is burnt. The process
// may stop in between.
func (w *world) request(r *replica) {
	cost := int64(1 + w.int("cost", 3))
	if r.spent+cost > r.granted {
		return
	}
	r.spent += cost
	at := w.now()
	if w.int("stop", 8) == 0 {
		w.advance(int64(w.int("stopped", 1_500_000)))
	}
	if w.local(r) >= r.deadline {
		w.open(r)
		return
	}
	if at >= w.expiry[r.session] {
		w.t.Fatalf("session %s: spent at %d, expired at %d", r.session, at, w.expiry[r.session])
	}
	w.serve(r, at, cost)
}

// send asks: a report, for tokens, for requests that wait; or gives the session up.
func (w *world) send(r *replica, release bool) {
	if r.granted > 0 && w.local(r) >= r.deadline {
		if w.int("last word", 2) == 0 { // nothing is spent after it
			last := ratelimit.Ask{Organization: "org_a", Key: r.key, Limits: w.bounded(r), Cost: 1, Session: r.session, Spent: r.spent, Seen: r.granted, Release: true}
			w.asks = append(w.asks, &call{r: r, ask: last})
		}
		w.open(r)
	}
	a := ratelimit.Ask{
		Organization: "org_a", Key: r.key, Limits: w.bounded(r), Cost: 1,
		Session: r.session, Spent: r.spent, Seen: r.granted, Release: release,
	}
	if release {
		w.open(r)
	} else {
		a.NextSession = w.name()
		a.Want = int64(w.int("want", 6))
		a.Take = int64(max(0, w.int("take", 5)-2))
	}
	r.waiting = &call{r: r, ask: a, sent: w.local(r)}
	w.asks = append(w.asks, r.waiting)
}

// deliver brings an ask to the ledger, perhaps not for the last time.
func (w *world) deliver() {
	if len(w.asks) == 0 {
		return
	}
	i := w.int("which ask", len(w.asks))
	k := answer{call: w.asks[i]}
	if w.int("ask comes again", 5) > 0 {
		w.asks = append(w.asks[:i], w.asks[i+1:]...)
	}
	for i := range k.ask.Limits {
		if l := &k.ask.Limits[i]; l.Per == 0 && l.NextEnd.UnixMicro() <= w.now() {
			if w.l.Lease(nilContext{}, []ratelimit.Ask{k.ask}, make([]ratelimit.Grant, 1)) == nil {
				w.t.Fatalf("answered by a period that is over: %+v", *l)
			}
			return
		}
	}
	before := peek(w.t, w.l, k.ask.Limits...)
	k.grant = ask(w.t, w.l, k.ask)
	w.checkGrant(k, before)
	id := k.ask.Session
	if k.grant.Status == ratelimit.Expired {
		id = k.ask.NextSession
	}
	for _, l := range k.ask.Limits {
		if s := sessionOf(w.l, "org_a", l.Holder, id); s != nil {
			w.expiry[id] = s.exp
		}
	}
	w.answers = append(w.answers, k)
}

// checkGrant: uncontended means granted in one trip, and a denial says why.
func (w *world) checkGrant(k answer, before ratelimit.Grant) {
	violated := false
	for _, s := range k.grant.Limits {
		violated = violated || s.Violated
	}
	if before.Status == ratelimit.Granted && k.grant.Status == ratelimit.Denied {
		w.t.Fatalf("%+v denied with budget left: %+v", k.ask, before)
	}
	if k.grant.Status == ratelimit.Denied && !violated {
		w.t.Fatalf("%+v denied by no limit: %+v", k.ask, k.grant)
	}
}

// receive brings an answer back, perhaps twice, perhaps when the replica has
// moved on.
func (w *world) receive() {
	if len(w.answers) == 0 {
		return
	}
	i := w.int("which answer", len(w.answers))
	k := w.answers[i]
	if w.int("answer comes again", 5) > 0 {
		w.answers = append(w.answers[:i], w.answers[i+1:]...)
	}
	r, g := k.r, &k.grant
	if r.waiting != k.call {
		return // given up, or answered before
	}
	r.waiting = nil
	r.heard = g.Now
	if w.local(r)-k.sent < less2Drift(g.Admit) {
		w.serve(r, w.now(), g.Taken)
	}
	if r.session != k.ask.Session || k.ask.Release {
		return
	}
	if g.Status == ratelimit.Expired {
		r.session, r.granted, r.spent, r.deadline = k.ask.NextSession, 0, 0, 0
		if g.Leased == 0 {
			w.open(r)
		}
	}
	r.granted = max(r.granted, g.Leased)
	if g.TTL > 0 {
		r.deadline = max(r.deadline, k.sent+less2Drift(g.TTL))
	}
}

// check holds the invariants of the ledger against the log.
func (w *world) check() {
	now := w.now()
	seen := map[string]bool{}
	for _, r := range w.replicas {
		for _, l := range r.limits {
			name, per := l.Holder+l.Name, l.Per.Microseconds()
			if seen[name] {
				continue
			}
			seen[name] = true
			spendable := int64(0)
			for _, o := range w.replicas {
				for _, ol := range o.limits {
					if ol.Holder+ol.Name == name && w.local(o) < o.deadline {
						spendable += o.granted - o.spent
					}
				}
			}
			if per == 0 {
				per = now%w.period + 1 // since the period began
			}
			spent, held := w.admitted[name].since(now, per), charged(w.l, "org_a", l.Holder, l.Name)
			if spent+spendable > held {
				w.t.Fatalf("limit %s: %d admitted in the window and %d spendable, %d charged", name, spent, spendable, held)
			}
		}
	}
	for i := range w.l.shards {
		for _, h := range w.l.shards[i].order {
			for _, s := range h.sessions {
				if s.left() < 0 || s.acked < 0 {
					w.t.Fatalf("session %+v owes tokens", s)
				}
			}
		}
	}
}
