package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// post is a ledger to which corrections may get lost, and back.
type post struct {
	*memory.Ledger
	mu        sync.Mutex
	lose, cut bool
	sent      int // corrections
	calls     int
}

func (p *post) Settle(ctx context.Context, rs []ratelimit.Reservation, errs []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += len(rs)
	p.calls++
	if !p.lose {
		p.Ledger.Settle(ctx, rs, errs)
	}
	for i := range errs {
		if p.lose || p.cut {
			errs[i] = errors.New("lost on the way or back")
		}
	}
}

func (p *post) set(lose, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose, p.cut = lose, cut
}

func (p *post) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// settled runs a test with a gate's side of the corrections.
func settled(t *testing.T, run func(t *testing.T, p *post, l *ratelimit.Limiter, s *ratelimit.Settling)) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{Ledger: memory.New(memory.Options{})}
		s := ratelimit.NewSettling(p, "rep_1", time.Now)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { s.Run(ctx); close(done) }()
		run(t, p, ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: p}), s)
		cancel()
		<-done
	})
}

func hourly(key string) *ratelimit.Ask {
	return &ratelimit.Ask{Organization: "org_a", Key: key, Cost: 10, Corrected: true, Limits: []ratelimit.Limit{
		{Name: "hour", Holder: key, Quota: 1000, Per: time.Hour}, {Name: "org", Holder: "org_a", Quota: 2000, Per: time.Hour, Shared: true},
	}}
}

func remaining(t *testing.T, p *post, ask *ratelimit.Ask) (own, org int64) {
	t.Helper()
	g, err := p.Peek(t.Context(), *ask)
	if err != nil {
		t.Fatal(err)
	}
	return g.Limits[0].Remaining, g.Limits[1].Remaining
}

// What requests came to is in the ledger within two seconds, for all of a time in
// one call for each key, and one for what they share.
func TestSettling(t *testing.T) {
	settled(t, func(t *testing.T, p *post, l *ratelimit.Limiter, s *ratelimit.Settling) {
		for i := range 20 {
			ask := hourly(fmt.Sprint("key_", i%2))
			d, err := l.Decide(t.Context(), ask, nil)
			if err != nil || !d.Allowed || d.At.IsZero() {
				t.Fatalf("%+v, %v", d, err)
			}
			s.Add(ask, &d, 3)
		}
		time.Sleep(2 * time.Second)
		if own, org := remaining(t, p, hourly("key_0")); own != 970 || org != 1940 || p.count() != 3 {
			t.Errorf("%d and %d left after %d calls", own, org, p.count())
		}
		// Exactly as much as reserved is no correction, and more is charged.
		ask := hourly("key_0")
		for _, actual := range []int64{10, 25} {
			d, err := l.Decide(t.Context(), ask, nil)
			if err != nil {
				t.Fatal(err)
			}
			s.Add(ask, &d, actual)
		}
		time.Sleep(2 * time.Second)
		if own, org := remaining(t, p, ask); own != 935 || org != 1905 || p.count() != 5 {
			t.Errorf("%d and %d left after %d calls", own, org, p.count())
		}
		// A series that the ledger has forgotten goes on under another name, and what
		// was settled is not settled again.
		time.Sleep(ratelimit.SettleWithin - 90*time.Second)
		d, err := l.Decide(t.Context(), ask, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.set(true, false) // what it knows expires while nothing arrives
		s.Add(ask, &d, 30)
		time.Sleep(2 * time.Minute)
		p.set(false, false)
		time.Sleep(40 * time.Minute)
		sent := p.count()
		if own, _ := remaining(t, p, ask); own != 905 {
			t.Errorf("%d left", own)
		}
		time.Sleep(time.Minute)
		if p.count() != sent {
			t.Errorf("%d calls more", p.count()-sent)
		}
		// What this replica decided by itself is not in the ledger.
		s.Add(ask, &ratelimit.Decision{Allowed: true}, 1)
		time.Sleep(2 * time.Second)
		if p.count() != sent {
			t.Errorf("%d calls more", p.count()-sent)
		}
	})
}

// A ledger remembers 32 series of a holder. With one for each key, an organization whose
// keys share a limit had used them up with the 33rd: what further keys had reserved too
// much stayed charged, and what some had cost too much was never charged.
func TestSettlingOfManyKeysThatShare(t *testing.T) {
	settled(t, func(t *testing.T, p *post, l *ratelimit.Limiter, s *ratelimit.Settling) {
		const keys, rounds = 50, 3
		time.Sleep(500 * time.Millisecond) // between two rounds of the corrections
		for n := int64(1); n <= rounds; n++ {
			for i := range keys {
				ask := hourly(fmt.Sprint("key_", i))
				d, err := l.Decide(t.Context(), ask, nil)
				if err != nil || !d.Allowed {
					t.Fatalf("%+v, %v", d, err)
				}
				s.Add(ask, &d, 3)
			}
			time.Sleep(2 * time.Second)
			for i := range keys {
				if own, org := remaining(t, p, hourly(fmt.Sprint("key_", i))); own != 1000-3*n || org != 2000-3*keys*n {
					t.Fatalf("key %d: %d and %d left after %d requests of each of %d keys", i, own, org, n, keys)
				}
			}
		}
		if p.calls > rounds || p.count() != rounds*(keys+1) {
			t.Errorf("%d corrections in %d calls", p.count(), p.calls)
		}
	})
}

// Whatever is lost on the way: when all has arrived, the ledger holds what the
// requests cost, and never less in between.
func TestSettlingUnderFaults(t *testing.T) {
	for seed := range uint64(20) {
		settled(t, func(t *testing.T, p *post, l *ratelimit.Limiter, s *ratelimit.Settling) {
			r := rand.New(rand.NewPCG(seed, 2))
			cost := map[string]int64{}
			check := func(exact bool) {
				t.Helper()
				for _, key := range []string{"key_0", "key_1"} {
					own, org := remaining(t, p, hourly(key))
					if own > 1000-cost[key] || org > 2000-cost["key_0"]-cost["key_1"] || exact && (own != 1000-cost[key] || org != 2000-cost["key_0"]-cost["key_1"]) {
						t.Fatalf("seed %d: %d and %d left, %v spent", seed, own, org, cost)
					}
				}
			}
			for range 60 {
				switch r.IntN(4) {
				case 0, 1:
					ask := hourly(fmt.Sprint("key_", r.IntN(2)))
					d, err := l.Decide(t.Context(), ask, nil)
					if err != nil || !d.Allowed {
						t.Fatalf("%+v, %v", d, err)
					}
					actual := int64(r.IntN(11))
					cost[ask.Key] += actual
					s.Add(ask, &d, actual)
				case 2:
					p.set(r.IntN(2) == 0, r.IntN(2) == 0)
				case 3:
					time.Sleep(time.Duration(r.IntN(2500)) * time.Millisecond)
				}
				check(false)
			}
			p.set(false, false)
			time.Sleep(3 * time.Second)
			check(true)
		})
	}
}

// The last corrections of a process reach the ledger at its end.
func TestSettlingAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{Ledger: memory.New(memory.Options{})}
		s := ratelimit.NewSettling(p, "rep_1", time.Now)
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: p})
		d, err := l.Decide(t.Context(), hourly("key_0"), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(hourly("key_0"), &d, 1)
		for range 10_001 { // more than wait at once
			s.Add(hourly("key_1"), &ratelimit.Decision{At: time.Now()}, 11)
		}
		if s.Dropped() != 2 {
			t.Errorf("%d dropped", s.Dropped())
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Run(ctx)
		s.Run(ctx) // what one time left over
		if own, _ := remaining(t, p, hourly("key_0")); own != 999 {
			t.Errorf("%d left", own)
		}
	})
}
