package memory

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"keygate/ratelimit"
)

const d = ratelimit.CallTimeout

// What is taken may be admitted up to D later, so that it is charged for D
// longer than the window.
func TestTakeIsChargedForWindowAndCallTimeout(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 1, time.Minute)
	g := ask(t, l, takeAsk(1, minute))
	if g.Status != ratelimit.Granted || g.Taken != 1 || g.Admit != d {
		t.Fatalf("first: %+v", g)
	}
	if s := g.Limits[0]; s.Remaining != 0 || s.NextUnit != time.Minute+d || s.Violated || s.RetryAfter != 0 {
		t.Fatalf("state after the first: %+v", s)
	}
	c.advance(time.Minute + d - time.Microsecond)
	g = ask(t, l, takeAsk(1, minute))
	if g.Status != ratelimit.Denied || g.Taken != 0 || !g.Limits[0].Violated || g.Limits[0].RetryAfter != time.Microsecond {
		t.Fatalf("a microsecond early: %+v", g)
	}
	c.advance(time.Microsecond)
	if g = ask(t, l, takeAsk(1, minute)); g.Taken != 1 {
		t.Fatalf("on time: %+v", g)
	}
}

func TestTakeGivesAsManyWholeRequestsAsFit(t *testing.T) {
	l, _ := newLedger()
	a := takeAsk(15, key("minute", 10, time.Minute))
	a.Cost = 3
	g := ask(t, l, a)
	if g.Status != ratelimit.Granted || g.Taken != 9 {
		t.Fatalf("15 in threes of 10: %+v", g)
	}
	if s := g.Limits[0]; s.Remaining != 1 || !s.Violated || s.RetryAfter != time.Minute+d {
		t.Fatalf("those that did not fit are told when: %+v", s)
	}
	if g = ask(t, l, a); g.Status != ratelimit.Denied || g.Limits[0].Remaining != 1 {
		t.Fatalf("again: %+v", g)
	}
}

// Key and organization are decided together: what one refuses costs the other nothing.
func TestAllLimitsOrNone(t *testing.T) {
	l, c := newLedger()
	limits := []ratelimit.Limit{key("second", 5, time.Second), shared("minute", 3, time.Minute), key("minute2", 10, time.Minute)}
	if g := ask(t, l, takeAsk(5, limits...)); g.Taken != 3 {
		t.Fatalf("%+v", g)
	}
	c.advance(10 * time.Second)
	g := ask(t, l, takeAsk(1, limits...))
	if g.Status != ratelimit.Denied {
		t.Fatalf("%+v", g)
	}
	want := []ratelimit.State{
		{Name: "second", Quota: 5, Remaining: 5},
		{Name: "minute", Quota: 3, Remaining: 0, NextUnit: 50*time.Second + d, RetryAfter: 50*time.Second + d, Violated: true},
		{Name: "minute2", Quota: 10, Remaining: 7, NextUnit: 50*time.Second + d},
	}
	for i := range want {
		if g.Limits[i] != want[i] {
			t.Errorf("limit %d: %+v, want %+v", i, g.Limits[i], want[i])
		}
	}
	// Another key of the organization meets the shared budget and its own.
	other := takeAsk(1, ratelimit.Limit{Name: "second", Holder: "key_b", Quota: 5, Per: time.Second}, limits[1])
	other.Key = "key_b"
	if g = ask(t, l, other); g.Status != ratelimit.Denied || g.Limits[0].Remaining != 5 {
		t.Fatalf("other key: %+v", g)
	}
	// The same holder name under another organization is another budget.
	other.Organization = "org_b"
	if g = ask(t, l, other); g.Taken != 1 {
		t.Fatalf("other organization: %+v", g)
	}
}

// RetryAfter walks over the charges in the order of their end.
func TestRetryAfterWalksCharges(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 6, time.Minute)
	for range 3 {
		ask(t, l, takeAsk(2, minute))
		c.advance(time.Second)
	}
	for cost, want := range map[int64]time.Duration{1: 57, 2: 57, 3: 58, 4: 58, 5: 59, 6: 59} {
		a := takeAsk(cost, minute)
		a.Cost = cost
		if got := ask(t, l, a).Limits[0].RetryAfter; got != want*time.Second+d {
			t.Errorf("cost %d: retry after %s, want %s", cost, got, want*time.Second+d)
		}
	}
	a := takeAsk(7, minute)
	a.Cost = 7
	if g := ask(t, l, a); g.Status != ratelimit.Denied || g.Limits[0].RetryAfter != time.Minute {
		t.Errorf("a cost above the quota: %+v", g)
	}
}

// A lowered quota acts at once, a raised one too, and neither forgets anything.
func TestQuotaChanges(t *testing.T) {
	l, c := newLedger()
	ask(t, l, takeAsk(8, key("minute", 10, time.Minute)))
	c.advance(time.Second)
	ask(t, l, takeAsk(1, key("minute", 10, time.Minute)))
	g := ask(t, l, takeAsk(1, key("minute", 5, time.Minute)))
	if s := g.Limits[0]; g.Status != ratelimit.Denied || s.Remaining != 0 || s.NextUnit != 59*time.Second+d || s.RetryAfter != s.NextUnit {
		t.Fatalf("lowered: %+v", g)
	}
	// 9 spent of 1: the end of the first charge leaves nothing yet.
	if s := peek(t, l, key("minute", 1, time.Minute)).Limits[0]; s.NextUnit != time.Minute+d {
		t.Fatalf("lowered further: %+v", s)
	}
	wantRemaining(t, l, 11, key("minute", 20, time.Minute))
}

// A longer window holds what is still charged for the longer time; a shorter one
// lets it go sooner; going to and fro is as if nothing had happened.
func TestWindowChanges(t *testing.T) {
	l, c := newLedger()
	minute, hour := key("x", 10, time.Minute), key("x", 10, time.Hour)
	ask(t, l, takeAsk(4, minute))
	c.advance(30 * time.Second)
	if s := ask(t, l, takeAsk(1, hour)).Limits[0]; s.Remaining != 5 || s.NextUnit != time.Hour-30*time.Second+d {
		t.Fatalf("grown: %+v", s)
	}
	if s := peek(t, l, minute).Limits[0]; s.Remaining != 5 || s.NextUnit != 30*time.Second+d {
		t.Fatalf("a look with the shorter window: %+v", s)
	}
	c.advance(40 * time.Second) // the first four are past the minute
	if s := ask(t, l, takeAsk(1, hour)).Limits[0]; s.Remaining != 4 {
		t.Fatalf("still the hour: %+v", s)
	}
	if s := ask(t, l, takeAsk(1, minute)).Limits[0]; s.Remaining != 7 {
		t.Fatalf("shrunk: %+v", s)
	}
}

// A clock that is set back neither frees nor prolongs anything.
func TestClockNeverRunsBackwards(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 2, time.Minute)
	first := ask(t, l, takeAsk(1, minute))
	c.advance(-time.Hour)
	g := ask(t, l, takeAsk(1, minute))
	if !g.Now.Equal(first.Now) || g.Taken != 1 {
		t.Fatalf("%+v", g)
	}
	c.advance(time.Hour + time.Minute + d)
	wantRemaining(t, l, 2, minute)
}

// Above 64 charges neighbours are merged into the later one: the sum stays, no
// charge ends before its time, and little is delayed.
func TestMergeKeepsTheBound(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 1000, time.Minute)
	var log admissions
	for i := range 3000 {
		c.advance(47 * time.Millisecond)
		g := ask(t, l, takeAsk(1, minute))
		if g.Taken == 1 {
			log.add(l.clock()+callTimeout, 1)
		}
		h := l.shard(&ratelimit.Ask{Organization: "org_a"}).holders[holderKey{"org_a", "key_a"}]
		b := &h.budgets[0]
		if len(b.entries) > maxEntries || cap(b.entries) > maxEntries+1 {
			t.Fatalf("%d entries in an array of %d", len(b.entries), cap(b.entries))
		}
		if i%50 != 0 {
			continue
		}
		// At the end of each charge, no more has been let go than has passed.
		held, sum := b.spent, int64(0)
		for i := len(b.entries) - 1; i >= 0; i-- {
			sum += b.entries[i].count
			exact := int64(0)
			for _, e := range log {
				if i == 0 || e.until+60_000_000 > b.entries[i-1].until {
					exact += e.count
				}
			}
			if i > 0 && sum < exact {
				t.Fatalf("%d held after %d, %d should be", sum, b.entries[i-1].until, exact)
			}
		}
		if sum != held {
			t.Fatalf("sum %d, entries hold %d", held, sum)
		}
	}
	if most := log.most(60_000_000); most > 1000 || most < 980 {
		t.Fatalf("%d admitted in a minute, want 1000 less the error of merging", most)
	}
}

func TestPeekSpendsAndCreatesNothing(t *testing.T) {
	l, c := newLedger()
	limits := []ratelimit.Limit{key("minute", 2, time.Minute), shared("hour", 100, time.Hour)}
	for range 5 {
		g := peek(t, l, limits...)
		if g.Status != ratelimit.Granted || g.Taken != 0 || g.Limits[0].Remaining != 2 || g.Limits[1].Remaining != 100 {
			t.Fatalf("%+v", g)
		}
	}
	if l.Holders() != 0 {
		t.Fatalf("%d holders made by looking", l.Holders())
	}
	ask(t, l, takeAsk(2, limits...))
	c.advance(time.Second)
	looked, asked := peek(t, l, limits...), ask(t, l, takeAsk(1, limits...))
	if looked.Status != ratelimit.Denied || fmt.Sprint(looked.Limits) != fmt.Sprint(asked.Limits) {
		t.Fatalf("looked %+v\nasked %+v", looked, asked)
	}
}

// A denial leaves nothing behind.
func TestDenialMakesNoHolder(t *testing.T) {
	l, _ := newLedger()
	a := takeAsk(5, key("minute", 2, time.Minute))
	a.Cost = 5
	if g := ask(t, l, a); g.Status != ratelimit.Denied || l.Holders() != 0 {
		t.Fatalf("%+v, %d holders", g, l.Holders())
	}
}

func TestMalformedAsks(t *testing.T) {
	good := takeAsk(1, key("minute", 2, time.Minute))
	for name, change := range map[string]func(*ratelimit.Ask){
		"no limits":         func(a *ratelimit.Ask) { a.Limits = nil },
		"no cost":           func(a *ratelimit.Ask) { a.Cost = 0 },
		"take below cost":   func(a *ratelimit.Ask) { a.Cost = 2 },
		"negative want":     func(a *ratelimit.Ask) { a.Session, a.Want = "s", -1 },
		"want no session":   func(a *ratelimit.Ask) { a.Want = 1 },
		"spent no session":  func(a *ratelimit.Ask) { a.Spent = 1 },
		"revived":           func(a *ratelimit.Ask) { a.Session, a.NextSession = "s", "s" },
		"release and take":  func(a *ratelimit.Ask) { a.Session, a.Release = "s", true },
		"same limit twice":  func(a *ratelimit.Ask) { a.Limits = append(a.Limits, a.Limits[0]) },
		"no holder":         func(a *ratelimit.Ask) { a.Limits = []ratelimit.Limit{{Name: "x", Quota: 1, Per: time.Minute}} },
		"no quota":          func(a *ratelimit.Ask) { a.Limits = []ratelimit.Limit{key("x", 0, time.Minute)} },
		"window too short":  func(a *ratelimit.Ask) { a.Limits = []ratelimit.Limit{key("x", 1, time.Millisecond)} },
		"calendar quota":    func(a *ratelimit.Ask) { a.Limits = []ratelimit.Limit{key("month", 1, 0)} },
		"nobody":            func(a *ratelimit.Ask) { a.Organization, a.Key = "", "" },
		"negative spending": func(a *ratelimit.Ask) { a.Session, a.Spent = "s", -1 },
		"concurrent": func(a *ratelimit.Ask) {
			a.Limits = []ratelimit.Limit{{Name: "c", Holder: "key_a", Quota: 1, Per: time.Minute, Concurrent: true}}
		},
	} {
		l, _ := newLedger()
		a := good
		change(&a)
		// The good ask beside it must not be booked either.
		err := l.Lease(context.Background(), []ratelimit.Ask{good, a}, make([]ratelimit.Grant, 2))
		if err == nil || l.Holders() != 0 {
			t.Errorf("%s: error %v, %d holders", name, err, l.Holders())
		}
		if unsupported := name == "calendar quota" || name == "concurrent"; errors.Is(err, ratelimit.ErrUnsupported) != unsupported {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Peek(context.Background(), a); err == nil {
			t.Errorf("%s: peek accepts it", name)
		}
	}
	l, _ := newLedger()
	if err := l.Lease(context.Background(), []ratelimit.Ask{good}, nil); err == nil {
		t.Error("no memory for the grant: no error")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Lease(ended, []ratelimit.Ask{good}, make([]ratelimit.Grant, 1)); !errors.Is(err, context.Canceled) || l.Holders() != 0 {
		t.Errorf("ended context: %v", err)
	}
}

// Memory follows the holders in use, not those that ever were.
func TestIdleHoldersAreForgotten(t *testing.T) {
	l, c := newLedger()
	for i := range 20_000 {
		c.advance(10 * time.Millisecond) // 100 a second, in use for 1.05 s each
		limit := ratelimit.Limit{Name: "second", Holder: fmt.Sprintf("key_%d", i), Quota: 5, Per: time.Second}
		a := ratelimit.Ask{Organization: fmt.Sprintf("org_%d", i%200), Limits: []ratelimit.Limit{limit}, Take: 1, Cost: 1}
		ask(t, l, a)
		// Each of the 64 shards may be late by a few holders of its own.
		if n := l.Holders(); n > 2*105+6*shards {
			t.Fatalf("%d holders after %d, about 105 are in use", n, i+1)
		}
	}
	// Asks that add nothing sweep as well.
	c.advance(time.Minute)
	for i := range 64 * 1000 {
		ask(t, l, ratelimit.Ask{Organization: fmt.Sprintf("org_%d", i%200), Limits: []ratelimit.Limit{key("s", 1, time.Second)}, Take: 1, Cost: 1})
	}
	if n := l.Holders(); n > 200 {
		t.Fatalf("%d holders, 200 are in use", n)
	}
}

// A limit that policies stopped naming is forgotten, though its holder is busy.
func TestOldLimitsAreForgotten(t *testing.T) {
	l, c := newLedger()
	for i := range 2000 {
		ask(t, l, takeAsk(1, key("s", 1000, time.Second), key(fmt.Sprintf("old%d", i/10), 1000, time.Second)))
		c.advance(100 * time.Millisecond)
	}
	h := l.shard(&ratelimit.Ask{Organization: "org_a"}).holders[holderKey{"org_a", "key_a"}]
	if len(h.budgets) > 8 {
		t.Fatalf("%d budgets kept", len(h.budgets))
	}
}
