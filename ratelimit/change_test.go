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
	if _, _, _, err := l.Request(l.ask()); !errors.As(err, &stopped) || stopped.Version != 2 {
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
	if _, _, _, err := l.Request(l.ask()); !errors.As(err, &stopped) || stopped.Version != 5 {
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

// A ledger that may have lost what was spent gives nothing, and says until when:
// what is leased is not spent either.
func TestTrapLost(t *testing.T) {
	l := newLine(t, minute(1000))
	_, granted, total := l.leased()
	l.cost = granted - total + 1
	_, w, _, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	g := ratelimit.Grant{Status: ratelimit.Lost, Now: l.clock.now(), Limits: []ratelimit.State{{Name: "minute", Quota: 1000, Violated: true, RetryAfter: 30 * time.Second}}}
	l.Receive("key_a", r, &g)
	var lost *ratelimit.LostError
	if _, err, _ := ratelimit.Answer(w); !errors.As(err, &lost) || lost.RetryAfter != 30*time.Second {
		t.Fatal(err)
	}
	l.advance(10 * time.Second)
	if _, w, _, err := l.Request(l.ask()); w != nil || !errors.As(err, &lost) || math.Abs((lost.RetryAfter-20*time.Second).Seconds()) > 0.1 {
		t.Fatal(err)
	}
	if l.Counts().Held.Load() != 1 {
		t.Fatal("not counted")
	}
	// A lease that the ledger still knows is charged, and goes on.
	l.cost = 0
	l.advance(-10 * time.Second)
	if d, _, _, err := l.Request(l.ask()); err != nil || !d.Allowed {
		t.Fatal("the lease is not spent")
	}
}

// A newer policy is in use elsewhere: whoever goes by an older one is told, and
// costs no further trip.
func TestTrapStale(t *testing.T) {
	l := newLine(t, minute(1000))
	_, w, _, _ := l.Request(l.ask())
	r := l.Compose("key_a")
	l.Receive("key_a", r, &ratelimit.Grant{Status: ratelimit.Stale, Version: 3, Now: l.clock.now()})
	if _, err, _ := ratelimit.Answer(w); !errors.Is(err, ratelimit.ErrStale) || l.Counts().Stale.Load() != 1 {
		t.Fatal(err)
	}
	if _, w, _, err := l.Request(l.ask()); w != nil || !errors.Is(err, ratelimit.ErrStale) {
		t.Fatal(err)
	}
	newer := l.ask()
	newer.Rules = 3
	if _, w, _, _ := l.Request(newer); w == nil {
		t.Fatal("the newer policy is not asked about")
	}
}

// Requests that go by an older policy are decided by the limits of the newer one,
// which the ledger keeps, and somebody is told.
func TestStalePolicy(t *testing.T) {
	ledger := memory.New(memory.Options{})
	newer := asking(minute(2))
	newer.Rules = 2
	told := 0
	elsewhere := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger})
	here := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger, Stale: func() { told++ }})
	if d, err := elsewhere.Decide(t.Context(), newer, nil); err != nil || !d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	older := asking(minute(1000))
	older.Rules = 1
	for i, want := range []bool{true, false} {
		p, err := here.Peek(t.Context(), older)
		if err != nil || p.Allowed != want || p.Limits[0].Quota != 2 {
			t.Errorf("peek %d: %+v, %v", i, p, err)
		}
		if d, err := here.Decide(t.Context(), older, nil); err != nil || d.Allowed != want || d.Limits[0].Quota != 2 {
			t.Errorf("request %d: %+v, %v", i, d, err)
		}
	}
	if told != 2 {
		t.Errorf("told %d times", told)
	}
}

// A lease of a calendar quota ends with the period: with a deadline of τ across
// its end 256 requests were admitted on the old period.
func TestTrapEndOfAPeriod(t *testing.T) {
	l := newLine(t, ratelimit.Limit{Name: "day", Holder: "key_a", Quota: 1000, Period: ratelimit.Day})
	l.limits[0] = l.limits[0].In(l.clock.now())
	l.advance(l.limits[0].End.Sub(l.clock.now()) - time.Second)
	l.leased()
	l.advance(time.Second)
	if _, _, _, live := l.Lease("key_a"); live {
		t.Fatal("the lease goes on in the next period")
	}
	l.limits = []ratelimit.Limit{l.limits[0].In(l.clock.now())}
	if n := l.get(1000); n != 1000 || l.left() != 0 {
		t.Fatalf("%d of the new period's 1000 were admitted, %d are left", n, l.left())
	}
}

// A request whose cost shows later is charged at once and by itself, also while
// there is a lease; what is left of that goes back if it is needed.
func TestTrapCorrected(t *testing.T) {
	l := newLine(t, minute(100))
	l.leased()
	_, granted, total, _ := l.Lease("key_a")
	ask := l.ask()
	ask.Cost, ask.Corrected = 1, true
	_, w, _, _ := l.Request(ask)
	if w == nil {
		t.Fatal("decided from the lease")
	}
	l.exchange()
	if d, _, _ := ratelimit.Answer(w); !d.Allowed || d.At.IsZero() {
		t.Fatalf("%+v", d)
	}
	if _, _, now, _ := l.Lease("key_a"); now != total {
		t.Fatalf("%d spent of the lease, were %d", now, total)
	}
	ask.Cost = l.left() + granted - total
	_, w, _, _ = l.Request(ask)
	l.exchange()
	if d, _, _ := ratelimit.Answer(w); !d.Allowed {
		t.Fatalf("%d left and %d leased, a request of %d was refused", l.left(), granted-total, ask.Cost)
	}
}
