package ratelimit_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// The hot path allocates nothing, nor does a denial from memory.
func TestHotPathAllocatesNothing(t *testing.T) {
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{})})
	many := asking(limit("minute", 1_000_000_000, time.Minute), limit("hour", 10_000_000_000, time.Hour))
	states := make([]ratelimit.State, 0, 8)
	decide := func(ask *ratelimit.Ask) {
		if _, err := l.Decide(context.Background(), ask, states); err != nil {
			t.Error(err)
		}
	}
	for range 100_000 {
		decide(many)
	}
	// Renewals do allocate: there are far fewer of them than requests.
	if n := testing.AllocsPerRun(20_000, func() { decide(many) }); n != 0 {
		t.Errorf("%v allocations for each decision from a lease", n)
	}
	few := of("few", 1)
	decide(few)
	decide(few)
	if n := testing.AllocsPerRun(1000, func() { decide(few) }); n != 0 || l.Stats().Remembered.Load() < 1000 {
		t.Errorf("%v allocations for each remembered denial, %d remembered", n, l.Stats().Remembered.Load())
	}
}

// BenchmarkHot is a decision from a lease beside the SHA-256 of its key, which each
// request costs anyway: the least of many short batches of both in turn, since other
// processes take the processor away at any time.
func BenchmarkHot(b *testing.B) {
	const batch = 1000
	key := []byte("kg_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXY")
	for limits := 1; limits <= 4; limits++ {
		b.Run(fmt.Sprintf("limits=%d", limits), func(b *testing.B) {
			l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{})})
			ask := asking([]ratelimit.Limit{
				limit("minute", 1_000_000_000, time.Minute), limit("hour", ratelimit.MaxQuota, time.Hour),
				limit("day", ratelimit.MaxQuota, 24*time.Hour), limit("week", ratelimit.MaxQuota, 7*24*time.Hour),
			}[:limits]...)
			ask.Handle = new(ratelimit.Handle)
			states := make([]ratelimit.State, 0, 4)
			decision, hash := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				for range batch {
					if d, err := l.Decide(context.Background(), ask, states); err != nil || !d.Allowed {
						b.Fatal(err)
					}
				}
				decided := time.Now()
				for range batch {
					sha256.Sum256(key)
				}
				decision, hash = min(decision, decided.Sub(start)), min(hash, time.Since(decided))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(decision.Nanoseconds())/batch, "ns/decision")
			b.ReportMetric(float64(hash.Nanoseconds())/batch, "ns/hash")
		})
	}
}

// The memory of a key in use, with a lease of a plan with two limits; the
// ledger's own is not counted.
func TestMemoryPerKey(t *testing.T) {
	keys := 20_000
	if full {
		keys = 100_000
	}
	const most = 100 << 20 / 100_000
	ledger := constant{}
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger})
	asks := make([]*ratelimit.Ask, keys)
	for i := range asks {
		asks[i] = of(fmt.Sprintf("key_%026d", i), 1_000_000)
		asks[i].Limits = append(asks[i].Limits, ratelimit.Limit{Name: "hour", Holder: asks[i].Key, Quota: 1_000_000, Per: time.Hour})
	}
	before := heapInUse()
	for _, ask := range asks {
		for range 12 {
			if d, err := l.Decide(t.Context(), ask, nil); err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
		}
	}
	each := (heapInUse() - before) / uint64(keys)
	t.Logf("%d bytes for each of %d keys", each, l.Holders())
	if l.Stats().Taken.Load() >= uint64(12*keys) || l.Holders() != keys {
		t.Fatal("the test tests nothing: there are no leases")
	}
	if each > most {
		t.Errorf("more than %d bytes", most)
	}
	runtime.KeepAlive(asks)
	runtime.KeepAlive(l)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// constant is a ledger that keeps nothing and gives all.
type constant struct{ ratelimit.Ledger }

func (constant) Lease(_ context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	for i := range asks {
		a, states := &asks[i], grants[i].Limits[:0]
		for k := range a.Limits {
			states = append(states, ratelimit.State{Name: a.Limits[k].Name, Quota: a.Limits[k].Quota, Remaining: 1000, NextUnit: time.Second})
		}
		grants[i] = ratelimit.Grant{
			Status: ratelimit.Granted, Taken: a.Take, Admit: ratelimit.CallTimeout, Leased: a.Seen + a.Want, TTL: 2 * time.Second,
			Now: time.Now(), Limits: states,
		}
	}
	return nil
}
