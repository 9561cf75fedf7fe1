package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// air is a shared ledger to which messages of a replica, and back, may be lost.
type air struct {
	ratelimit.Ledger
	mu            sync.Mutex
	loseAsk, lose bool
	calls         int
}

func (a *air) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	a.mu.Lock()
	loseAsk, lose := a.loseAsk, a.lose
	a.calls++
	a.mu.Unlock()
	if loseAsk {
		return errors.New("lost")
	}
	if err := a.Ledger.Lease(ctx, asks, grants); err != nil || !lose {
		return err
	}
	clear(grants)
	return errors.New("answer lost")
}

func (a *air) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

func (a *air) set(loseAsk, lose bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loseAsk, a.lose = loseAsk, lose
}

// tower is one replica with what flies from it.
type tower struct {
	*ratelimit.InFlight
	air *air

	mu     sync.Mutex
	flying map[*ratelimit.Flight]bool
}

func newTower(t *testing.T, l ratelimit.Ledger, name string) *tower {
	a := &air{Ledger: l}
	w := &tower{InFlight: ratelimit.NewInFlight(a, 0, name, time.Now), air: a, flying: map[*ratelimit.Flight]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func atOnce(n int64) *ratelimit.Ask {
	return &ratelimit.Ask{Organization: "org_a", Key: "key_a", Cost: 1, Limits: []ratelimit.Limit{{
		Name: ratelimit.ConcurrentName, Holder: "key_a", Quota: n, Concurrent: true,
	}}}
}

// begin starts a request; one that is cut off flies no more.
func (w *tower) begin(ask *ratelimit.Ask) (ratelimit.Decision, error) {
	var fl *ratelimit.Flight
	fl, d, err := w.Begin(context.Background(), ask, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.flying, fl)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if fl != nil {
		w.flying[fl] = true
	}
	return d, err
}

func (w *tower) end() {
	w.mu.Lock()
	var fl *ratelimit.Flight
	for fl = range w.flying {
		break
	}
	delete(w.flying, fl)
	w.mu.Unlock()
	if fl != nil {
		fl.End()
		fl.End() // twice is once
	}
}

func (w *tower) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.flying)
}

// Over two replicas exactly so many fly, a refusal says to try again shortly, and
// what ends makes room on the other replica within moments.
func TestInFlightOverReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memory.New(memory.Options{})
		a, b := newTower(t, l, "a"), newTower(t, l, "b")
		for range 3 {
			if d, err := a.begin(atOnce(5)); err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			if b.count() < 2 {
				if d, err := b.begin(atOnce(5)); err != nil || !d.Allowed {
					t.Fatalf("%+v, %v", d, err)
				}
			}
		}
		for _, w := range []*tower{a, b} {
			d, err := w.begin(atOnce(5))
			if err != nil || d.Allowed || d.RetryAfter != time.Second || len(d.Limits) != 1 || !d.Limits[0].Violated {
				t.Fatalf("%+v, %v", d, err)
			}
		}
		a.end()
		time.Sleep(150 * time.Millisecond)
		if d, err := b.begin(atOnce(5)); err != nil || !d.Allowed {
			t.Fatalf("%+v, %v", d, err)
		}
		// For as long as it takes, and one call in five seconds.
		before := a.air.count()
		time.Sleep(10 * time.Minute)
		if n := a.air.count() - before; n > 130 || a.Cut()+b.Cut() > 0 {
			t.Errorf("%d calls in ten minutes, %d cut off", n, a.Cut()+b.Cut())
		}
		for a.count()+b.count() > 0 {
			a.end()
			b.end()
		}
		time.Sleep(time.Second)
		if n := l.Holders(); n != 0 {
			t.Errorf("%d holders are left", n)
		}
	})
}

// A replica that the ledger does not hear any more cuts off what flies before the
// others may take its places.
func TestInFlightIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memory.New(memory.Options{})
		a, b := newTower(t, l, "a"), newTower(t, l, "b")
		for range 3 {
			if _, err := a.begin(atOnce(3)); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		a.air.set(true, true)
		for a.count() > 0 {
			if d, _ := b.begin(atOnce(3)); d.Allowed {
				t.Fatalf("4 in flight after %s", time.Since(began))
			}
			time.Sleep(50 * time.Millisecond)
		}
		if n := time.Since(began); n < ratelimit.ConcurrentLease-time.Second || n > ratelimit.ConcurrentLease || a.Cut() != 3 {
			t.Errorf("%d cut off after %s", a.Cut(), n)
		}
		if d, err := a.begin(atOnce(3)); err == nil || d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
		time.Sleep(ratelimit.ConcurrentLease)
		if d, err := b.begin(atOnce(3)); err != nil || !d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// An open plan is bounded by each replica alone while the ledger is away.
func TestInFlightOfAnOpenPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTower(t, memory.New(memory.Options{}), "a")
		w.air.set(true, true)
		ask := atOnce(2)
		ask.Open = true
		for i := range 3 {
			d, err := w.begin(ask)
			if err != nil || d.Allowed != (i < 2) || d.Allowed && d.Degraded != ratelimit.DegradedLocal {
				t.Errorf("%+v, %v", d, err)
			}
		}
		w.end()
		if d, _ := w.begin(ask); !d.Allowed {
			t.Errorf("%+v", d)
		}
		time.Sleep(time.Minute)
		if w.Cut() > 0 || w.Degraded() != 4 {
			t.Errorf("%d cut off, %d by itself", w.Cut(), w.Degraded())
		}
	})
}

// A crowd that finds the ledger away is not kept waiting one after the other.
func TestInFlightCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crowd := ratelimit.NewInFlight(&slowAir{}, 50*time.Millisecond, "b", time.Now)
		began := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if fl, _, err := crowd.Begin(context.Background(), atOnce(3), func() {}); err == nil || fl != nil {
					t.Error("no error")
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 110*time.Millisecond {
			t.Errorf("waited %s", took)
		}
	})
}

// A ledger that does not answer is waited for once for each key, again and again. With
// many keys that takes long, and still all that flies is cut off before its lease ends.
func TestInFlightOfManyKeysIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &fallingSilent{Ledger: memory.New(memory.Options{})}
		f := ratelimit.NewInFlight(silent, ratelimit.CallTimeout, "a", time.Now)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		time.Sleep(350 * time.Millisecond) // so that a round is in the middle of its calls at the end
		began := time.Now()
		var mu sync.Mutex
		var cuts []time.Duration
		const keys = 200
		for i := range keys {
			ask := atOnce(1)
			ask.Key = fmt.Sprint("key_", i)
			ask.Limits[0].Holder = ask.Key
			if fl, _, err := f.Begin(ctx, ask, func() {
				mu.Lock()
				defer mu.Unlock()
				cuts = append(cuts, time.Since(began))
			}); fl == nil {
				t.Fatal(err)
			}
		}
		silent.now.Store(true)
		time.Sleep(2 * ratelimit.ConcurrentLease)
		mu.Lock()
		defer mu.Unlock()
		if late := slices.Max(cuts); len(cuts) != keys || late > ratelimit.ConcurrentLease {
			t.Errorf("%d of %d were cut off, the last after %s", len(cuts), keys, late)
		}
		stop()
		<-done
	})
}

// fallingSilent answers until it does not.
type fallingSilent struct {
	ratelimit.Ledger
	now atomic.Bool
}

func (l *fallingSilent) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	if l.now.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return l.Ledger.Lease(ctx, asks, grants)
}

// slowAir never answers.
type slowAir struct{ ratelimit.Ledger }

func (a *slowAir) Lease(ctx context.Context, _ []ratelimit.Ask, _ []ratelimit.Grant) error {
	<-ctx.Done()
	return ctx.Err()
}

// Whatever is lost, never more fly than the limit.
func TestInFlightUnderFaults(t *testing.T) {
	sum := 0
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			l := memory.New(memory.Options{})
			towers := []*tower{newTower(t, l, "a"), newTower(t, l, "b"), newTower(t, l, "c")}
			limit, began := int64(1+r.IntN(6)), 0
			for range 600 {
				w := towers[r.IntN(len(towers))]
				switch r.IntN(10) {
				case 0, 1, 2, 3:
					if d, _ := w.begin(atOnce(limit)); d.Allowed {
						began++
					}
				case 4, 5, 6:
					w.end()
				case 7:
					w.air.set(r.IntN(3) == 0, r.IntN(3) == 0)
				case 8:
					time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				case 9:
					time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
				}
				synctest.Wait()
				n := 0
				for _, w := range towers {
					n += w.count()
				}
				if int64(n) > limit {
					t.Fatalf("seed %d: %d in flight of %d", seed, n, limit)
				}
			}
			sum += began
		})
	}
	if sum < 500 {
		t.Errorf("only %d requests began", sum)
	}
}
