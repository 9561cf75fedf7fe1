package ledgertest

import (
	"time"

	"keygate/ratelimit"
)

// rules is an ask by the policy with a number.
func rules(n int64, a ratelimit.Ask) ratelimit.Ask {
	a.Rules = n
	return a
}

// Who goes by an older policy than the budget was last used by is told so, and
// nothing happens: its limits are not those that hold.
func stale(w *world) {
	minute, org := key("minute", 10, time.Minute), shared("org", 10, time.Minute)
	w.ask(rules(3, takeAsk(1, minute)))
	w.ask(rules(4, takeAsk(1, org)))
	for _, a := range []ratelimit.Ask{rules(3, takeAsk(1, minute, org)), rules(2, leaseAsk("s", "n", 0, 0, 1, minute))} {
		g := w.ask(a)
		if g.Status != ratelimit.Stale || g.Taken != 0 || g.Leased != 0 || g.TTL != 0 || g.Admit != 0 || len(g.Limits) != 0 {
			w.Fatalf("%+v", g)
		}
		if want := map[int64]int64{3: 4, 2: 3}[a.Rules]; g.Version != want {
			w.Fatalf("version %d, want %d", g.Version, want)
		}
	}
	looked, err := w.h.Ledger.Peek(w.Context(), rules(2, takeAsk(0, minute)))
	if err != nil || looked.Status != ratelimit.Stale || looked.Version != 3 {
		w.Fatalf("%+v, %v", looked, err)
	}
	if g := w.ask(rules(4, takeAsk(1, minute, org))); g.Taken != 1 || g.Limits[0].Remaining != 8 || g.Limits[1].Remaining != 8 {
		w.Fatalf("%+v", g)
	}
	// Where nothing is charged any more, nobody is behind.
	w.advance(time.Minute + d)
	if g := w.ask(rules(1, takeAsk(1, minute))); g.Taken != 1 {
		w.Fatalf("%+v", g)
	}
}

// An ask that accepts it is decided by the limits that the newer policy brought,
// and changes none of them; a limit that the newer one does not have is its own.
func staleAndStored(w *world) {
	old, lowered := key("x", 10, time.Minute), key("x", 4, time.Hour)
	w.ask(rules(1, takeAsk(2, old)))
	w.ask(rules(2, takeAsk(1, lowered)))
	a := rules(1, takeAsk(3, old, key("own", 7, time.Minute)))
	a.Stored = true
	g := w.ask(a)
	if s := g.Limits[0]; g.Taken != 1 || s.Quota != 4 || s.Remaining != 0 || s.RetryAfter != time.Hour+d || g.Limits[1].Quota != 7 {
		w.Fatalf("%+v", g)
	}
	if g = w.ask(rules(2, takeAsk(1, lowered))); g.Status != ratelimit.Denied || g.Limits[0].Quota != 4 {
		w.Fatalf("%+v", g)
	}
}

// When what was spent may be lost, a window gives nothing until what may have
// been admitted, or may be with leases that are still out, is past; and says when.
func lostHoldsWindows(w *world) {
	minute, second := key("minute", 100, time.Minute), key("second", 100, sec)
	w.h.Lose()
	for _, a := range []ratelimit.Ask{takeAsk(1, second, minute), leaseAsk("s", "n", 0, 0, 5, second, minute)} {
		g := w.ask(a)
		if g.Status != ratelimit.Lost || g.Taken != 0 || g.Leased != 0 || g.TTL != 0 {
			w.Fatalf("%+v", g)
		}
		for i, want := range []time.Duration{sec + ratelimit.LeaseTime(sec), time.Minute + tau} {
			if s := g.Limits[i]; !s.Violated || s.RetryAfter != want {
				w.Fatalf("%+v, want %s", s, want)
			}
		}
	}
	if g := w.peek(minute); g.Status != ratelimit.Lost || g.Limits[0].RetryAfter != time.Minute+tau {
		w.Fatalf("%+v", g)
	}
	w.advance(sec + ratelimit.LeaseTime(sec))
	if g := w.ask(takeAsk(1, second)); g.Taken != 1 {
		w.Fatalf("%+v", g)
	}
	if g := w.ask(takeAsk(1, second, minute)); g.Status != ratelimit.Lost || g.Limits[0].Violated {
		w.Fatalf("%+v", g)
	}
	w.advance(time.Minute + tau - sec - ratelimit.LeaseTime(sec) - time.Microsecond)
	if g := w.ask(takeAsk(1, minute)); g.Status != ratelimit.Lost || g.Limits[0].RetryAfter != time.Microsecond {
		w.Fatalf("%+v", g)
	}
	w.advance(time.Microsecond)
	if g := w.ask(takeAsk(100, minute)); g.Taken != 100 {
		w.Fatalf("%+v", g)
	}
}

// Reports count meanwhile, a session that survived lives on, and what is returned
// is returned; only nothing new is given.
func lostTakesReportsIn(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.h.Lose()
	w.advance(sec)
	if g := w.ask(leaseAsk("s", "n", 2, 5, 0, minute)); g.Status != ratelimit.Granted || g.Leased != 5 || g.TTL != tau {
		w.Fatalf("%+v", g)
	}
	if g := w.ask(leaseAsk("s", "n", 2, 5, 3, minute)); g.Status != ratelimit.Lost || g.Leased != 5 {
		w.Fatalf("%+v", g)
	}
	// One that did not survive is told that it is gone, before all else.
	if g := w.ask(leaseAsk("gone", "n2", 2, 5, 3, minute)); g.Status != ratelimit.Expired || g.Leased != 0 {
		w.Fatalf("%+v", g)
	}
	release := leaseAsk("s", "", 3, 5, 0, minute)
	release.Release = true
	if g := w.ask(release); g.Status != ratelimit.Granted || g.Limits[0].Remaining != 97 {
		w.Fatalf("%+v", g)
	}
}

// Quotas go on with what is known, and so does a plan that prefers to admit.
func lostSparesQuotasAndOpenPlans(w *world) {
	minute, month := key("minute", 100, time.Minute), w.quota("month", 100, period/2)
	w.h.Lose()
	if g := w.ask(takeAsk(1, month)); g.Taken != 1 {
		w.Fatalf("%+v", g)
	}
	g := w.ask(takeAsk(1, minute, month))
	if g.Status != ratelimit.Lost || g.Limits[1].Violated {
		w.Fatalf("%+v", g)
	}
	a := takeAsk(1, minute, month)
	a.Open = true
	if g = w.ask(a); g.Taken != 1 {
		w.Fatalf("%+v", g)
	}
}
