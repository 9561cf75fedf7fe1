package memory

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"keygate/ratelimit"
)

func benchmarkTake(b *testing.B, l *Ledger, asks []ratelimit.Ask) {
	b.Helper()
	grants := make([]ratelimit.Grant, 1)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := l.Lease(nilContext{}, asks[i:i+1], grants); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(asks) {
			i = 0
		}
	}
}

// One key that is always in use: every take adds a charge and merges one.
func BenchmarkTakeHot(b *testing.B) {
	for n := 1; n <= 4; n++ {
		b.Run(fmt.Sprintf("limits=%d", n), func(b *testing.B) {
			limits := []ratelimit.Limit{
				key("minute", ratelimit.MaxQuota, time.Minute), shared("org", ratelimit.MaxQuota, time.Minute),
				key("hour", ratelimit.MaxQuota, time.Hour), key("day", ratelimit.MaxQuota, 24*time.Hour),
			}
			benchmarkTake(b, New(Options{}), []ratelimit.Ask{takeAsk(1, limits[:n]...)})
		})
	}
}

// A key over its limit.
func BenchmarkTakeDenied(b *testing.B) {
	l := New(Options{})
	a := []ratelimit.Ask{takeAsk(1, key("hour", 64, time.Hour))}
	grants := make([]ratelimit.Grant, 1)
	for range 64 {
		_ = l.Lease(nilContext{}, a, grants)
		time.Sleep(2 * time.Microsecond)
	}
	benchmarkTake(b, l, a)
}

func keys(n int) []ratelimit.Ask {
	asks := make([]ratelimit.Ask, n)
	for i := range asks {
		holder := fmt.Sprintf("key_%036d", i)
		asks[i] = ratelimit.Ask{
			Organization: fmt.Sprintf("org_%036d", i/4), Key: holder, Take: 1, Cost: 1,
			Limits: []ratelimit.Limit{{Name: "minute", Holder: holder, Quota: ratelimit.MaxQuota, Per: time.Hour}},
		}
	}
	return asks
}

func BenchmarkTake100kHolders(b *testing.B) {
	l, asks := New(Options{}), keys(100_000)
	for i := range asks {
		_ = l.Lease(nilContext{}, asks[i:i+1], make([]ratelimit.Grant, 1))
	}
	benchmarkTake(b, l, asks)
}

func BenchmarkTakeParallel(b *testing.B) {
	l := New(Options{})
	asks := keys(1000)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		grants := make([]ratelimit.Grant, 1)
		for i := 0; p.Next(); i = (i + 1) % len(asks) {
			_ = l.Lease(nilContext{}, asks[i:i+1], grants)
		}
	})
}

// Bytes of a holder with one limit and one charge, and with a full array.
func BenchmarkHolderBytes(b *testing.B) {
	for _, charges := range []int{1, 64} {
		b.Run(fmt.Sprintf("charges=%d", charges), func(b *testing.B) {
			const holders = 50_000
			asks := keys(holders)
			for b.Loop() {
				c := newClock()
				before := heap()
				l := New(Options{Now: c.now})
				grants := make([]ratelimit.Grant, 1)
				for range charges {
					for i := range asks {
						_ = l.Lease(nilContext{}, asks[i:i+1], grants)
					}
					c.advance(time.Microsecond)
				}
				b.ReportMetric(float64(heap()-before)/holders, "B/holder")
				runtime.KeepAlive(l)
			}
			runtime.KeepAlive(asks)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
