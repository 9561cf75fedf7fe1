package ledgertest

import (
	"time"

	"keygate/ratelimit"
)

const sec = time.Second

// tau is the lease time of a limit per minute.
const tau = 2 * sec

// A lease that is never heard of again is charged until a window after its
// expiry, to the microsecond: its tokens may have been spent until then, so
// that charging from the grant would free them τ too early.
func unreportedLeaseIsChargedUntilExpiryAndWindow(w *world) {
	minute := key("minute", 100, time.Minute)
	g := w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	if g.Status != ratelimit.Granted || g.Leased != 5 || g.TTL != tau || g.Limits[0].Remaining != 95 {
		w.Fatalf("%+v", g)
	}
	if g.Limits[0].NextUnit != tau+time.Minute {
		w.Fatalf("next unit in %s", g.Limits[0].NextUnit)
	}
	for _, step := range []struct {
		wait time.Duration
		left int64
	}{{tau, 95}, {time.Minute - time.Microsecond, 95}, {time.Microsecond, 100}} {
		w.advance(step.wait)
		w.wantRemaining(step.left, minute)
	}
}

// Reported tokens are charged from the report, the rest from the expiry.
func reportIsChargedFromItsTime(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.advance(1500 * time.Millisecond)
	g := w.ask(leaseAsk("s", "n", 3, 5, 0, minute))
	if g.Status != ratelimit.Granted || g.Leased != 5 || g.TTL != tau {
		w.Fatalf("a report with tokens left prolongs their life: %+v", g)
	}
	if g.Limits[0].Remaining != 95 || g.Limits[0].NextUnit != time.Minute {
		w.Fatalf("%+v", g.Limits[0])
	}
	w.advance(time.Minute) // three are free; two expired 58 s ago
	w.wantRemaining(98, minute)
	w.advance(tau - time.Microsecond)
	w.wantRemaining(98, minute)
	w.advance(time.Microsecond)
	w.wantRemaining(100, minute)
}

// A session with nothing left to spend is not prolonged, and TTL says so.
func spentSessionIsNotProlonged(w *world) {
	minute := key("minute", 20, time.Minute)
	w.ask(takeAsk(19, minute))
	w.ask(leaseAsk("s", "n", 0, 0, 1, minute))
	w.advance(sec)
	g := w.ask(leaseAsk("s", "n", 1, 1, 1, minute))
	if g.Status != ratelimit.Denied || g.TTL != 0 || g.Leased != 1 || !g.Limits[0].Violated {
		w.Fatalf("%+v", g)
	}
	w.advance(sec)
	if g = w.ask(leaseAsk("s", "n", 1, 1, 0, minute)); g.Status != ratelimit.Expired {
		w.Fatalf("%+v", g)
	}
}

// A released session's tokens are there for others at once. Left to expire they
// would be missing for a window.
func releaseReturnsTheRest(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.advance(sec)
	release := leaseAsk("s", "", 2, 5, 0, minute)
	release.Release = true
	g := w.ask(release)
	if g.Status != ratelimit.Granted || g.TTL != 0 || g.Limits[0].Remaining != 98 {
		w.Fatalf("%+v", g)
	}
	// Twice is once.
	if g = w.ask(release); g.Status != ratelimit.Expired || g.Leased != 0 || g.Limits[0].Remaining != 98 {
		w.Fatalf("repeated: %+v", g)
	}
	// What was on its way when the session ended does not bring it back.
	g = w.ask(leaseAsk("s", "n", 1, 5, 5, minute))
	if g.Status != ratelimit.Expired || w.alive("s", 5, minute) {
		w.Fatalf("overtaken: %+v", g)
	}
}

// An expired session is never revived: the replica may hold tokens of it that
// the ledger has charged already. Its successor opens in the same call.
func expiredOpensNextSession(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(leaseAsk("s", "n1", 0, 0, 5, minute))
	w.advance(tau)
	g := w.ask(leaseAsk("s", "n1", 4, 5, 3, minute))
	if g.Status != ratelimit.Expired || g.Leased != 3 || g.TTL != tau || g.Limits[0].Remaining != 92 {
		w.Fatalf("%+v", g)
	}
	if w.alive("s", 5, minute) || !w.alive("n1", 3, minute) {
		w.Fatal("the wrong session is open")
	}
	// The call repeated by the network adds to the successor, cumulatively.
	if g = w.ask(leaseAsk("s", "n1", 4, 5, 3, minute)); g.Status != ratelimit.Expired || g.Leased != 6 {
		w.Fatalf("repeated: %+v", g)
	}
	// Without a name for the successor there is none.
	if g = w.ask(leaseAsk("s", "", 4, 5, 3, minute)); g.Status != ratelimit.Expired || g.Leased != 0 || g.TTL != 0 {
		w.Fatalf("no successor: %+v", g)
	}
}

// A replica that has spent nothing yet must not be granted its session anew by a
// ledger that lost it: it would spend both grants. Seen tells.
func unspentSessionUnknownToTheLedger(w *world) {
	minute := key("minute", 100, time.Minute)
	g := w.ask(leaseAsk("s", "n", 0, 5, 3, minute)) // as after a loss
	if g.Status != ratelimit.Expired || g.Leased != 3 || w.alive("s", 5, minute) {
		w.Fatalf("%+v", g)
	}
}

// A late copy of the very first ask opens an expired session again under its old
// name, with less than the replica holds. Its tokens are not the replica's:
// prolonging its life would let the replica spend what is charged no longer.
func sessionReopenedByALateCopy(w *world) {
	minute := key("minute", 100, time.Minute)
	first := leaseAsk("s", "n", 0, 0, 1, minute)
	w.ask(first)
	if g := w.ask(leaseAsk("s", "n", 0, 1, 4, minute)); g.Leased != 5 {
		w.Fatalf("%+v", g)
	}
	w.advance(tau)
	w.ask(first) // the copy
	g := w.ask(leaseAsk("s", "n", 0, 5, 0, minute))
	if g.Status != ratelimit.Expired || g.TTL != 0 || g.Leased != 0 {
		w.Fatalf("%+v", g)
	}
}

// Reports are cumulative: repeated or overtaken ones have nothing new.
func lateDuplicates(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	for _, spent := range []int64{3, 3, 1, 0, 3, 2} {
		w.advance(100 * time.Millisecond)
		if g := w.ask(leaseAsk("s", "n", spent, 5, 0, minute)); g.Status != ratelimit.Granted || g.Leased != 5 || g.Limits[0].Remaining != 95 {
			w.Fatalf("spent %d: %+v", spent, g)
		}
	}
	release := leaseAsk("s", "", 3, 5, 0, minute)
	release.Release = true
	if g := w.ask(release); g.Limits[0].Remaining != 97 {
		w.Fatalf("%+v", g)
	}
}

// More spent than granted is charged, and never leaves a negative rest that
// would count as budget for others.
func reportAboveTheGrant(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 3, minute))
	g := w.ask(leaseAsk("s", "n", 8, 3, 0, minute))
	if g.TTL != 0 || g.Leased != 8 || g.Limits[0].Remaining != 92 {
		w.Fatalf("%+v", g)
	}
}

// What one session may get: a twentieth of the quota, and an equal share of what
// is left; one request's cost in any case; nothing where that does not fit.
func leaseSizes(w *world) {
	minute := key("minute", 100, time.Minute)
	got := func(id string, want int64) int64 { return w.ask(leaseAsk(id, id+"'", 0, 0, want, minute)).Leased }
	if n := got("a", 50); n != 5 {
		w.Errorf("a twentieth of 100: %d", n)
	}
	if n := got("b", 2); n != 2 {
		w.Errorf("no more than wanted: %d", n)
	}
	w.ask(takeAsk(85, minute)) // 8 left
	if n := got("c", 50); n != 2 {
		w.Errorf("a third of 8: %d", n)
	}
	a := leaseAsk("d", "d'", 0, 0, 50, minute)
	a.Cost = 6
	if g := w.ask(a); g.Leased != 6 {
		w.Errorf("one request of cost 6: %+v", g)
	}
	if g := w.ask(leaseAsk("e", "e'", 0, 0, 50, minute)); g.Status != ratelimit.Denied || g.Leased != 0 || w.alive("e", 1, minute) {
		w.Errorf("nothing left: %+v", g)
	} else if !g.OthersHold || g.Limits[0].RetryAfter != time.Minute+d {
		w.Errorf("others hold tokens, the takes end first: %+v", g)
	}
}

// What is left is shared among those that hold something: a session whose units are
// all reported as spent does not count. A hundredth of the quota is not shared any
// further: far above the limit, replicas would fetch what comes free in crumbs.
func leaseSharesOfWhatIsLeft(w *world) {
	minute := key("minute", 1000, time.Minute)
	w.ask(leaseAsk("a", "a'", 0, 0, 50, minute))
	w.ask(leaseAsk("b", "b'", 0, 0, 50, minute))
	w.ask(takeAsk(850, minute)) // 50 left
	if g := w.ask(leaseAsk("c", "c'", 0, 0, 50, minute)); g.Leased != 16 {
		w.Errorf("a third of 50: %+v", g)
	}
	w.ask(leaseAsk("b", "b'", 50, 50, 0, minute))
	if g := w.ask(leaseAsk("c", "c'", 16, 16, 50, minute)); g.Leased != 16+17 {
		w.Errorf("half of the 34 left: %+v", g)
	}
	w.ask(leaseAsk("b", "b'", 50, 50, 1, minute))
	if g := w.ask(leaseAsk("d", "d'", 0, 0, 50, minute)); g.Leased != 10 {
		w.Errorf("a hundredth of 1000, of 16 left among four: %+v", g)
	}
	if g := w.ask(leaseAsk("e", "e'", 0, 0, 50, minute)); g.Leased != 6 {
		w.Errorf("all of the 6 left: %+v", g)
	}
}

// The shortest lease time and the least of all limits hold for every holder.
func leaseOverSeveralLimits(w *world) {
	limits := []ratelimit.Limit{key("second", 100, sec), shared("minute", 60, time.Minute)}
	g := w.ask(leaseAsk("s", "n", 0, 0, 50, limits...))
	if g.Leased != 3 || g.TTL != 200*time.Millisecond {
		w.Fatalf("%+v", g)
	}
	w.advance(200 * time.Millisecond)
	if g = w.peek(limits...); g.Limits[0].Remaining != 97 || g.Limits[1].Remaining != 57 {
		w.Fatalf("%+v", g)
	}
	w.advance(sec)
	if g = w.peek(limits...); g.Limits[0].Remaining != 100 || g.Limits[1].Remaining != 57 {
		w.Fatalf("%+v", g)
	}
}

// The walk of RetryAfter passes charges and sessions in the order of their end.
func retryAfterWalksSessions(w *world) {
	minute := key("minute", 20, time.Minute)
	w.ask(leaseAsk("a", "a'", 0, 0, 1, minute)) // ends at 62 s
	w.advance(sec)
	w.ask(takeAsk(17, minute))                  // ends at 61.05 s
	w.ask(leaseAsk("b", "b'", 0, 0, 1, minute)) // ends at 63 s
	w.advance(sec / 2)
	w.ask(takeAsk(1, minute)) // ends at 61.55 s
	for cost, want := range map[int64]time.Duration{
		17: 59500*time.Millisecond + d, 18: 60*sec + d, 19: 60500 * time.Millisecond, 20: 61500 * time.Millisecond,
	} {
		a := takeAsk(cost, minute)
		a.Cost = cost
		if got := w.ask(a).Limits[0].RetryAfter; got != want {
			w.Errorf("cost %d: %s, want %s", cost, got, want)
		}
	}
}

// Take and Want may come in one ask: the waiting requests first.
func takeAndWantTogether(w *world) {
	a := leaseAsk("s", "n", 0, 0, 5, key("minute", 100, time.Minute))
	a.Take = 3
	g := w.ask(a)
	if g.Taken != 3 || g.Leased != 5 || g.Limits[0].Remaining != 92 {
		w.Fatalf("%+v", g)
	}
	a = leaseAsk("gone", "n2", 0, 7, 5, key("minute", 100, time.Minute))
	a.Take = 3
	if g = w.ask(a); g.Status != ratelimit.Expired || g.Taken != 3 || g.Leased != 5 {
		w.Fatalf("beside an expired session: %+v", g)
	}
}
