package ledgertest

import (
	"time"

	"keygate/ratelimit"
)

// A lowered quota acts at once, a raised one too, and neither forgets anything.
func quotaChanges(w *world) {
	w.ask(takeAsk(8, key("minute", 10, time.Minute)))
	w.advance(time.Second)
	w.ask(takeAsk(1, key("minute", 10, time.Minute)))
	g := w.ask(takeAsk(1, key("minute", 5, time.Minute)))
	if s := g.Limits[0]; g.Status != ratelimit.Denied || s.Remaining != 0 || s.NextUnit != 59*time.Second+d || s.RetryAfter != s.NextUnit {
		w.Fatalf("lowered: %+v", g)
	}
	// 9 spent of 1: the end of the first charge leaves nothing yet.
	if s := w.peek(key("minute", 1, time.Minute)).Limits[0]; s.NextUnit != time.Minute+d {
		w.Fatalf("lowered further: %+v", s)
	}
	w.wantRemaining(11, key("minute", 20, time.Minute))
}

// A longer window holds what is still charged for the longer time; a shorter one
// lets it go sooner; going to and fro is as if nothing had happened.
func windowChanges(w *world) {
	minute, hour := key("x", 10, time.Minute), key("x", 10, time.Hour)
	w.ask(takeAsk(4, minute))
	w.advance(30 * time.Second)
	if s := w.ask(takeAsk(1, hour)).Limits[0]; s.Remaining != 5 || s.NextUnit != time.Hour-30*time.Second+d {
		w.Fatalf("grown: %+v", s)
	}
	if s := w.peek(minute).Limits[0]; s.Remaining != 5 || s.NextUnit != 30*time.Second+d {
		w.Fatalf("a look with the shorter window: %+v", s)
	}
	w.advance(40 * time.Second) // the first four are past the minute
	if s := w.ask(takeAsk(1, hour)).Limits[0]; s.Remaining != 4 {
		w.Fatalf("still the hour: %+v", s)
	}
	if s := w.ask(takeAsk(1, minute)).Limits[0]; s.Remaining != 7 {
		w.Fatalf("shrunk: %+v", s)
	}
}

// A clock that is set back neither frees nor prolongs anything.
func clockNeverRunsBackwards(w *world) {
	minute := key("minute", 2, time.Minute)
	first := w.ask(takeAsk(1, minute))
	w.advance(-time.Hour)
	g := w.ask(takeAsk(1, minute))
	if !g.Now.Equal(first.Now) || g.Taken != 1 {
		w.Fatalf("%+v", g)
	}
	w.advance(time.Hour + time.Minute + d)
	w.wantRemaining(2, minute)
}

// A limit added while a session is open was not asked when its tokens were
// given: the session ends in favour of one that all limits know, and the old
// one's tokens stay charged.
func holderAddedDuringASession(w *world) {
	minute, org := key("minute", 100, time.Minute), shared("minute2", 100, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	g := w.ask(leaseAsk("s", "n", 0, 5, 5, minute, org))
	if g.Status != ratelimit.Expired || g.Leased != 5 || g.Limits[0].Remaining != 90 || g.Limits[1].Remaining != 95 {
		w.Fatalf("%+v", g)
	}
	w.advance(tau)
	w.wantRemaining(90, minute)
	// The same for a reply that was never received: nothing seen, and yet granted.
	w = w.another()
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	if g = w.ask(leaseAsk("s", "n", 0, 0, 5, minute, org)); g.Status != ratelimit.Expired || g.Leased != 5 {
		w.Fatalf("%+v", g)
	}
}

// A limit of the same holder that is added, or grows, while a session is open
// holds its tokens for the new window.
func windowGrowsDuringASession(w *world) {
	w.ask(leaseAsk("s", "n", 0, 0, 5, key("x", 100, time.Minute)))
	hour := key("x", 100, time.Hour)
	w.ask(takeAsk(1, hour, key("new", 100, time.Hour)))
	w.advance(tau + time.Hour - time.Microsecond)
	w.wantRemaining(95, hour)
	w.wantRemaining(95, key("new", 100, time.Hour))
	w.advance(time.Microsecond)
	w.wantRemaining(100, hour)
	// Also by an ask that spends nothing.
	w = w.another()
	w.ask(leaseAsk("s", "n", 0, 0, 5, key("x", 100, time.Minute)))
	if g := w.ask(takeAsk(1, key("x", 5, time.Hour))); g.Status != ratelimit.Denied {
		w.Fatalf("%+v", g)
	}
	w.advance(time.Hour)
	w.wantRemaining(95, hour)
}

// What a shorter window has let go is not held again by a longer one, whether or
// not anybody asked in between; the same for a session that had ended.
func whatEndedIsNotBroughtBack(w *world) {
	second, hour := key("x", 100, time.Second), key("x", 100, time.Hour)
	w.ask(takeAsk(3, second))
	w.ask(leaseAsk("s", "n", 0, 0, 5, second))
	w.advance(ratelimit.LeaseTime(time.Second) + time.Second)
	if s := w.ask(takeAsk(1, hour)).Limits[0]; s.Remaining != 99 {
		w.Fatalf("%+v", s)
	}
	// And a window that shrinks lets go in the same step.
	w.advance(2 * time.Second)
	if s := w.ask(takeAsk(1, second)).Limits[0]; s.Remaining != 99 {
		w.Fatalf("%+v", s)
	}
}

// A limit that is new, or was not asked about for a while, is charged for
// sessions that are open, and not for one that has ended: nobody asked it then.
func newLimitStartsEmpty(w *world) {
	minute, hour := key("minute", 100, time.Minute), key("hour", 100, time.Hour)
	w.ask(takeAsk(2, minute, hour))
	w.advance(2 * time.Hour)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.wantRemaining(95, hour)
	w.advance(tau)
	if g := w.ask(takeAsk(1, minute, hour)); g.Limits[0].Remaining != 94 || g.Limits[1].Remaining != 99 {
		w.Fatalf("%+v", g)
	}
	// Asked about while the session is open, it is charged when that ends.
	w = w.another()
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.ask(takeAsk(1, minute, hour))
	w.advance(tau)
	if g := w.ask(takeAsk(1, hour)); g.Limits[0].Remaining != 93 {
		w.Fatalf("%+v", g)
	}
}
