package ratelimit_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// Handles are kept as long as keys are remembered. What is held of a key that is
// no longer used goes all the same.
func TestHandleKeepsNothingOfAForgottenKey(t *testing.T) {
	const n = 5000
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: constant{}})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.Run(ctx)
		asks := make([]*ratelimit.Ask, n)
		for i := range asks {
			asks[i] = of(fmt.Sprintf("key_%026d", i), 100)
			asks[i].Handle = new(ratelimit.Handle)
		}
		before := heapInUse()
		for _, ask := range asks {
			decideTimes(t, l, ask, 12)
		}
		if held := int64(heapInUse()-before) / n; l.Holders() != n || held < 400 {
			t.Fatalf("the test tests nothing: %d bytes of each of %d keys are held", held, l.Holders())
		}
		time.Sleep(time.Minute)
		if left := (int64(heapInUse()) - int64(before)) / n; l.Holders() != 0 || left > 64 {
			t.Errorf("%d bytes of each key are left, and %d keys", left, l.Holders())
		}
		runtime.KeepAlive(asks)
	})
}

// A handle leads to what is held next of a key that was forgotten, and nothing is
// given twice.
func TestHandleLeadsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{})})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.Run(ctx)
		ask, admitted := of("key", 100), 0
		ask.Limits[0].Per, ask.Handle = time.Hour, new(ratelimit.Handle)
		for range 4 {
			admitted += decideTimes(t, l, ask, 30)
			if time.Sleep(time.Minute); l.Holders() != 0 {
				t.Fatal("the key was not forgotten")
			}
		}
		if n := l.Stats().Leased.Load(); admitted != 100 || n == 0 {
			t.Errorf("%d admitted of 100, %d of them from leases", admitted, n)
		}
	})
}

// A handle leads where requests without one go.
func TestHandleLeadsToTheSame(t *testing.T) {
	l, s, _ := newLimiter()
	with, without := of("key", 1000), of("key", 1000)
	with.Handle = new(ratelimit.Handle)
	for i := range 500 {
		ask := with
		if i%2 == 1 {
			ask = without
		}
		if n := decideTimes(t, l, ask, 1); n != 1 {
			t.Fatalf("request %d was refused", i)
		}
	}
	if l.Holders() != 1 || s.calls.Load() > 100 {
		t.Errorf("%d holders, %d calls", l.Holders(), s.calls.Load())
	}
}

func decideTimes(t *testing.T, l *ratelimit.Limiter, ask *ratelimit.Ask, times int) (admitted int) {
	t.Helper()
	for range times {
		d, err := l.Decide(t.Context(), ask, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed {
			admitted++
		}
	}
	return admitted
}
