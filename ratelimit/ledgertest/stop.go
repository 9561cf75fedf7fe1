package ledgertest

import (
	"context"
	"time"

	"keygate/ratelimit"
)

// version is a take for one request with the key as of a version.
func version(v int64, limits ...ratelimit.Limit) ratelimit.Ask {
	a := takeAsk(1, limits...)
	a.Version = v
	return a
}

// A stopped version of a key gets nothing, spends nothing and is told which
// version to read; a newer one goes on where the old one was.
func stop(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(version(3, minute))
	before := w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.stop("org_a", "key_a", 4)
	w.advance(time.Second)
	for _, a := range []ratelimit.Ask{version(3, minute), leaseAsk("s", "n", 2, 5, 1, minute)} {
		g := w.ask(a)
		if g.Status != ratelimit.Stopped || g.Version != 4 || g.Taken != 0 || g.Leased != 0 || g.TTL != 0 || g.Admit != 0 || len(g.Limits) != 0 {
			w.Fatalf("%+v", g)
		}
		if !g.Now.Equal(before.Now.Add(time.Second)) {
			w.Fatalf("now is %s", g.Now)
		}
	}
	looked, err := w.h.Ledger.Peek(context.Background(), version(3, minute))
	if err != nil || looked.Status != ratelimit.Stopped || looked.Version != 4 {
		w.Fatalf("peek: %+v, %v", looked, err)
	}
	if g := w.ask(version(4, minute)); g.Status != ratelimit.Granted || g.Limits[0].Remaining != 93 {
		w.Fatalf("%+v", g)
	}
	a := leaseAsk("s", "n", 2, 5, 0, minute)
	a.Version = 5
	if g := w.ask(a); g.Status != ratelimit.Granted || g.Leased != 5 {
		w.Fatalf("the session goes on: %+v", g)
	}
}

// What is left of a lease returns though its key, or the policy, has changed since:
// it used to be charged until a window after its end, or to the end of the period.
func changedKeyGivesBack(w *world) {
	minute, day := key("minute", 100, time.Minute), w.quota("day", 1000, 10*time.Minute)
	w.ask(rules(1, leaseAsk("s", "n", 0, 0, 5, minute, day)))
	w.ask(rules(1, leaseAsk("t", "n", 0, 0, 4, minute, day)))
	w.stop("org_a", "key_a", 4)
	a := rules(2, version(4, minute, day))
	w.ask(a)
	for session, granted := range map[string]int64{"s": 5, "t": 4} {
		release := rules(1, leaseAsk(session, "", 2, granted, 0, minute, day))
		release.Release = true
		if g := w.ask(release); g.Status != ratelimit.Granted || g.Leased != granted {
			w.Fatalf("%s: %+v", session, g)
		}
	}
	a.Take = 96
	if g := w.ask(a); g.Taken != 95 || g.Limits[0].Remaining != 0 || g.Limits[1].Remaining != 900 {
		w.Fatalf("%+v", g)
	}
}

// Marks that arrive twice or out of order never go back.
func stopOrder(w *world) {
	minute := key("minute", 100, time.Minute)
	for _, v := range []int64{2, 7, 7, 3} {
		w.stop("org_a", "key_a", v)
	}
	if g := w.ask(version(6, minute)); g.Status != ratelimit.Stopped || g.Version != 7 {
		w.Fatalf("%+v", g)
	}
	if g := w.ask(version(7, minute)); g.Status != ratelimit.Granted {
		w.Fatalf("%+v", g)
	}
	w.stop("org_a", "key_a", ratelimit.MaxVersion)
	if g := w.ask(version(ratelimit.MaxVersion-1, minute)); g.Status != ratelimit.Stopped || g.Version != ratelimit.MaxVersion {
		w.Fatalf("the largest: %+v", g)
	}
}

// A mark lasts as long as it says, counted from when it was last set.
func stopIsForgotten(w *world) {
	minute := key("minute", 100, time.Minute)
	w.stop("org_a", "key_a", 2)
	w.advance(time.Hour)
	w.stop("org_a", "key_a", 2)
	w.advance(ratelimit.StopLife - time.Second)
	if g := w.ask(version(1, minute)); g.Status != ratelimit.Stopped {
		w.Fatalf("%+v", g)
	}
	w.advance(2 * time.Second)
	if g := w.ask(version(1, minute)); g.Status != ratelimit.Granted {
		w.Fatalf("%+v", g)
	}
}

// A mark is of one key of one organization, and not of what the organization spends.
func stopOfOneKey(w *world) {
	org := shared("minute", 100, time.Minute)
	w.stop("org_a", "key_a", 2)
	w.stop("", "key_c", 2)
	a := version(1, org)
	for _, of := range [][2]string{{"org_a", "key_b"}, {"org_b", "key_a"}, {"org_a", "org_a"}, {"", "key_a"}, {"org_a", ""}} {
		a.Organization, a.Key = of[0], of[1]
		if g := w.ask(a); g.Status != ratelimit.Granted {
			w.Errorf("%v: %+v", of, g)
		}
	}
	a.Organization, a.Key = "", "key_c"
	if g := w.ask(a); g.Status != ratelimit.Stopped {
		w.Errorf("a key without organization: %+v", g)
	}
}

func stopMalformed(w *world) {
	for _, bad := range []struct {
		key     string
		version int64
	}{{"", 1}, {"key_a", 0}, {"key_a", -1}, {"key_a", ratelimit.MaxVersion + 1}} {
		if err := w.h.Ledger.Stop(context.Background(), "org_a", bad.key, bad.version); err == nil {
			w.Errorf("%+v: no error", bad)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.h.Ledger.Stop(ended, "org_a", "key_a", 5); err == nil {
		w.Error("ended context: no error")
	}
	if g := w.ask(version(1, key("minute", 1, time.Minute))); g.Status != ratelimit.Granted {
		w.Errorf("something was marked: %+v", g)
	}
}
