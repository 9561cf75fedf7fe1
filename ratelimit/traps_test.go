package ratelimit_test

import (
	"context"
	"errors"
	"math"
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
		d, err, w, _ := l.Request(l.ask())
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
}

// The same where nothing was spent at all.
func TestTrapSeenIsSent(t *testing.T) {
	l := newLine(t, minute(1000))
	// Two requests at once are a crowd: the second round leases.
	_, _, w1, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	_, _, w2, _ := l.Request(l.ask())
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
		if _, _, w, _ := l.Request(l.ask()); w != nil {
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
	d, _, w, _ := l.Request(l.ask())
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
	_, _, w, _ := l.Request(l.ask())
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

// Changed limits bring nothing back that was spent, and free what is leased.
func TestTrapChangedLimits(t *testing.T) {
	l := newLine(t, minute(1000))
	l.leased()
	admitted := int64(l.Counts().Taken.Load()) + l.Spent()
	l.limits = []ratelimit.Limit{minute(2000)}
	admitted += int64(l.get(1))
	_, granted, total, _ := l.Lease("key_a")
	if left := l.left(); left+granted-total != 2000-admitted {
		t.Fatalf("%d left and %d leased of 2000, %d were admitted", left, granted-total, admitted)
	}
	l.limits = []ratelimit.Limit{minute(40)}
	l.get(40)
	if left := l.left(); left != 0 {
		t.Fatalf("%d left", left)
	}
}

// A newer version of the key with the same limits goes on with the lease; an
// older one is told that the key has changed.
func TestTrapVersions(t *testing.T) {
	l := newLine(t, minute(1000))
	l.vers = 1
	session, _, _ := l.leased()
	l.vers = 2
	l.get(1) // asks, with the new version
	if s, _, _, live := l.Lease("key_a"); !live || s != session {
		t.Fatalf("session %q", s)
	}
	l.vers = 1
	var stopped *ratelimit.StoppedError
	if _, err, _, _ := l.Request(l.ask()); !errors.As(err, &stopped) || stopped.Version != 2 {
		t.Fatal(err)
	}
}

// A key that was stopped spends its lease until that ends, and no longer.
func TestTrapStopped(t *testing.T) {
	l := newLine(t, minute(1000))
	l.vers = 1
	l.leased()
	if err := l.ledger.(ratelimit.Stopper).Stop(context.Background(), "org_a", "key_a", 5); err != nil {
		t.Fatal(err)
	}
	l.advance(tau * 2 / 3)
	l.Request(l.ask())
	if send, _ := l.Tick("key_a"); !send {
		t.Fatal("nothing to report")
	}
	l.exchange()
	var stopped *ratelimit.StoppedError
	if _, err, _, _ := l.Request(l.ask()); !errors.As(err, &stopped) || stopped.Version != 5 {
		t.Fatal(err)
	}
	if _, _, _, live := l.Lease("key_a"); live {
		t.Fatal("the lease goes on")
	}
	l.vers = 5
	if l.get(1) != 1 {
		t.Fatal("refused with the version that the ledger knows")
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

// What is remembered of a large request says too little once a small one has
// spent of a limit that had enough.
func TestTrapDenialOfALargeRequest(t *testing.T) {
	burst := limit("burst", 10, time.Second)
	l := newLine(t, burst, minute(30))
	for range 2 {
		l.get(10)
		l.advance(2 * time.Second)
	}
	l.get(8) // 2 left of both
	l.cost = 3
	l.get(1) // refused by both
	l.cost = 2
	l.get(1)
	l.cost = 3
	d, _, w, _ := l.Request(l.ask())
	if w != nil {
		l.exchange()
		d, _, _ = ratelimit.Answer(w)
	}
	if d.Allowed || d.RetryAfter < 50*time.Second {
		t.Fatalf("%+v", d)
	}
}

// A denial is remembered until it is over, and counted as such; who waits as
// long as it says is admitted.
func TestTrapDenialMemory(t *testing.T) {
	l := newLine(t, limit("second", 5, time.Second))
	l.get(5)
	l.get(1)
	trips := l.Counts().Remembered.Load()
	for range 4 {
		l.advance(200 * time.Millisecond)
		d, err, w, _ := l.Request(l.ask())
		if err != nil || w != nil || d.Allowed {
			t.Fatalf("%+v, %v, waits %t", d, err, w != nil)
		}
	}
	if n := l.Counts().Remembered.Load() - trips; n != 4 {
		t.Fatalf("%d remembered", n)
	}
	l.advance(250 * time.Millisecond)
	if l.get(1) != 1 {
		t.Fatal("refused after the wait")
	}
}

// While others hold units a denial is remembered for a hundredth of the window.
func TestTrapDenialWhileOthersHold(t *testing.T) {
	l := newLine(t, minute(40))
	other := *l.ask()
	other.Session, other.NextSession, other.Want, other.Cost = "other", "next", 2, 1
	l.lease(other)
	l.get(40)
	_, _, w, _ := l.Request(l.ask())
	if w != nil {
		t.Fatal("not remembered")
	}
	l.advance(600 * time.Millisecond)
	if _, _, w, _ = l.Request(l.ask()); w == nil {
		t.Fatal("remembered for longer than a hundredth of the window")
	}
}

// A cold key costs one trip, whatever time then brings.
func TestTrapColdKey(t *testing.T) {
	l := newLine(t, minute(100_000))
	_, _, w, _ := l.Request(l.ask())
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

// A ledger that may have lost what was spent gives nothing, and says until when:
// what is leased is not spent either.
func TestTrapLost(t *testing.T) {
	l := newLine(t, minute(1000))
	_, granted, total := l.leased()
	l.cost = granted - total + 1
	_, _, w, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	g := ratelimit.Grant{Status: ratelimit.Lost, Now: l.clock.now(), Limits: []ratelimit.State{{Name: "minute", Quota: 1000, Violated: true, RetryAfter: 30 * time.Second}}}
	l.Receive("key_a", r, &g)
	var lost *ratelimit.LostError
	if _, err, _ := ratelimit.Answer(w); !errors.As(err, &lost) || lost.RetryAfter != 30*time.Second {
		t.Fatal(err)
	}
	l.advance(10 * time.Second)
	if _, err, w, _ := l.Request(l.ask()); w != nil || !errors.As(err, &lost) || math.Abs((lost.RetryAfter-20*time.Second).Seconds()) > 0.1 {
		t.Fatal(err)
	}
	if l.Counts().Held.Load() != 1 {
		t.Fatal("not counted")
	}
	l.cost = 0
	if _, _, w, _ := l.Request(l.ask()); w == nil {
		t.Fatal("the lease is spent on")
	}
}

// A newer policy is in use elsewhere.
func TestTrapStale(t *testing.T) {
	l := newLine(t, minute(1000))
	_, _, w, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	l.Receive("key_a", r, &ratelimit.Grant{Status: ratelimit.Stale, Now: l.clock.now()})
	if _, err, _ := ratelimit.Answer(w); !errors.Is(err, ratelimit.ErrStale) || l.Counts().Stale.Load() != 1 {
		t.Fatal(err)
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

// Of the ledger's clock, drift and slow answers are no steps; neither is a step
// of this process's wall clock, nor a sleep of the machine.
func TestClockWatch(t *testing.T) {
	const second = time.Second
	type reading struct {
		wait, trip, ledger time.Duration // the ledger's clock gains so much over this
	}
	for name, c := range map[string]struct {
		readings []reading
		step     time.Duration // of the last one
	}{
		"steady":         {[]reading{{0, 0, 0}, {second, 0, second}, {second, 0, second}}, 0},
		"drift":          {[]reading{{0, 0, 0}, {100 * second, 0, 100*second + 90*time.Millisecond}, {100 * second, 0, 100*second + 90*time.Millisecond}}, 0},
		"a slow answer":  {[]reading{{0, 0, 0}, {second, 3 * second, second + 2*second}, {second, 0, second + second}}, 0},
		"forward":        {[]reading{{0, 0, 0}, {second, 0, 31 * second}}, 30 * second},
		"back":           {[]reading{{0, 0, 0}, {second, 0, -29 * second}}, -30 * second},
		"after the step": {[]reading{{0, 0, 0}, {second, 0, 31 * second}, {second, 0, second}}, 0},
	} {
		var w ratelimit.ClockWatch
		now, ledger, step := time.UnixMicro(epoch), time.UnixMicro(epoch).Add(time.Hour), time.Duration(0)
		for _, r := range c.readings {
			now, ledger = now.Add(r.wait), ledger.Add(r.ledger)
			sent := now
			now = now.Add(r.trip)
			step = w.Note(sent, now, ledger)
		}
		if d := step - c.step; d.Abs() > 10*time.Millisecond {
			t.Errorf("%s: a step of %s, want %s", name, step, c.step)
		}
	}
	// A reading of both clocks, of which the wall clock is set: Add moves both,
	// UnixMicro has only the wall.
	var w ratelimit.ClockWatch
	at := time.Now()
	w.Note(at, at, at.Round(0))
	if step := w.Note(at.Add(second), at.Add(second), at.Round(0).Add(61*second)); step < 59*second {
		t.Errorf("a step of the ledger's clock alone: %s", step)
	}
}
