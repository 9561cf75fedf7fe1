package memory

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keygate/ratelimit"
)

// Whatever the interleaving, N goroutines get exactly the quota, and an
// organization's budget is one for all its keys.
func TestConcurrentTakes(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := New(Options{Now: func() time.Time { return now }})
	var taken [5]atomic.Int64
	var all atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 400 {
				k := (g + i) % len(taken)
				a := takeAsk(1, ratelimit.Limit{Name: "minute", Holder: string(rune('a' + k)), Quota: 150, Per: time.Minute}, shared("org", 500, time.Hour))
				if i%10 == 0 {
					peek(t, l, a.Limits...)
				}
				n := ask(t, l, a).Taken
				taken[k].Add(n)
				all.Add(n)
			}
		})
	}
	wg.Wait()
	if n := all.Load(); n != 500 {
		t.Errorf("%d admitted, want the organization's 500", n)
	}
	for k := range taken {
		if n := taken[k].Load(); n > 150 {
			t.Errorf("key %d: %d admitted of 150", k, n)
		}
	}
	if n := l.Holders(); n != len(taken)+1 {
		t.Errorf("%d holders", n)
	}
}
