package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"keygate/proxy/route"
)

var errTest = errors.New("it failed")

func newTest(t interface {
	Helper()
	Fatal(...any)
}, n int, change func(*Options),
) *Upstream {
	t.Helper()
	o := Options{Name: "test", Timeouts: route.DefaultTimeouts()}
	for i := range n {
		o.Targets = append(o.Targets, &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(9000+i)})
	}
	if change != nil {
		change(&o)
	}
	u, err := New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Whatever targets fail, ejection leaves at least half of them, and a request
// always gets a target: a well one that it has not tried, if there is one.
func TestPick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "targets")
		now := time.Unix(1_900_000_000, 0)
		u := newTest(t, n, func(o *Options) { o.Balance = Balance(rapid.IntRange(0, 1).Draw(t, "balance")) })
		u.now = func() time.Time { return now }
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			x := u.targets[rapid.IntRange(0, n-1).Draw(t, "target")]
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				x.answered(u.clock)
			case 1:
				x.ill.Store(rapid.Bool().Draw(t, "ill"))
			case 2:
				now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
			default:
				u.failed(x, brokenOff, errTest)
			}
			out := 0
			for _, x := range u.targets {
				if x.until.Load() > u.clock() {
					out++
				}
				if left := x.until.Load() - u.clock(); left > int64(ejectMost) {
					t.Fatalf("target %d is out for %v", x.index, time.Duration(left))
				}
			}
			if 2*out > n {
				t.Fatalf("%d of %d targets are ejected", out, n)
			}
			tried := uint64(rapid.IntRange(0, 1<<n-1).Draw(t, "tried"))
			got := u.pick(tried)
			best := slices.ContainsFunc(u.targets, func(x *target) bool { return x.well(u.clock()) && tried&(1<<x.index) == 0 })
			if n > 1 && best && (!got.well(u.clock()) || tried&(1<<got.index) != 0) {
				t.Fatalf("target %d was chosen over a better one", got.index)
			}
		}
	})
}

func TestEjectionGrows(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	u := newTest(t, 2, nil)
	u.now = func() time.Time { return now }
	x := u.targets[0]
	for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 2 * time.Minute, 2 * time.Minute} {
		for range ejectAfter {
			u.failed(x, timedOut, errTest)
		}
		if got := time.Duration(x.until.Load() - u.clock()); got != want {
			t.Fatalf("ejected for %v, want %v", got, want)
		}
		now = now.Add(want)
	}
	x.answered(u.clock)
	for range ejectAfter {
		u.failed(x, timedOut, errTest)
	}
	if got := time.Duration(x.until.Load() - u.clock()); got != ejectFor {
		t.Errorf("after it was well it is ejected for %v", got)
	}
}

// Retries are never more than the share of the requests and the ten besides.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b budget
		percent := rapid.IntRange(0, 100).Draw(t, "percent")
		b.init(percent)
		requests, spent := 0, 0
		for range rapid.IntRange(0, 2000).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "request") {
				b.earn()
				requests++
			} else if b.spend() {
				spent++
			}
			if spent*100 > requests*percent+mostSaved || percent == 0 && spent > 0 {
				t.Fatalf("%d retries of %d requests at %d%%", spent, requests, percent)
			}
		}
	})
}

// TestNamesThatMove: connections that are kept would lead to an address that is
// gone for as long as they are used.
func TestNamesThatMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var answer []netip.Addr
		var fails error
		lookUp := func(_ context.Context, host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			if host != "api.internal" {
				t.Errorf("it looks for %q", host)
			}
			return slices.Clone(answer), fails
		}
		moved := 0
		ctx, cancel := context.WithCancel(t.Context())
		x := newTarget(0, &url.URL{Scheme: "http", Host: "api.internal:8080"})
		go x.follow(ctx, lookUp, func() { moved++ })
		a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		for i, step := range []struct {
			answer []netip.Addr
			err    error
			moved  int
		}{
			{[]netip.Addr{a, b}, nil, 0}, // what is known first is no news
			{[]netip.Addr{b, a}, nil, 0}, // nor is another order
			{nil, errors.New("no such host"), 0},
			{nil, nil, 0},
			{[]netip.Addr{a, b}, nil, 0},
			{[]netip.Addr{a}, nil, 1},
			{[]netip.Addr{b}, nil, 2},
			{[]netip.Addr{b}, nil, 2},
		} {
			mu.Lock()
			answer, fails = step.answer, step.err
			mu.Unlock()
			if i == 0 {
				time.Sleep(time.Second)
			} else {
				time.Sleep(lookUpEvery)
			}
			synctest.Wait()
			if moved != step.moved {
				t.Fatalf("step %d: it moved %d times, want %d", i, moved, step.moved)
			}
		}
		cancel()
	})
	for host, want := range map[string]string{"127.0.0.1:80": "", "[::1]:80": "", "localhost:80": "localhost", "api": "api"} {
		if got := newTarget(0, &url.URL{Scheme: "http", Host: host}).name; got != want {
			t.Errorf("%s: the name to look up is %q", host, got)
		}
	}
}

// When a name has moved what is kept ends at once, and what is under way ends with
// its request.
func TestRenew(t *testing.T) {
	var mu sync.Mutex
	states := make(map[net.Conn]http.ConnState)
	release := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		states[c] = state
	}
	s.Start()
	defer s.Close()
	open := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, state := range states {
			if state != http.StateClosed {
				n++
			}
		}
		return n
	}
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	u := newTest(t, 1, func(o *Options) { o.Targets = []*url.URL{at} })
	defer u.Close()
	ask := func(path string) (*Call, *http.Response) {
		t.Helper()
		c := &Call{URL: &url.URL{Path: path}, Rewrite: &route.Rewrite{}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(u.Client(u.options.Timeouts), r)
		if err != nil {
			t.Fatal(err)
		}
		return c, res
	}
	finish := func(c *Call, res *http.Response) {
		t.Helper()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "done" {
			t.Errorf("%q, %v", body, err)
		}
		_ = res.Body.Close()
		c.End()
	}
	slow, underWay := ask("/slow")
	finish(ask("/"))
	if n := open(); n != 2 {
		t.Fatalf("%d connections, want one under way and one that is kept", n)
	}
	u.renew(0)()
	for open() != 1 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	finish(slow, underWay)
	for open() != 0 {
		time.Sleep(time.Millisecond)
	}
	finish(ask("/"))
}

// An upstream that is closed looks at nothing any more, and one that never started
// has nothing to close.
func TestCloseLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{HTTPCheck, TCPCheck} {
		u := newTest(t, 1, func(o *Options) {
			o.Targets = append(o.Targets, &url.URL{Scheme: "http", Host: "localhost:" + port})
			o.Health = &Health{Type: kind, Path: "/", Every: time.Millisecond}
		})
		u.Start(zap.NewNop())
		for kind == HTTPCheck && !u.targets[1].ill.Load() { // 404
			time.Sleep(time.Millisecond)
		}
		u.Close()
		u.Close()
	}
	newTest(t, 1, nil).Close()
}

// What makes an upstream another one.
func TestSame(t *testing.T) {
	plain := newTest(t, 2, nil)
	if !plain.Same(newTest(t, 2, nil)) {
		t.Error("two equal upstreams are not the same")
	}
	for name, other := range map[string]*Upstream{
		"targets": newTest(t, 3, nil),
		"name":    newTest(t, 2, func(o *Options) { o.Name = "other" }),
		"health":  newTest(t, 2, func(o *Options) { o.Health = &Health{Type: TCPCheck, Every: time.Second} }),
		"breaker": newTest(t, 2, func(o *Options) { b := DefaultBreaker(); o.Breaker = &b }),
		"budget":  newTest(t, 2, func(o *Options) { o.RetryBudget = 1 }),
	} {
		if plain.Same(other) || other.Same(plain) {
			t.Errorf("another %s and still the same", name)
		}
	}
	routed, err := New(plain.options, []route.Timeouts{{Total: time.Second}})
	if err != nil || plain.Same(routed) || routed.Same(plain) {
		t.Errorf("other time-outs of routes and still the same, %v", err)
	}
}
