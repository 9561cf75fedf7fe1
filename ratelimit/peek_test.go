package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// What Peek says is what Allow then does, in a full table too, and a table that
// is peeked at answers as one that is not.
func TestBucketsPeekIsTrueAndFree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		requests, most := rapid.IntRange(1, 4).Draw(rt, "requests"), rapid.IntRange(1, 4).Draw(rt, "max")
		per := rapid.SampledFrom([]time.Duration{time.Millisecond, 7 * time.Second, time.Minute, time.Hour}).Draw(rt, "per")
		peeked, c := newBuckets(t, requests, most, per)
		undisturbed, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: requests, Per: per, Max: most, Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			key := fmt.Sprint(rapid.IntRange(0, 5).Draw(rt, "key"))
			left, next := peeked.Peek(key)
			for range rapid.IntRange(0, 3).Draw(rt, "peeks") {
				peeked.Peek(fmt.Sprint(rapid.IntRange(0, 5).Draw(rt, "other")))
			}
			ok, wait := peeked.Allow(key)
			if ok != (left > 0) || !ok && wait != next {
				rt.Fatalf("peek: %d left, next in %s; then allowed %t, wait %s", left, next, ok, wait)
			}
			if want, wantWait := undisturbed.Allow(key); ok != want || wait != wantWait {
				rt.Fatalf("%t, %s; without peeks %t, %s", ok, wait, want, wantWait)
			}
			if after, _ := peeked.Peek(key); ok && after != left-1 {
				rt.Fatalf("%d left after one of %d", after, left)
			}
			switch rapid.IntRange(0, 3).Draw(rt, "pause") {
			case 1:
				c.advance(time.Duration(rapid.Int64Range(0, int64(per)).Draw(rt, "length")))
			case 2:
				c.advance(next) // to the very instant that was told
			}
		}
		if peeked.Len() != undisturbed.Len() || peeked.Evictions() != undisturbed.Evictions() {
			rt.Fatal("peeks left something behind")
		}
	})
}

// away is a ledger that cannot be asked.
type away struct{ ratelimit.Ledger }

func (away) Lease(context.Context, []ratelimit.Ask, []ratelimit.Grant) error {
	return errors.New("away")
}

func (away) Peek(ctx context.Context, _ ratelimit.Ask) (ratelimit.Grant, error) {
	<-ctx.Done()
	return ratelimit.Grant{}, ctx.Err()
}

// Peek falls back where Decide does, and waits no longer.
func TestPeekWhileTheLedgerIsAway(t *testing.T) {
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: away{}, Timeout: time.Millisecond, Local: memory.New(memory.Options{})})
	ask := asking(limit("minute", 1, time.Minute))
	if _, err := l.Peek(t.Context(), ask); err == nil {
		t.Error("a strict plan was answered")
	}
	ask.Open = true
	for _, want := range []bool{true, false} {
		for range 3 {
			if d, err := l.Peek(t.Context(), ask); err != nil || d.Allowed != want || d.Degraded != ratelimit.DegradedLocal {
				t.Fatalf("%+v, %v; want allowed %t", d, err, want)
			}
		}
		if d, err := l.Decide(t.Context(), ask, nil); err != nil || d.Allowed != want {
			t.Fatalf("%+v, %v; want allowed %t", d, err, want)
		}
	}
	if n := l.Degraded(); n != 2 {
		t.Errorf("%d decisions counted: a peek is none", n)
	}
}
