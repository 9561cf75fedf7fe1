package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keygate/ratelimit"
)

// What is taken may be admitted up to D later, so that it is charged for D
// longer than the window.
func takeIsChargedForWindowAndCallTimeout(w *world) {
	minute := key("minute", 1, time.Minute)
	g := w.ask(takeAsk(1, minute))
	if g.Status != ratelimit.Granted || g.Taken != 1 || g.Admit != d {
		w.Fatalf("first: %+v", g)
	}
	if s := g.Limits[0]; s.Remaining != 0 || s.NextUnit != time.Minute+d || s.Violated || s.RetryAfter != 0 {
		w.Fatalf("state after the first: %+v", s)
	}
	w.advance(time.Minute + d - time.Microsecond)
	g = w.ask(takeAsk(1, minute))
	if g.Status != ratelimit.Denied || g.Taken != 0 || !g.Limits[0].Violated || g.Limits[0].RetryAfter != time.Microsecond {
		w.Fatalf("a microsecond early: %+v", g)
	}
	w.advance(time.Microsecond)
	if g = w.ask(takeAsk(1, minute)); g.Taken != 1 {
		w.Fatalf("on time: %+v", g)
	}
}

func takeGivesAsManyWholeRequestsAsFit(w *world) {
	a := takeAsk(15, key("minute", 10, time.Minute))
	a.Cost = 3
	g := w.ask(a)
	if g.Status != ratelimit.Granted || g.Taken != 9 {
		w.Fatalf("15 in threes of 10: %+v", g)
	}
	if s := g.Limits[0]; s.Remaining != 1 || !s.Violated || s.RetryAfter != time.Minute+d {
		w.Fatalf("those that did not fit are told when: %+v", s)
	}
	if g = w.ask(a); g.Status != ratelimit.Denied || g.Limits[0].Remaining != 1 {
		w.Fatalf("again: %+v", g)
	}
}

// Key and organization are decided together: what one refuses costs the other nothing.
func allLimitsOrNone(w *world) {
	limits := []ratelimit.Limit{key("second", 5, time.Second), shared("minute", 3, time.Minute), key("minute2", 10, time.Minute)}
	if g := w.ask(takeAsk(5, limits...)); g.Taken != 3 {
		w.Fatalf("%+v", g)
	}
	w.advance(10 * time.Second)
	g := w.ask(takeAsk(1, limits...))
	if g.Status != ratelimit.Denied {
		w.Fatalf("%+v", g)
	}
	want := []ratelimit.State{
		{Name: "second", Quota: 5, Remaining: 5},
		{Name: "minute", Quota: 3, Remaining: 0, NextUnit: 50*time.Second + d, RetryAfter: 50*time.Second + d, Violated: true},
		{Name: "minute2", Quota: 10, Remaining: 7, NextUnit: 50*time.Second + d},
	}
	for i := range want {
		if g.Limits[i] != want[i] {
			w.Errorf("limit %d: %+v, want %+v", i, g.Limits[i], want[i])
		}
	}
	// Another key of the organization meets the shared budget and its own.
	other := takeAsk(1, ratelimit.Limit{Name: "second", Holder: "key_b", Quota: 5, Per: time.Second}, limits[1])
	other.Key = "key_b"
	if g = w.ask(other); g.Status != ratelimit.Denied || g.Limits[0].Remaining != 5 {
		w.Fatalf("other key: %+v", g)
	}
	// The same holder name under another organization is another budget.
	other.Organization = "org_b"
	if g = w.ask(other); g.Taken != 1 {
		w.Fatalf("other organization: %+v", g)
	}
}

// RetryAfter walks over the charges in the order of their end.
func retryAfterWalksCharges(w *world) {
	minute := key("minute", 6, time.Minute)
	for range 3 {
		w.ask(takeAsk(2, minute))
		w.advance(time.Second)
	}
	for cost, want := range map[int64]time.Duration{1: 57, 2: 57, 3: 58, 4: 58, 5: 59, 6: 59} {
		a := takeAsk(cost, minute)
		a.Cost = cost
		if got := w.ask(a).Limits[0].RetryAfter; got != want*time.Second+d {
			w.Errorf("cost %d: retry after %s, want %s", cost, got, want*time.Second+d)
		}
	}
	a := takeAsk(7, minute)
	a.Cost = 7
	if g := w.ask(a); g.Status != ratelimit.Denied || g.Limits[0].RetryAfter != time.Minute {
		w.Errorf("a cost above the quota: %+v", g)
	}
}

func peekSpendsAndCreatesNothing(w *world) {
	limits := []ratelimit.Limit{key("minute", 2, time.Minute), shared("hour", 100, time.Hour)}
	for range 5 {
		g := w.peek(limits...)
		if g.Status != ratelimit.Granted || g.Taken != 0 || g.Limits[0].Remaining != 2 || g.Limits[1].Remaining != 100 {
			w.Fatalf("%+v", g)
		}
	}
	if n := w.h.Holders(); n != 0 {
		w.Fatalf("%d holders made by looking", n)
	}
	w.ask(takeAsk(2, limits...))
	w.advance(time.Second)
	looked, asked := w.peek(limits...), w.ask(takeAsk(1, limits...))
	if looked.Status != ratelimit.Denied || fmt.Sprint(looked.Limits) != fmt.Sprint(asked.Limits) {
		w.Fatalf("looked %+v\nasked %+v", looked, asked)
	}
}

func malformedAsks(w *world) {
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
		"negative version":  func(a *ratelimit.Ask) { a.Version = -1 },
		"version too large": func(a *ratelimit.Ask) { a.Version = ratelimit.MaxVersion + 1 },
		"long session":      func(a *ratelimit.Ask) { a.Session = strings.Repeat("s", ratelimit.MaxSession+1) },
		"long next session": func(a *ratelimit.Ask) { a.Session, a.NextSession = "s", strings.Repeat("s", ratelimit.MaxSession+1) },
		"long name": func(a *ratelimit.Ask) {
			a.Limits = []ratelimit.Limit{key(strings.Repeat("x", ratelimit.MaxName+1), 1, time.Minute)}
		},
		"concurrent": func(a *ratelimit.Ask) {
			a.Limits = []ratelimit.Limit{{Name: "c", Holder: "key_a", Quota: 1, Per: time.Minute, Concurrent: true}}
		},
	} {
		a := good
		change(&a)
		// The good ask beside it must not be booked either.
		err := w.h.Ledger.Lease(context.Background(), []ratelimit.Ask{good, a}, make([]ratelimit.Grant, 2))
		if err == nil || w.h.Holders() != 0 {
			w.Errorf("%s: error %v, %d holders", name, err, w.h.Holders())
		}
		if _, err := w.h.Ledger.Peek(context.Background(), a); err == nil {
			w.Errorf("%s: peek accepts it", name)
		}
	}
	if err := w.h.Ledger.Lease(context.Background(), []ratelimit.Ask{good}, nil); err == nil {
		w.Error("no memory for the grant: no error")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.h.Ledger.Lease(ended, []ratelimit.Ask{good}, make([]ratelimit.Grant, 1)); !errors.Is(err, context.Canceled) || w.h.Holders() != 0 {
		w.Errorf("ended context: %v", err)
	}
}

// A denial leaves nothing behind.
func denialMakesNoHolder(w *world) {
	a := takeAsk(5, key("minute", 2, time.Minute))
	a.Cost = 5
	if g := w.ask(a); g.Status != ratelimit.Denied || w.h.Holders() != 0 {
		w.Fatalf("%+v, %d holders", g, w.h.Holders())
	}
}

// Whatever stands for a number on the way, the largest come back as they went.
func largeNumbers(w *world) {
	most := []ratelimit.Limit{key("most", ratelimit.MaxQuota, ratelimit.MaxWindow), shared("org", ratelimit.MaxQuota, ratelimit.MaxWindow)}
	a := takeAsk(ratelimit.MaxQuota/3, most...)
	for i := range int64(3) {
		w.advance(time.Microsecond)
		g := w.ask(a)
		if g.Taken != ratelimit.MaxQuota/3 || g.Limits[0].Remaining != ratelimit.MaxQuota-(i+1)*(ratelimit.MaxQuota/3) {
			w.Fatalf("%+v", g)
		}
	}
	w.advance(time.Second)
	a.Cost, a.Take = 2, 2
	g := w.ask(a)
	want := ratelimit.MaxWindow + d - time.Second - 2*time.Microsecond
	for _, s := range g.Limits {
		if s.Remaining != 1 || s.NextUnit != want || s.RetryAfter != want {
			w.Fatalf("%+v, want %s", s, want)
		}
	}
	lease := leaseAsk("s", "n", 0, 0, 1<<62, key("own", ratelimit.MaxQuota, time.Minute))
	if g := w.ask(lease); g.Leased != ratelimit.MaxQuota/20 {
		w.Fatalf("%+v", g)
	}
}

// Charges up to 64 are kept apart, to the microsecond; with more, some end
// later and none earlier, and no unit is lost.
func manyCharges(w *world) {
	minute := key("minute", 1000, time.Minute)
	const gap = 10 * time.Millisecond
	for range 64 {
		w.ask(takeAsk(1, minute))
		w.advance(gap)
	}
	w.advance(time.Minute + d - 64*gap - time.Microsecond)
	for i := range int64(64) {
		w.wantRemaining(936+i, minute)
		w.advance(time.Microsecond)
		w.wantRemaining(937+i, minute)
		w.advance(gap - time.Microsecond)
	}
	for range 200 {
		w.ask(takeAsk(1, minute))
		w.advance(gap)
	}
	w.wantRemaining(800, minute)
	w.advance(time.Minute + d - 200*gap - time.Microsecond)
	before := int64(800)
	for i := range int64(200) {
		left := w.peek(minute).Limits[0].Remaining
		if left > 800+i || left < before || left < 800+i-20 {
			w.Fatalf("charge %d: %d left after %d", i, left, before)
		}
		before = left
		w.advance(gap)
	}
	w.wantRemaining(1000, minute)
}

// Without an organization the key stands in for it, and the holders of one
// place are none of another's.
func placing(w *world) {
	minute := key("minute", 10, time.Minute)
	for i, of := range [][2]string{{"org_a", "key_a"}, {"org_b", "key_a"}, {"", "key_b"}, {"", "key_a"}} {
		a := takeAsk(1, minute)
		a.Organization, a.Key = of[0], of[1]
		if g := w.ask(a); g.Limits[0].Remaining != 9 || w.h.Holders() != i+1 {
			w.Fatalf("%v: %+v, %d holders", of, g, w.h.Holders())
		}
	}
	// All keys of an organization meet in the holders they share.
	a := takeAsk(1, minute)
	a.Key = "key_b"
	if g := w.ask(a); g.Limits[0].Remaining != 8 {
		w.Fatalf("%+v", g)
	}
}

// Asks of one call are answered in their order, into memory that is the caller's.
func batch(w *world) {
	minute := key("minute", 10, time.Minute)
	other := ratelimit.Limit{Name: "mine", Holder: "key_b", Quota: 3, Per: time.Minute}
	asks := []ratelimit.Ask{takeAsk(4, minute), takeAsk(1, other), takeAsk(4, minute), takeAsk(4, minute, other)}
	asks[1].Organization, asks[1].Key = "org_b", "key_b"
	states := make([]ratelimit.State, 2)
	grants := make([]ratelimit.Grant, len(asks))
	grants[3] = ratelimit.Grant{Status: ratelimit.Lost, Version: 7, Limits: states[:2]}
	if err := w.h.Ledger.Lease(context.Background(), asks, grants); err != nil {
		w.Fatal(err)
	}
	for i, want := range [][3]int64{{4, 6, 1}, {1, 2, 1}, {4, 2, 1}, {2, 0, 2}} {
		if g := grants[i]; g.Taken != want[0] || g.Limits[0].Remaining != want[1] || len(g.Limits) != int(want[2]) || g.Status != ratelimit.Granted || g.Version != 0 {
			w.Errorf("ask %d: %+v, want %v", i, g, want)
		}
	}
	if &grants[3].Limits[0] != &states[0] {
		w.Error("the caller's memory is not used")
	}
	if err := w.h.Ledger.Lease(context.Background(), nil, nil); err != nil {
		w.Errorf("no asks: %v", err)
	}
}

// Whatever the interleaving, all together get exactly the quota, and an
// organization's budget is one for all its keys.
func concurrentTakes(w *world) {
	var taken [5]atomic.Int64
	var all atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				k := (g + i) % len(taken)
				a := takeAsk(1, ratelimit.Limit{Name: "minute", Holder: string(rune('a' + k)), Quota: 40, Per: time.Minute}, shared("org", 150, time.Hour))
				grants := make([]ratelimit.Grant, 1)
				if err := w.h.Ledger.Lease(context.Background(), []ratelimit.Ask{a}, grants); err != nil {
					w.Errorf("Lease: %v", err)
					return
				}
				taken[k].Add(grants[0].Taken)
				all.Add(grants[0].Taken)
			}
		})
	}
	wg.Wait()
	if n := all.Load(); n != 150 {
		w.Errorf("%d admitted, want the organization's 150", n)
	}
	for k := range taken {
		if n := taken[k].Load(); n > 40 {
			w.Errorf("key %d: %d admitted of 40", k, n)
		}
	}
}
