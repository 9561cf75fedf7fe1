package ledgertest

import (
	"fmt"
	"time"

	"keygate/ratelimit"
)

// period is how long the calendar's periods are here; a ledger does not care.
const period = time.Hour

// now is the ledger's time.
func (w *world) now() time.Time {
	w.Helper()
	return w.peek(key("clock", 1, sec)).Now
}

// quota is a calendar quota of which left remains of the present period.
func (w *world) quota(name string, quota int64, left time.Duration) ratelimit.Limit {
	w.Helper()
	end := w.now().Add(left)
	return ratelimit.Limit{Name: name, Holder: "key_a", Quota: quota, Start: end.Add(-period), End: end, NextEnd: end.Add(period)}
}

// A quota is whole again with the next period and not a moment before, however
// late in the old one it was spent.
func quotaIsChargedToThePeriodsEnd(w *world) {
	month := w.quota("month", 10, 10*time.Minute)
	g := w.ask(takeAsk(4, month))
	if g.Taken != 4 || g.Limits[0].Remaining != 6 || g.Limits[0].NextUnit != 10*time.Minute {
		w.Fatalf("%+v", g)
	}
	w.advance(9 * time.Minute)
	w.ask(takeAsk(6, month))
	g = w.ask(takeAsk(1, month))
	if s := g.Limits[0]; g.Status != ratelimit.Denied || s.Remaining != 0 || s.RetryAfter != time.Minute || s.NextUnit != time.Minute {
		w.Fatalf("%+v", g)
	}
	w.advance(time.Minute - time.Microsecond)
	if g = w.ask(takeAsk(1, month)); g.Status != ratelimit.Denied {
		w.Fatalf("early: %+v", g)
	}
	w.advance(time.Microsecond)
	if g = w.ask(takeAsk(10, month)); g.Taken != 10 || g.Limits[0].NextUnit != period {
		w.Fatalf("the next period: %+v", g)
	}
	a := takeAsk(11, month)
	a.Cost = 11
	if g = w.ask(a); g.Limits[0].RetryAfter != period {
		w.Fatalf("a cost above the quota: %+v", g)
	}
}

// No lease reaches into the next period: what would be spent there of the old
// one's quota would be too much. Nor is it charged there.
func leaseEndsWithThePeriod(w *world) {
	month := w.quota("month", 1000, 500*time.Millisecond)
	g := w.ask(leaseAsk("s", "n", 0, 0, 5, month))
	if g.Leased != 5 || g.TTL != 500*time.Millisecond {
		w.Fatalf("%+v", g)
	}
	w.advance(100 * time.Millisecond)
	if g = w.ask(leaseAsk("s", "n", 2, 5, 5, month)); g.Leased != 10 || g.TTL != 400*time.Millisecond || g.Limits[0].NextUnit != g.TTL {
		w.Fatalf("prolonged: %+v", g)
	}
	w.advance(400 * time.Millisecond)
	w.wantRemaining(1000, month)
	if g = w.ask(leaseAsk("s", "n", 7, 10, 5, month)); g.Status != ratelimit.Expired || g.Leased != 5 || g.TTL != tau || g.Limits[0].Remaining != 995 {
		w.Fatalf("the next period: %+v", g)
	}
}

// What is taken in the last moments of a period must be admitted in it.
func takeEndsWithThePeriod(w *world) {
	month := w.quota("month", 10, 20*time.Millisecond)
	g := w.ask(takeAsk(1, month, key("minute", 10, time.Minute)))
	if g.Taken != 1 || g.Admit != 20*time.Millisecond || g.Limits[1].NextUnit != time.Minute+20*time.Millisecond {
		w.Fatalf("%+v", g)
	}
	w.advance(20 * time.Millisecond)
	if g = w.ask(takeAsk(1, month)); g.Admit != d || g.Limits[0].Remaining != 9 {
		w.Fatalf("%+v", g)
	}
}

// The ledger's clock says which period it is, whatever those who ask believe;
// only one whose calendar is behind by more than a period is an error.
func ledgerPicksThePeriod(w *world) {
	month := w.quota("month", 10, period/2)
	shifted := func(by time.Duration) ratelimit.Limit {
		l := month
		l.Start, l.End, l.NextEnd = l.Start.Add(by), l.End.Add(by), l.NextEnd.Add(by)
		return l
	}
	w.ask(takeAsk(1, month))
	for i, by := range []time.Duration{period, -period} {
		g := w.ask(takeAsk(1, shifted(by)))
		if s := g.Limits[0]; g.Taken != 1 || s.Remaining != int64(8-i) || s.NextUnit != period/2 {
			w.Fatalf("off by %s: %+v", by, g)
		}
	}
	w.advance(period / 2)
	if g := w.ask(takeAsk(1, month)); g.Limits[0].Remaining != 9 || g.Limits[0].NextUnit != period {
		w.Fatalf("behind: %+v", g)
	}
	w.advance(period)
	grants := make([]ratelimit.Grant, 1)
	if err := w.h.Ledger.Lease(w.Context(), []ratelimit.Ask{takeAsk(1, month)}, grants); err == nil {
		w.Fatalf("two periods behind: %+v", grants[0])
	}
	if _, err := w.h.Ledger.Peek(w.Context(), takeAsk(0, month)); err == nil {
		w.Fatal("two periods behind: a look is answered")
	}
	w.wantRemaining(10, shifted(2*period))
}

// A session that ended without its last word is charged in full, for a month
// perhaps. When the word comes after all, what was not spent returns, once. Only
// the last one says for sure what was not spent.
func lateReportIsRefunded(w *world) {
	month := w.quota("month", 100, period/2)
	w.ask(leaseAsk("s", "n", 0, 0, 5, month))
	w.ask(leaseAsk("s", "n", 1, 5, 0, month))
	w.advance(tau)
	w.wantRemaining(95, month)
	w.ask(leaseAsk("s", "n", 2, 5, 0, month)) // on its way while more was spent
	w.wantRemaining(95, month)
	release := leaseAsk("s", "", 3, 5, 0, month)
	release.Release = true
	for range 2 {
		if g := w.ask(release); g.Status != ratelimit.Expired || g.Limits[0].Remaining != 97 {
			w.Fatalf("%+v", g)
		}
	}
	// Of what was reported before, nothing returns, and more than all cannot have
	// been spent.
	for spent, left := range map[int64]int64{0: 4, 9: 0} {
		w := w.another()
		month := w.quota("month", 100, period/2)
		w.ask(leaseAsk("s", "n", 0, 0, 5, month))
		w.ask(leaseAsk("s", "n", 1, 5, 0, month))
		w.advance(tau)
		release.Limits, release.Spent = []ratelimit.Limit{month}, spent
		if g := w.ask(release); g.Limits[0].Remaining != 95+left {
			w.Fatalf("spent %d: %+v", spent, g)
		}
	}
	// The next period owes nothing to the last one.
	w = w.another()
	month = w.quota("month", 100, 3*sec)
	w.ask(leaseAsk("s", "n", 0, 0, 5, month))
	w.advance(3 * sec)
	w.ask(takeAsk(1, month))
	release.Limits, release.Spent = []ratelimit.Limit{month}, 0
	if g := w.ask(release); g.Limits[0].Remaining != 99 {
		w.Fatalf("after the period: %+v", g)
	}
}

// So many sessions are remembered, and no more; those forgotten stay charged.
func manyLateReports(w *world) {
	month := w.quota("month", 1000, period/2)
	for i := range 40 {
		w.ask(leaseAsk(fmt.Sprint("s", i), "", 0, 0, 1, month))
		w.advance(tau)
	}
	w.wantRemaining(960, month)
	for i := range 40 {
		release := leaseAsk(fmt.Sprint("s", i), "", 0, 1, 0, month)
		release.Release = true
		w.ask(release)
	}
	w.wantRemaining(992, month)
}

// Window and quota of one holder are decided together; a session is charged to
// both, to each in its own way.
func quotaBesideWindow(w *world) {
	month, minute := w.quota("month", 20, period/2), key("minute", 100, time.Minute)
	g := w.ask(leaseAsk("s", "n", 0, 0, 5, month, minute))
	if g.Leased != 1 { // a twentieth of the smaller
		w.Fatalf("%+v", g)
	}
	w.ask(takeAsk(18, month, minute))
	if g = w.ask(takeAsk(2, month, minute)); g.Taken != 1 || g.Limits[0].RetryAfter != period/2 || g.Limits[1].Violated {
		w.Fatalf("%+v", g)
	}
	w.advance(tau + time.Minute)
	w.wantRemaining(100, minute)
	w.wantRemaining(0, month)
	w.advance(period/2 - tau - time.Minute)
	w.wantRemaining(20, month)
}

// A limit that changes its kind forgets nothing that is charged: a window's
// charges count in the present period, and of a period's nobody knows when they
// were made, so that they count as made now.
func windowBecomesQuota(w *world) {
	w.ask(takeAsk(4, key("x", 10, time.Minute)))
	month := w.quota("x", 10, period/2)
	if s := w.ask(takeAsk(1, month)).Limits[0]; s.Remaining != 5 || s.NextUnit != period/2 {
		w.Fatalf("%+v", s)
	}
	w.advance(10 * time.Minute)
	if s := w.ask(takeAsk(1, key("x", 10, time.Minute))).Limits[0]; s.Remaining != 4 || s.NextUnit != time.Minute {
		w.Fatalf("%+v", s)
	}
	w.advance(time.Minute + d)
	w.wantRemaining(10, key("x", 10, time.Minute))
}

// Another time zone, or a day in place of a month: what was spent of the present
// period is spent of the new one.
func quotaChangesItsPeriod(w *world) {
	w.ask(takeAsk(4, w.quota("x", 10, 10*time.Minute)))
	if s := w.ask(takeAsk(1, w.quota("x", 10, 30*time.Minute))).Limits[0]; s.Remaining != 5 || s.NextUnit != 30*time.Minute {
		w.Fatalf("longer: %+v", s)
	}
	if s := w.ask(takeAsk(1, w.quota("x", 10, 20*time.Minute))).Limits[0]; s.Remaining != 4 || s.NextUnit != 20*time.Minute {
		w.Fatalf("shorter: %+v", s)
	}
	month := w.quota("x", 10, 20*time.Minute)
	w.advance(20 * time.Minute)
	w.wantRemaining(10, month)
}

// A quota that comes while a session of the holder is open is charged for it,
// and in the next period too if it lives so long.
func quotaAddedDuringASession(w *world) {
	minute, month := key("minute", 100, time.Minute), w.quota("month", 100, sec)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	if g := w.ask(takeAsk(1, month)); g.Limits[0].Remaining != 94 {
		w.Fatalf("%+v", g)
	}
	w.advance(sec)
	if g := w.ask(takeAsk(1, month)); g.Limits[0].Remaining != 94 {
		w.Fatalf("the next period: %+v", g)
	}
	w.advance(sec)
	w.wantRemaining(94, month)
}

// An organization's budget is one for all its keys: their sessions stand beside
// each other, each with its share, and what one releases another can take.
func sharedByKeys(w *world) {
	org := shared("minute", 100, time.Minute)
	of := func(k string, a ratelimit.Ask) ratelimit.Ask {
		a.Key = k
		a.Limits = []ratelimit.Limit{{Name: "second", Holder: k, Quota: 1000, Per: time.Second}, org}
		return a
	}
	for i, k := range []string{"key_a", "key_b", "key_c"} {
		g := w.ask(of(k, leaseAsk("s"+k, "n"+k, 0, 0, 50)))
		if g.Leased != 5 || g.Limits[1].Remaining != int64(95-5*i) || g.OthersHold != (i > 0) {
			w.Fatalf("%s: %+v", k, g)
		}
	}
	w.ask(of("key_a", takeAsk(84)))
	if g := w.ask(of("key_b", leaseAsk("skey_b", "", 5, 5, 5))); g.Leased != 6 || g.Limits[1].Remaining != 0 {
		w.Fatalf("%+v", g)
	}
	if g := w.ask(of("key_d", takeAsk(1))); g.Status != ratelimit.Denied || g.Limits[0].Violated || !g.Limits[1].Violated {
		w.Fatalf("%+v", g)
	}
	release := of("key_c", leaseAsk("skey_c", "", 2, 5, 0))
	release.Release = true
	w.ask(release)
	if g := w.ask(of("key_d", takeAsk(4))); g.Taken != 3 {
		w.Fatalf("%+v", g)
	}
}
