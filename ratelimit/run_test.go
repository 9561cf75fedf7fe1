package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// Many goroutines spend from the same leases while their limits change, leases
// are given back and taken again: in the end every unit is accounted for.
func TestEveryUnitIsAccountedFor(t *testing.T) {
	const quota = 400_000
	ledger := memory.New(memory.Options{})
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger})
	ctx, stop := context.WithCancel(t.Context())
	var running, all sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	var admitted, denied atomic.Int64
	long := limit("long", quota, time.Hour)
	other := limit("other", quota, 2*time.Hour)
	for worker := range 8 {
		all.Go(func() {
			states := make([]ratelimit.State, 0, 4)
			for i := range 20_000 {
				ask := asking(long, other)
				if i/500%8 == worker { // the policy of this moment lacks the other limit
					ask = asking(long)
				}
				ask.Cost = int64(1 + i%3)
				d, err := l.Decide(t.Context(), ask, states)
				switch {
				case err != nil:
					t.Error(err)
					return
				case d.Allowed:
					admitted.Add(ask.Cost)
				default:
					denied.Add(1)
				}
			}
		})
	}
	all.Wait()
	stop()
	running.Wait()
	p, err := ledger.Peek(t.Context(), costing(asking(long)))
	if err != nil {
		t.Fatal(err)
	}
	s := l.Stats()
	if spent := quota - p.Limits[0].Remaining; spent != admitted.Load()+int64(s.Burnt.Load()) {
		t.Errorf("%d charged, %d admitted and %d burnt", spent, admitted.Load(), s.Burnt.Load())
	}
	if denied.Load() > 0 {
		t.Errorf("%d denied of a budget that is not used up", denied.Load())
	}
	t.Logf("%d admitted with %d trips; %d leases given back", admitted.Load(), s.Trips.Load(), s.Released.Load())
}

// gated is a ledger whose calls wait to be let through.
type gated struct {
	ratelimit.Ledger
	mu    sync.Mutex
	calls [][]ratelimit.Ask
	pass  chan struct{}
	fails func(asks []ratelimit.Ask) error
}

func (g *gated) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	g.mu.Lock()
	g.calls = append(g.calls, append([]ratelimit.Ask(nil), asks...))
	fails := g.fails
	g.mu.Unlock()
	if g.pass != nil {
		select {
		case <-g.pass:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fails != nil {
		if err := fails(asks); err != nil {
			return err
		}
	}
	return g.Ledger.Lease(ctx, asks, grants)
}

func (g *gated) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.calls)
}

// of is an ask about a key of its own.
func of(key string, quota int64) *ratelimit.Ask {
	return &ratelimit.Ask{Organization: "org_" + key, Key: key, Limits: []ratelimit.Limit{{Name: "minute", Holder: key, Quota: quota, Per: time.Minute}}}
}

// What waits at the same moment leaves together: requests of one key in one ask,
// those of several keys in one call, and never more than a few calls at a time.
func TestWhatWaitsLeavesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy, keys, each = 8, 100, 3
		g := &gated{Ledger: memory.New(memory.Options{}), pass: make(chan struct{})}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g})
		var all sync.WaitGroup
		decide := func(key string) {
			all.Go(func() {
				if d, err := l.Decide(t.Context(), of(key, 30), nil); err != nil || !d.Allowed {
					t.Errorf("%s: %+v, %v", key, d, err)
				}
			})
		}
		for i := range busy {
			decide(fmt.Sprint("busy", i))
			synctest.Wait()
		}
		for i := range keys * each {
			decide(fmt.Sprint("key", i%keys))
		}
		synctest.Wait()
		if n := g.count(); n != busy {
			t.Fatalf("%d calls under way, want %d", n, busy)
		}
		close(g.pass)
		all.Wait()
		synctest.Wait()
		asks, most := 0, 0
		for _, call := range g.calls[busy:] {
			asks, most = asks+len(call), max(most, len(call))
		}
		if asks != keys || most < 50 || g.count() > busy+10 {
			t.Errorf("%d asks of %d keys in %d calls, the largest of %d", asks, keys, g.count()-busy, most)
		}
	})
}

// A key whose stored value is damaged fails the call that it is in, but not twice
// those that travelled with it.
func TestDamagedKeyTravelsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		damaged := errors.New("damaged")
		g := &gated{Ledger: memory.New(memory.Options{}), fails: func(asks []ratelimit.Ask) error {
			for i := range asks {
				if asks[i].Key == "bad" {
					return damaged
				}
			}
			return nil
		}}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g})
		round := func() (failed int) {
			g.pass = make(chan struct{})
			var all sync.WaitGroup
			var n atomic.Int64
			for i := range 8 { // keep all calls busy, so that the others wait
				all.Go(func() { _, _ = l.Decide(t.Context(), of(fmt.Sprint("busy", i), 30), nil) })
				synctest.Wait()
			}
			for _, key := range []string{"a", "bad", "b", "c"} {
				all.Go(func() {
					if _, err := l.Decide(t.Context(), of(key, 30), nil); err != nil && key != "bad" {
						n.Add(1)
					}
				})
			}
			synctest.Wait()
			close(g.pass)
			all.Wait()
			return int(n.Load())
		}
		if n := round(); n != 3 {
			t.Fatalf("the test tests nothing: %d others failed with it", n)
		}
		for range 3 {
			if n := round(); n != 0 {
				t.Fatalf("%d others failed with it again", n)
			}
		}
	})
}

// A replica that ends gives back what it holds, and waits no longer than it must.
func TestRunGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Ledger: memory.New(memory.Options{})}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g, Timeout: time.Second})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { l.Run(ctx); close(ended) }()
		admitted := int64(0)
		for range 100 {
			for _, key := range []string{"a", "b"} {
				if d, err := l.Decide(t.Context(), of(key, 1000), nil); err != nil || !d.Allowed {
					t.Fatal(err)
				}
			}
			admitted++
			time.Sleep(10 * time.Millisecond)
		}
		stop()
		<-ended
		for _, key := range []string{"a", "b"} {
			p, err := g.Peek(t.Context(), costing(of(key, 1000)))
			if err != nil || p.Limits[0].Remaining != 1000-admitted {
				t.Errorf("%s: %d left after %d, %v", key, p.Limits[0].Remaining, admitted, err)
			}
		}
		calls := g.count()
		if d, err := l.Decide(t.Context(), of("a", 1000), nil); err != nil || !d.Allowed {
			t.Error("a request that came late was not decided")
		}
		if ask := g.calls[calls][0]; ask.Session != "" {
			t.Errorf("leased after the end: %+v", ask)
		}
	})
}

// Where the ledger does not answer, the end of the process waits for two seconds.
func TestRunEndsWithoutTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Ledger: memory.New(memory.Options{})}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { l.Run(ctx); close(ended) }()
		for range 50 {
			_, _ = l.Decide(t.Context(), of("a", 1000), nil)
			time.Sleep(10 * time.Millisecond)
		}
		g.mu.Lock()
		g.pass = make(chan struct{}) // nobody passes
		g.mu.Unlock()
		began := time.Now()
		stop()
		<-ended
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
		close(g.pass)
	})
}

// A lease in use is kept alive, an idle key forgotten.
func TestRunLooksAfterLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Ledger: memory.New(memory.Options{})}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { l.Run(ctx); close(ended) }()
		for range 1000 {
			if d, err := l.Decide(t.Context(), of("a", 100_000), nil); err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		s := l.Stats()
		if n := s.Taken.Load(); n > 40 || s.Burnt.Load() != 0 {
			t.Errorf("%d of 1000 were taken one by one, %d burnt", n, s.Burnt.Load())
		}
		if n := s.Trips.Load(); n > 60 {
			t.Errorf("%d trips for 1000 requests in 10 s", n)
		}
		time.Sleep(30 * time.Second)
		if n := l.Holders(); n != 0 {
			t.Errorf("%d keys are held after half a minute", n)
		}
		p, _ := g.Peek(t.Context(), costing(of("a", 100_000)))
		if p.Limits[0].Remaining != 99_000 {
			t.Errorf("%d left", p.Limits[0].Remaining)
		}
		stop()
		<-ended
	})
}

// While the ledger is away a strict plan spends what it has leased, then fails,
// and is itself again as soon as the ledger is.
func TestLeasesOutlastAShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		g := &gated{Ledger: memory.New(memory.Options{}), fails: func([]ratelimit.Ask) error {
			if away.Load() {
				return errAway
			}
			return nil
		}}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g, Timeout: ratelimit.CallTimeout})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.Run(ctx)
		second := func() (admitted, failed int) {
			for range 100 {
				if d, err := l.Decide(t.Context(), of("a", 100_000), nil); err != nil {
					failed++
				} else if d.Allowed {
					admitted++
				}
				time.Sleep(10 * time.Millisecond)
			}
			return admitted, failed
		}
		second()
		second()
		away.Store(true)
		if admitted, _ := second(); admitted < 50 {
			t.Errorf("%d of 100 were admitted from the lease", admitted)
		}
		second()
		if admitted, failed := second(); failed != 100 {
			t.Errorf("%d admitted, %d failed two seconds later", admitted, failed)
		}
		away.Store(false)
		if _, failed := second(); failed != 0 {
			t.Errorf("%d failed when the ledger was back", failed)
		}
	})
}

// A table that is full costs a trip for each request, and nothing else.
func TestFullTable(t *testing.T) {
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{}), Holders: 2})
	for i := range 6 {
		if d, err := l.Decide(t.Context(), of(fmt.Sprint(i%3), 2), nil); err != nil || !d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if d, _ := l.Decide(t.Context(), of("2", 2), nil); d.Allowed || l.Holders() != 2 || l.Stats().Crowded.Load() != 3 {
		t.Errorf("%+v, %d keys held, %d crowded", d, l.Holders(), l.Stats().Crowded.Load())
	}
}

// A key of which nothing that can be answered was ever asked is forgotten like
// any other.
func TestRunForgetsMalformedAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{})})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go l.Run(ctx)
		if _, err := l.Decide(t.Context(), of("a", 0), nil); err == nil {
			t.Error("a quota of 0 was decided on")
		}
		if time.Sleep(time.Minute); l.Holders() != 0 {
			t.Errorf("%d keys are held", l.Holders())
		}
	})
}

// A client that goes away leaves at once; what was booked for it is burnt.
func TestClientGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Ledger: memory.New(memory.Options{}), pass: make(chan struct{})}
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: g})
		go func() { _, _ = l.Decide(t.Context(), of("a", 30), nil) }() // makes the way for both
		synctest.Wait()
		go func() { _, _ = l.Decide(t.Context(), of("b", 30), nil) }()
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := l.Decide(ctx, of("b", 30), nil)
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(g.pass)
		synctest.Wait()
		if p, _ := g.Peek(t.Context(), costing(of("b", 30))); p.Limits[0].Remaining != 29 {
			t.Errorf("%d left: a request that was not sent was booked", p.Limits[0].Remaining)
		}
	})
}

// costing is an ask for a request of cost 1, as a ledger wants it.
func costing(a *ratelimit.Ask) ratelimit.Ask {
	a.Cost = 1
	return *a
}
