package ratelimit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// Requests whose cost shows later are charged in the end what they came to, and
// never less in between, beside others that are decided from leases.
func TestLeasesAndCorrections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := memory.New(memory.Options{})
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger})
		settling := ratelimit.NewSettling(ledger, "here", time.Now)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.Run(ctx) })
		running.Go(func() { settling.Run(ctx) })
		const quota, reserved, actual, plain = 100_000, 5, 2, 3
		left := func() int64 {
			p, err := ledger.Peek(t.Context(), costing(of("a", quota)))
			if err != nil {
				t.Fatal(err)
			}
			return p.Limits[0].Remaining
		}
		n := int64(0)
		decide := func(cost int64, corrected bool) (*ratelimit.Ask, ratelimit.Decision) {
			ask := of("a", quota)
			ask.Cost, ask.Corrected = cost, corrected
			d, err := l.Decide(t.Context(), ask, nil)
			if err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			return ask, d
		}
		for range 500 {
			ask, d := decide(reserved, true)
			settling.Add(ask, &d, actual)
			decide(plain, false)
			n++
			time.Sleep(20 * time.Millisecond)
			if left() > quota-(actual+plain)*n {
				t.Fatalf("%d left after %d times %d", left(), n, actual+plain)
			}
		}
		time.Sleep(10 * time.Second)
		if got := left(); got != quota-(actual+plain)*n {
			t.Errorf("%d left, want %d", got, quota-(actual+plain)*n)
		}
		stop()
		running.Wait()
		if taken := int64(l.Stats().Taken.Load()); taken < reserved*n || taken > reserved*n+plain*n/4 {
			t.Errorf("%d units were taken one by one, of which %d had to be", taken, reserved*n)
		}
	})
}
