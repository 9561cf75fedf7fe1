package ratelimit_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
)

func newBuckets(t testing.TB, requests, most int, per time.Duration) (*ratelimit.Buckets, *clock) {
	c := newClock()
	b, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: requests, Per: per, Max: most, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return b, c
}

func TestBuckets(t *testing.T) {
	b, c := newBuckets(t, 60, 0, time.Minute)
	for i := range 60 {
		if ok, _ := b.Allow("a"); !ok {
			t.Fatalf("request %d of the burst refused", i)
		}
	}
	ok, after := b.Allow("a")
	if ok || after < time.Second || after > time.Second+10*time.Microsecond {
		t.Fatalf("61st: %v, %s", ok, after)
	}
	if ok, _ = b.Allow("b"); !ok {
		t.Fatal("another key refused")
	}
	c.advance(after)
	if ok, _ = b.Allow("a"); !ok {
		t.Fatal("refused after waiting as told")
	}
	c.advance(-time.Hour) // a clock set back makes no tokens
	if ok, _ = b.Allow("a"); ok {
		t.Fatal("admitted by a clock set back")
	}
	c.advance(time.Hour)
	if ok, _ = b.Allow("a"); ok {
		t.Fatal("admitted by a clock set back and forth")
	}
}

func TestBucketOptions(t *testing.T) {
	for _, o := range []ratelimit.BucketOptions{
		{},
		{Requests: 1},
		{Per: time.Second},
		{Requests: -1, Per: time.Second},
		{Requests: 1, Per: time.Microsecond},
		{Requests: 1, Per: time.Second, Max: -1},
	} {
		if _, err := ratelimit.NewBuckets(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
}

// The wait is true for every rate, and refusals cost nothing.
func TestBucketsRetryAfterIsTrue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		per := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(ratelimit.MaxWindow)).Draw(rt, "per"))
		b, c := newBuckets(t, rapid.IntRange(1, 1000).Draw(rt, "requests"), 0, per)
		for range 100 {
			if ok, after := b.Allow("a"); ok {
				c.advance(time.Duration(rapid.Int64Range(0, int64(per)/1000+1).Draw(rt, "pause")))
			} else {
				if after <= 0 || after > per+per/1_000_000+time.Millisecond {
					rt.Fatalf("wait %s", after)
				}
				c.advance(after / 2)
				if early, _ := b.Allow("a"); early {
					continue // waits are rounded up, which shows where they are tiny
				}
				c.advance(after - after/2)
				if ok, again := b.Allow("a"); !ok {
					rt.Fatalf("refused after waiting %s, wait another %s", after, again)
				}
			}
		}
	})
}

// A full table forgets full buckets first: nobody who spent gets a fresh burst.
func TestFullTableForgetsIdleBucketsFirst(t *testing.T) {
	b, c := newBuckets(t, 10, 100, 10*time.Second)
	for range 10 {
		b.Allow("abuser")
	}
	for i := range 5000 {
		b.Allow(fmt.Sprint(i)) // each full again after 1 s
		if i%90 == 89 {
			c.advance(1100 * time.Millisecond)
			b.Allow("abuser") // as soon as there is a token
		}
	}
	if b.Evictions() != 0 || b.Len() > 100 {
		t.Fatalf("%d evictions, %d buckets", b.Evictions(), b.Len())
	}
	// 55 rounds of 1.1 s, one token spent in each: five are left, not ten.
	for i := range 6 {
		if ok, _ := b.Allow("abuser"); ok == (i == 5) {
			t.Fatalf("the abuser got %d more", i)
		}
	}
	c.advance(time.Minute)
	for i := range 100 {
		b.Allow(fmt.Sprint("x", i%2))
	}
	if b.Len() > 100 {
		t.Fatalf("%d buckets", b.Len())
	}
	for i := range 100 {
		b.Allow(fmt.Sprint("y", i))
		c.advance(2 * time.Second)
	}
	if b.Len() > 3 {
		t.Fatalf("%d buckets where one is in use at a time", b.Len())
	}
}

// An attacker with any number of addresses gets no more than Max addresses would
// get, uses no more memory, and locks nobody out for long.
func TestManyAddresses(t *testing.T) {
	const most, burst = 50, 10
	b, c := newBuckets(t, burst, most, 10*time.Second) // one token a second each
	admitted, waits := 0, 0
	var longest time.Duration
	next := c.now()
	for i := range 100_000 {
		c.advance(time.Millisecond)
		if ok, _ := b.Allow(fmt.Sprint("evil", i)); ok {
			admitted++
		}
		if c.now().Before(next) {
			continue
		}
		ok, after := b.Allow("victim")
		if ok {
			longest = max(longest, time.Duration(waits)*time.Millisecond)
			waits = 0
			next = c.now().Add(5 * time.Second)
		} else if waits++; after > time.Second+time.Millisecond {
			t.Fatalf("told to wait %s, a token comes every second", after)
		}
	}
	if b.Len() != most || b.Evictions() == 0 {
		t.Fatalf("%d buckets, %d evictions", b.Len(), b.Evictions())
	}
	if bound := most*burst + most*100; admitted > bound {
		t.Fatalf("%d admitted, %d addresses would get %d", admitted, most, bound)
	}
	// 1,000 requests a second compete for 50 tokens a second.
	if longest > 2*time.Second || waits > 2000 {
		t.Fatalf("the victim waited %s, and %d ms at last", longest, waits)
	}
}

func TestBucketsConcurrently(t *testing.T) {
	b, _ := newBuckets(t, 100, 4, time.Hour)
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				if ok, _ := b.Allow(fmt.Sprint(i % 3)); ok {
					mu.Lock()
					admitted++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if admitted != 300 {
		t.Fatalf("%d admitted, want 3 bursts of 100", admitted)
	}
}

func BenchmarkBuckets(b *testing.B) {
	t, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: 1_000_000, Per: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]string, 60_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("192.0.%d.%d", i/256, i%256)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		t.Allow(keys[i])
		if i++; i == len(keys) {
			i = 0
		}
	}
}
