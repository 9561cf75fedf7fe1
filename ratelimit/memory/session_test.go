package memory

import (
	"testing"
	"time"

	"keygate/ratelimit"
)

const sec = time.Second

// tau is the lease time of a limit per minute.
const tau = 2 * sec

// A lease that is never heard of again is charged until a window after its
// expiry, to the microsecond: its tokens may have been spent until then, so
// that charging from the grant would free them τ too early.
func TestUnreportedLeaseIsChargedUntilExpiryAndWindow(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 100, time.Minute)
	g := ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute))
	if g.Status != ratelimit.Granted || g.Leased != 5 || g.TTL != tau || g.Limits[0].Remaining != 95 {
		t.Fatalf("%+v", g)
	}
	if g.Limits[0].NextUnit != tau+time.Minute {
		t.Fatalf("next unit in %s", g.Limits[0].NextUnit)
	}
	for _, step := range []struct {
		wait time.Duration
		left int64
	}{{tau, 95}, {time.Minute - time.Microsecond, 95}, {time.Microsecond, 100}} {
		c.advance(step.wait)
		wantRemaining(t, l, step.left, minute)
	}
}

// Reported tokens are charged from the report, the rest from the expiry.
func TestReportIsChargedFromItsTime(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 100, time.Minute)
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute))
	c.advance(1500 * time.Millisecond)
	g := ask(t, l, leaseAsk("s", "n", 3, 5, 0, minute))
	if g.Status != ratelimit.Granted || g.Leased != 5 || g.TTL != tau {
		t.Fatalf("a report with tokens left prolongs their life: %+v", g)
	}
	if g.Limits[0].Remaining != 95 || g.Limits[0].NextUnit != time.Minute {
		t.Fatalf("%+v", g.Limits[0])
	}
	c.advance(time.Minute) // three are free; two expired 58 s ago
	wantRemaining(t, l, 98, minute)
	c.advance(tau - time.Microsecond)
	wantRemaining(t, l, 98, minute)
	c.advance(time.Microsecond)
	wantRemaining(t, l, 100, minute)
}

// A session with nothing left to spend is not prolonged, and TTL says so.
func TestSpentSessionIsNotProlonged(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 20, time.Minute)
	ask(t, l, takeAsk(19, minute))
	ask(t, l, leaseAsk("s", "n", 0, 0, 1, minute))
	c.advance(sec)
	g := ask(t, l, leaseAsk("s", "n", 1, 1, 1, minute))
	if g.Status != ratelimit.Denied || g.TTL != 0 || g.Leased != 1 || !g.Limits[0].Violated {
		t.Fatalf("%+v", g)
	}
	c.advance(sec)
	if g = ask(t, l, leaseAsk("s", "n", 1, 1, 0, minute)); g.Status != ratelimit.Expired {
		t.Fatalf("%+v", g)
	}
}

// A released session's tokens are there for others at once. Left to expire they
// would be missing for a window.
func TestReleaseReturnsTheRest(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 100, time.Minute)
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute))
	c.advance(sec)
	release := leaseAsk("s", "", 2, 5, 0, minute)
	release.Release = true
	g := ask(t, l, release)
	if g.Status != ratelimit.Granted || g.TTL != 0 || g.Limits[0].Remaining != 98 {
		t.Fatalf("%+v", g)
	}
	// Twice is once.
	if g = ask(t, l, release); g.Status != ratelimit.Expired || g.Leased != 0 || g.Limits[0].Remaining != 98 {
		t.Fatalf("repeated: %+v", g)
	}
	// What was on its way when the session ended does not bring it back.
	g = ask(t, l, leaseAsk("s", "n", 1, 5, 5, minute))
	if g.Status != ratelimit.Expired || sessionOf(l, "org_a", "key_a", "s") != nil {
		t.Fatalf("overtaken: %+v", g)
	}
}

// An expired session is never revived: the replica may hold tokens of it that
// the ledger has charged already. Its successor opens in the same call.
func TestExpiredOpensNextSession(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 100, time.Minute)
	ask(t, l, leaseAsk("s", "n1", 0, 0, 5, minute))
	c.advance(tau)
	g := ask(t, l, leaseAsk("s", "n1", 4, 5, 3, minute))
	if g.Status != ratelimit.Expired || g.Leased != 3 || g.TTL != tau || g.Limits[0].Remaining != 92 {
		t.Fatalf("%+v", g)
	}
	if sessionOf(l, "org_a", "key_a", "s") != nil || sessionOf(l, "org_a", "key_a", "n1") == nil {
		t.Fatal("the wrong session is open")
	}
	// The call repeated by the network adds to the successor, cumulatively.
	if g = ask(t, l, leaseAsk("s", "n1", 4, 5, 3, minute)); g.Status != ratelimit.Expired || g.Leased != 6 {
		t.Fatalf("repeated: %+v", g)
	}
	// Without a name for the successor there is none.
	if g = ask(t, l, leaseAsk("s", "", 4, 5, 3, minute)); g.Status != ratelimit.Expired || g.Leased != 0 || g.TTL != 0 {
		t.Fatalf("no successor: %+v", g)
	}
}

// A replica that has spent nothing yet must not be granted its session anew by a
// ledger that lost it: it would spend both grants. Seen tells.
func TestUnspentSessionUnknownToTheLedger(t *testing.T) {
	l, _ := newLedger() // as after a loss
	g := ask(t, l, leaseAsk("s", "n", 0, 5, 3, key("minute", 100, time.Minute)))
	if g.Status != ratelimit.Expired || g.Leased != 3 || sessionOf(l, "org_a", "key_a", "s") != nil {
		t.Fatalf("%+v", g)
	}
}

// A late copy of the very first ask opens an expired session again under its old
// name, with less than the replica holds. Its tokens are not the replica's:
// prolonging its life would let the replica spend what is charged no longer.
func TestSessionReopenedByALateCopy(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 100, time.Minute)
	first := leaseAsk("s", "n", 0, 0, 1, minute)
	ask(t, l, first)
	if g := ask(t, l, leaseAsk("s", "n", 0, 1, 4, minute)); g.Leased != 5 {
		t.Fatalf("%+v", g)
	}
	c.advance(tau)
	ask(t, l, first) // the copy
	g := ask(t, l, leaseAsk("s", "n", 0, 5, 0, minute))
	if g.Status != ratelimit.Expired || g.TTL != 0 || g.Leased != 0 {
		t.Fatalf("%+v", g)
	}
}

// Reports are cumulative: repeated or overtaken ones have nothing new.
func TestLateDuplicates(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 100, time.Minute)
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute))
	for _, spent := range []int64{3, 3, 1, 0, 3, 2} {
		c.advance(100 * time.Millisecond)
		if g := ask(t, l, leaseAsk("s", "n", spent, 5, 0, minute)); g.Status != ratelimit.Granted || g.Limits[0].Remaining != 95 {
			t.Fatalf("spent %d: %+v", spent, g)
		}
		if s := sessionOf(l, "org_a", "key_a", "s"); s.acked != 3 || s.granted != 5 {
			t.Fatalf("spent %d: %+v", spent, s)
		}
	}
}

// More spent than granted is charged, and never leaves a negative rest that
// would count as budget for others.
func TestReportAboveTheGrant(t *testing.T) {
	l, _ := newLedger()
	minute := key("minute", 100, time.Minute)
	ask(t, l, leaseAsk("s", "n", 0, 0, 3, minute))
	g := ask(t, l, leaseAsk("s", "n", 8, 3, 0, minute))
	if s := sessionOf(l, "org_a", "key_a", "s"); s.left() != 0 || g.Leased != 8 || g.Limits[0].Remaining != 92 {
		t.Fatalf("%+v, session %+v", g, s)
	}
}

// What one session may get: a twentieth of the quota, and an equal share of what
// is left; one request's cost in any case; nothing where that does not fit.
func TestLeaseSizes(t *testing.T) {
	l, _ := newLedger()
	minute := key("minute", 100, time.Minute)
	got := func(id string, want int64) int64 { return ask(t, l, leaseAsk(id, id+"'", 0, 0, want, minute)).Leased }
	if n := got("a", 50); n != 5 {
		t.Errorf("a twentieth of 100: %d", n)
	}
	if n := got("b", 2); n != 2 {
		t.Errorf("no more than wanted: %d", n)
	}
	ask(t, l, takeAsk(85, minute)) // 8 left
	if n := got("c", 50); n != 2 {
		t.Errorf("a third of 8: %d", n)
	}
	a := leaseAsk("d", "d'", 0, 0, 50, minute)
	a.Cost = 6
	if g := ask(t, l, a); g.Leased != 6 {
		t.Errorf("one request of cost 6: %+v", g)
	}
	if g := ask(t, l, leaseAsk("e", "e'", 0, 0, 50, minute)); g.Status != ratelimit.Denied || g.Leased != 0 || sessionOf(l, "org_a", "key_a", "e") != nil {
		t.Errorf("nothing left: %+v", g)
	} else if !g.OthersHold || g.Limits[0].RetryAfter != time.Minute+d {
		t.Errorf("others hold tokens, the takes end first: %+v", g)
	}
}

// The shortest lease time and the least of all limits hold for every holder.
func TestLeaseOverSeveralLimits(t *testing.T) {
	l, c := newLedger()
	limits := []ratelimit.Limit{key("second", 100, sec), shared("minute", 60, time.Minute)}
	g := ask(t, l, leaseAsk("s", "n", 0, 0, 50, limits...))
	if g.Leased != 3 || g.TTL != 200*time.Millisecond {
		t.Fatalf("%+v", g)
	}
	c.advance(200 * time.Millisecond)
	if g = peek(t, l, limits...); g.Limits[0].Remaining != 97 || g.Limits[1].Remaining != 57 {
		t.Fatalf("%+v", g)
	}
	c.advance(sec)
	if g = peek(t, l, limits...); g.Limits[0].Remaining != 100 || g.Limits[1].Remaining != 57 {
		t.Fatalf("%+v", g)
	}
}

// The walk of RetryAfter passes charges and sessions in the order of their end.
func TestRetryAfterWalksSessions(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 20, time.Minute)
	ask(t, l, leaseAsk("a", "a'", 0, 0, 1, minute)) // ends at 62 s
	c.advance(sec)
	ask(t, l, takeAsk(17, minute))                  // ends at 61.05 s
	ask(t, l, leaseAsk("b", "b'", 0, 0, 1, minute)) // ends at 63 s
	c.advance(sec / 2)
	ask(t, l, takeAsk(1, minute)) // ends at 61.55 s
	for cost, want := range map[int64]time.Duration{
		17: 59500*time.Millisecond + d, 18: 60*sec + d, 19: 60500 * time.Millisecond, 20: 61500 * time.Millisecond,
	} {
		a := takeAsk(cost, minute)
		a.Cost = cost
		if got := ask(t, l, a).Limits[0].RetryAfter; got != want {
			t.Errorf("cost %d: %s, want %s", cost, got, want)
		}
	}
}

// A limit added while a session is open was not asked when its tokens were
// given: the session ends in favour of one that all limits know, and the old
// one's tokens stay charged.
func TestHolderAddedDuringASession(t *testing.T) {
	l, c := newLedger()
	minute, org := key("minute", 100, time.Minute), shared("minute2", 100, time.Minute)
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute))
	g := ask(t, l, leaseAsk("s", "n", 0, 5, 5, minute, org))
	if g.Status != ratelimit.Expired || g.Leased != 5 || g.Limits[0].Remaining != 90 || g.Limits[1].Remaining != 95 {
		t.Fatalf("%+v", g)
	}
	c.advance(tau)
	wantRemaining(t, l, 90, minute)
	// The same for a reply that was never received: nothing seen, and yet granted.
	l, _ = newLedger()
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute))
	if g = ask(t, l, leaseAsk("s", "n", 0, 0, 5, minute, org)); g.Status != ratelimit.Expired || g.Leased != 5 {
		t.Fatalf("%+v", g)
	}
}

// A limit of the same holder that is added, or grows, while a session is open
// holds its tokens for the new window.
func TestWindowGrowsDuringASession(t *testing.T) {
	l, c := newLedger()
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, key("x", 100, time.Minute)))
	hour := key("x", 100, time.Hour)
	ask(t, l, takeAsk(1, hour, key("new", 100, time.Hour)))
	c.advance(tau + time.Hour - time.Microsecond)
	wantRemaining(t, l, 95, hour)
	wantRemaining(t, l, 95, key("new", 100, time.Hour))
	c.advance(time.Microsecond)
	wantRemaining(t, l, 100, hour)
	// The sweeper knows it too, also from an ask that spends nothing.
	l, c = newLedger()
	ask(t, l, leaseAsk("s", "n", 0, 0, 5, key("x", 100, time.Minute)))
	if g := ask(t, l, takeAsk(1, key("x", 5, time.Hour))); g.Status != ratelimit.Denied {
		t.Fatalf("%+v", g)
	}
	c.advance(time.Hour)
	l.shard(&ratelimit.Ask{Organization: "org_a"}).sweep(l.clock(), 3)
	wantRemaining(t, l, 95, hour)
}

// Take and Want may come in one ask: the waiting requests first.
func TestTakeAndWantTogether(t *testing.T) {
	l, _ := newLedger()
	a := leaseAsk("s", "n", 0, 0, 5, key("minute", 100, time.Minute))
	a.Take = 3
	g := ask(t, l, a)
	if g.Taken != 3 || g.Leased != 5 || g.Limits[0].Remaining != 92 {
		t.Fatalf("%+v", g)
	}
	a = leaseAsk("gone", "n2", 0, 7, 5, key("minute", 100, time.Minute))
	a.Take = 3
	if g = ask(t, l, a); g.Status != ratelimit.Expired || g.Taken != 3 || g.Leased != 5 {
		t.Fatalf("beside an expired session: %+v", g)
	}
}
