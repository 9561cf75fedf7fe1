package ratelimit_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// The traps that docs/limits.md's algorithm has, each with the story of what
// happens to who falls into it. Random runs do not reach all of them.

// line is one replica in front of one ledger; its messages go where a test says.
type line struct {
	*testing.T
	*clock
	*ratelimit.Replica
	ledger ratelimit.Ledger
	limits []ratelimit.Limit
	cost   int64
	vers   int64
}

func newLine(t *testing.T, limits ...ratelimit.Limit) *line {
	l := &line{T: t, clock: newClock(), limits: limits}
	l.ledger = memory.New(memory.Options{Now: l.clock.now})
	l.Replica = ratelimit.NewReplica("r", l.clock.now)
	return l
}

func (l *line) ask() *ratelimit.Ask {
	return &ratelimit.Ask{Organization: "org_a", Key: "key_a", Version: l.vers, Limits: l.limits, Cost: l.cost}
}

// lease asks the ledger.
func (l *line) lease(a ratelimit.Ask) ratelimit.Grant {
	l.Helper()
	grants := make([]ratelimit.Grant, 1)
	if err := l.ledger.Lease(context.Background(), []ratelimit.Ask{a}, grants); err != nil {
		l.Fatal(err)
	}
	return grants[0]
}

// left is what the ledger has left of the first limit.
func (l *line) left() int64 {
	l.Helper()
	a := *l.ask()
	a.Cost, a.Version = 1, ratelimit.MaxVersion
	g, err := l.ledger.Peek(context.Background(), a)
	if err != nil {
		l.Fatal(err)
	}
	return g.Limits[0].Remaining
}

// exchange makes the rounds that are due, and gives back what is on its way.
func (l *line) exchange() {
	l.Helper()
	for again := true; again; {
		l.giveBack()
		r := l.Compose("key_a")
		l.giveBack()
		if r == nil {
			return
		}
		g := l.lease(ratelimit.AskOf(r))
		_, again = l.Receive("key_a", r, &g)
	}
	l.giveBack()
}

func (l *line) giveBack() {
	l.Helper()
	returns := l.Returns
	l.Returns = nil
	for _, a := range returns {
		l.lease(a)
	}
}

// get makes n requests at once and returns how many were admitted.
func (l *line) get(n int) (admitted int) {
	l.Helper()
	var waiting []*ratelimit.Waiter
	for range n {
		d, w, _, err := l.Request(l.ask())
		if err != nil {
			l.Fatal(err)
		}
		if w != nil {
			waiting = append(waiting, w)
		} else if d.Allowed {
			admitted++
		}
	}
	l.exchange()
	for _, w := range waiting {
		d, err, ok := ratelimit.Answer(w)
		if err != nil || !ok {
			l.Fatalf("%v, answered %t", err, ok)
		}
		if d.Allowed {
			admitted++
		}
	}
	return admitted
}

// leased warms the key up until it has a lease, and returns its session.
func (l *line) leased() (session string, granted, total int64) {
	l.Helper()
	for range 8 {
		if l.get(4) != 4 {
			l.Fatal("refused")
		}
		if session, granted, total, live := l.Lease("key_a"); live && granted-total > 2 {
			return session, granted, total
		}
	}
	l.Fatal("no lease")
	return "", 0, 0
}

func minute(quota int64) ratelimit.Limit { return limit("minute", quota, time.Minute) }

const tau = 2 * time.Second

// A session that ended at the ledger while a report of it was on its way is not
// taken up again: what the replica still holds of it was charged to the end, and
// would be spent a second time. It happened in 4 of 300 simulated runs.
func TestTrapRevivedSession(t *testing.T) {
	l := newLine(t, minute(1000))
	session, granted, total := l.leased()
	l.Request(l.ask()) // spends one
	l.advance(tau * 2 / 3)
	if send, _ := l.Tick("key_a"); !send {
		t.Fatal("the lease is not looked after")
	}
	r := l.Compose("key_a")
	if a := ratelimit.AskOf(r); a.Session != session || a.Seen != granted || a.Spent != total+1 {
		t.Fatalf("%+v", a)
	}
	l.advance(tau) // on its way
	g := l.lease(ratelimit.AskOf(r))
	if g.Status != ratelimit.Expired {
		t.Fatalf("%+v", g)
	}
	l.Receive("key_a", r, &g)
	if s, _, total, live := l.Lease("key_a"); s == session || live && total != 0 {
		t.Fatalf("session %s goes on after its end", s)
	}
}

// A ledger that was emptied knows nothing of a lease. A replica that has spent
// nothing of it must not be given the same session anew: it would spend both.
// Seen tells, and it is a sign of loss that somebody should hear of.
func TestTrapUnspentAfterLoss(t *testing.T) {
	l := newLine(t, minute(1000))
	session, _, _ := l.leased()
	known := l.clock.now() // the ledger's last word
	l.advance(100 * time.Millisecond)
	l.ledger = memory.New(memory.Options{Now: l.clock.now})
	l.advance(tau * 2 / 3)
	l.get(1)
	if send, _ := l.Tick("key_a"); send {
		l.exchange()
	}
	if s, _, _, live := l.Lease("key_a"); live && s == session {
		t.Fatal("the session goes on")
	}
	if len(l.Alarms) != 1 || l.Alarms[0].Key != "key_a" || l.Counts().Lost.Load() != 1 {
		t.Fatalf("alarms %+v", l.Alarms)
	}
	if a := l.Alarms[0]; !a.Since.Equal(known) || a.Forgotten != int64(l.Counts().Forgotten.Load()) {
		t.Errorf("lost after %s, %d spent; want after %s", a.Since, a.Forgotten, known)
	}
}

// The same where nothing was spent at all.
func TestTrapSeenIsSent(t *testing.T) {
	l := newLine(t, minute(1000))
	// Two requests at once are a crowd: the second round leases.
	_, w1, _, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	_, w2, _, _ := l.Request(l.ask())
	g := l.lease(ratelimit.AskOf(r))
	l.Receive("key_a", r, &g)
	l.exchange()
	session, granted, total, live := l.Lease("key_a")
	if w1 == nil || w2 == nil || !live || total != 0 || granted == 0 {
		t.Fatalf("session %q: %d of %d spent", session, total, granted)
	}
	l.ledger = memory.New(memory.Options{Now: l.clock.now})
	l.cost = granted + 1 // more than is there: it must ask
	if l.get(1) != 1 {
		t.Fatal("refused")
	}
	if s, _, _, live := l.Lease("key_a"); live && s == session || len(l.Alarms) != 1 {
		t.Fatalf("session %s goes on, alarms %+v", s, l.Alarms)
	}
}

// An older report that comes again, late, changes nothing.
func TestTrapLateDuplicate(t *testing.T) {
	l := newLine(t, minute(1000))
	session, granted, total := l.leased()
	old := *l.ask()
	old.Cost, old.Session, old.NextSession, old.Spent, old.Seen = 1, session, "never", total, granted
	for {
		if _, w, _, _ := l.Request(l.ask()); w != nil {
			break
		}
	}
	l.exchange()
	before := l.left()
	l.lease(old)
	if after := l.left(); after != before {
		t.Fatalf("%d left, after a late duplicate %d", before, after)
	}
}

// A duplicate of the ask that opened a session opens it again at a ledger that
// was emptied, with less than the replica has. What is reported of it then must
// not be taken for all that there is: granted - acked would become negative, and
// the rest of the lease would be spent without being charged.
func TestTrapDuplicateAfterLoss(t *testing.T) {
	l := newLine(t, minute(1000))
	session, granted, _ := l.leased()
	l.ledger = memory.New(memory.Options{Now: l.clock.now})
	opening := *l.ask()
	opening.Cost, opening.Session, opening.NextSession, opening.Want = 1, session, "never", 1
	l.lease(opening)
	l.cost = granted + 1 // more than is there: it must ask
	if l.get(1) != 1 {
		t.Fatal("refused")
	}
	if s, _, _, live := l.Lease("key_a"); live && s == session || len(l.Alarms) != 1 {
		t.Fatalf("session %s goes on, alarms %+v", s, l.Alarms)
	}
}

// The clock must be looked at after the compare-and-swap: a process stopped in
// between would admit on a lease that is long over. What was spent then is burnt.
func TestTrapStoppedBetweenSpendingAndLooking(t *testing.T) {
	l := newLine(t, minute(1000))
	_, _, total := l.leased()
	spentAt := int64(-1)
	l.SetClock(func() time.Time {
		if spentAt < 0 {
			_, _, spentAt = l.Holds("key_a")
		}
		l.advance(tau) // the process stands still before the clock is read
		return l.clock.now()
	})
	d, w, _, _ := l.Request(l.ask())
	if d.Allowed || w == nil {
		t.Fatalf("admitted after the lease's end: %+v", d)
	}
	if spentAt != total+1 {
		t.Fatalf("%d were spent when the clock was read, want %d", spentAt, total+1)
	}
	if l.Counts().Burnt.Load() != 1 {
		t.Fatalf("%d burnt", l.Counts().Burnt.Load())
	}
}

// An answer to a call that was given up is not listened to.
func TestTrapAnswerAfterGivingUp(t *testing.T) {
	l := newLine(t, minute(1000))
	l.leased()
	l.cost = 40
	_, w, _, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	g := l.lease(ratelimit.AskOf(r))
	l.Fail("key_a", r, errAway)
	if _, err, ok := ratelimit.Answer(w); !ok || !errors.Is(err, errAway) {
		t.Fatalf("%v %t", err, ok)
	}
	session, granted, _, _ := l.Lease("key_a")
	if accepted, _ := l.Receive("key_a", r, &g); accepted {
		t.Fatal("listened to")
	}
	if s, n, _, _ := l.Lease("key_a"); s != session || n != granted || l.Counts().Taken.Load() > 40 {
		t.Fatalf("session %s with %d", s, n)
	}
}

// Leases that are left to expire are charged for a window more, as if they had
// been spent: throughput fell to a quarter. What is not used goes back.
func TestTrapUnspentLease(t *testing.T) {
	l := newLine(t, minute(1000))
	l.leased()
	admitted := int64(l.Counts().Taken.Load()) + l.Spent()
	for range 3 {
		l.advance(tau / 3)
		l.Tick("key_a")
		l.giveBack()
	}
	if _, _, _, live := l.Lease("key_a"); live || l.left() != 1000-admitted {
		t.Fatalf("%d of 1000 left after %d were admitted", l.left(), admitted)
	}
}

// A lease in use is prolonged before it ends, so that nothing of it is burnt.
func TestTrapProlonged(t *testing.T) {
	l := newLine(t, minute(100_000))
	l.leased()
	for range 100 {
		l.advance(tau / 10)
		if l.get(20) != 20 {
			t.Fatal("refused")
		}
		if send, _ := l.Tick("key_a"); send {
			l.exchange()
		}
	}
	if n := l.Counts(); n.Burnt.Load() != 0 || n.Released.Load() > 1 {
		t.Fatalf("%d burnt, %d released", n.Burnt.Load(), n.Released.Load())
	}
}

// A rest of a lease that is too small for a request goes back, so that the
// ledger can do something with it.
func TestTrapRestOfALease(t *testing.T) {
	l := newLine(t, minute(100))
	l.leased()
	_, granted, total, _ := l.Lease("key_a")
	l.cost = l.left() + granted - total
	if l.get(1) != 1 {
		t.Fatalf("%d left and %d leased, a request of %d was refused", l.left(), granted-total, l.cost)
	}
}

// A cold key costs one trip, whatever time then brings.
func TestTrapColdKey(t *testing.T) {
	l := newLine(t, minute(100_000))
	_, w, _, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	if a := ratelimit.AskOf(r); a.Session != "" || a.Take != 1 || a.Want != 0 {
		t.Fatalf("%+v", a)
	}
	g := l.lease(ratelimit.AskOf(r))
	l.Receive("key_a", r, &g)
	if d, _, ok := ratelimit.Answer(w); !ok || !d.Allowed {
		t.Fatal("refused")
	}
	for range 100 {
		l.advance(tau / 4)
		if send, _ := l.Tick("key_a"); send || len(l.Returns) > 0 {
			t.Fatal("another trip")
		}
	}
}

// A report that fails is tried again before the lease ends.
func TestTrapReportThatFails(t *testing.T) {
	l := newLine(t, minute(10_000))
	session, _, _ := l.leased()
	l.advance(tau * 2 / 3)
	l.Request(l.ask())
	send, after := l.Tick("key_a")
	r := l.Compose("key_a")
	if !send || r == nil {
		t.Fatal("nothing is reported")
	}
	l.Fail("key_a", r, errAway)
	l.advance(after)
	if send, _ := l.Tick("key_a"); !send {
		t.Fatalf("not tried again after %s", after)
	}
	l.exchange()
	l.advance(tau / 2)
	if s, _, _, live := l.Lease("key_a"); !live || s != session {
		t.Fatal("the lease has ended")
	}
}
