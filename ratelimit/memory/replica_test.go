package memory

import (
	"fmt"
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

func (w *world) admit(r *replica, n int64) {
	if n == 0 {
		return
	}
	for _, l := range r.limits {
		w.admitted[l.Holder+l.Name].add(w.now(), n)
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
	if r.spent >= r.granted {
		return
	}
	r.spent++
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
	for _, l := range r.limits {
		w.admitted[l.Holder+l.Name].add(at, 1)
	}
}

// send asks: a report, for tokens, for requests that wait; or gives the session up.
func (w *world) send(r *replica, release bool) {
	if r.granted > 0 && w.local(r) >= r.deadline {
		w.open(r)
	}
	a := ratelimit.Ask{
		Organization: "org_a", Key: r.key, Limits: r.limits, Cost: 1,
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
	if w.local(r)-k.sent < less2Drift(g.Admit) {
		w.admit(r, g.Taken)
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
