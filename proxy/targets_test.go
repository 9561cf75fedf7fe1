package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counted is a target that counts what it answers.
type counted struct {
	*httptest.Server
	requests atomic.Int64
	health   atomic.Int64 // checks
	status   atomic.Int64 // of its answers, 0: 200
	ill      atomic.Bool
}

func newTargets(t testing.TB, n int) (targets []*counted, urls []string) {
	t.Helper()
	for range n {
		c := &counted{}
		c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				c.health.Add(1)
				if c.ill.Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return
			}
			c.requests.Add(1)
			if s := c.status.Load(); s != 0 {
				w.WriteHeader(int(s))
			}
			_, _ = io.WriteString(w, "hello")
		}))
		t.Cleanup(c.Close)
		targets, urls = append(targets, c), append(urls, c.URL)
	}
	return targets, urls
}

func TestRoundRobin(t *testing.T) {
	targets, urls := newTargets(t, 3)
	g, secret := front(t, urls)
	for range 30 {
		g.get("GET", "/x", secret)
	}
	for i, target := range targets {
		if n := target.requests.Load(); n != 10 {
			t.Errorf("target %d got %d of 30 requests", i, n)
		}
	}
}

// TestLeastRequests: the target that is slow gets less.
func TestLeastRequests(t *testing.T) {
	var slow atomic.Int64
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		slow.Add(1)
		<-release
	}))
	t.Cleanup(hanging.Close)
	targets, urls := newTargets(t, 2)
	g, secret := front(t, append(urls, hanging.URL), "balance: least_requests")
	t.Cleanup(func() { close(release) }) // before the gate waits for its requests
	ask := func() {
		r, err := http.NewRequest("GET", g.url+"/x", nil)
		if err != nil {
			panic(err)
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		if res, err := http.DefaultTransport.RoundTrip(r); err == nil {
			_ = res.Body.Close()
		}
	}
	for sent := int64(1); slow.Load() == 0; sent++ { // until one stays where it is
		go ask()
		waitFor(t, func() bool { return slow.Load()+targets[0].requests.Load()+targets[1].requests.Load() == sent })
	}
	for _, url := range urls {
		waitFor(t, func() bool {
			return g.metric(fmt.Sprintf("keygate_upstream_requests_in_flight{target=%q,upstream=%q}", url, "api")) == 0
		})
	}
	before := slow.Load()
	for range 100 {
		g.get("GET", "/x", secret)
	}
	if n := slow.Load() - before; n != 0 {
		t.Errorf("%d of 100 requests went to the target that already has %d", n, before)
	}
}

// TestEjection: a target that fails requests in a row is left alone for a while.
func TestEjection(t *testing.T) {
	targets, urls := newTargets(t, 3)
	g, secret := front(t, urls)
	targets[1].status.Store(503)
	for range 60 {
		g.get("GET", "/x", secret)
	}
	if n := targets[1].requests.Load(); n != 5 {
		t.Errorf("the failing target got %d of 60 requests; it should have been left alone after 5", n)
	}
	up := fmt.Sprintf("keygate_upstream_target_up{target=%q,upstream=%q}", urls[1], "api")
	if g.metric(up) != 0 || g.metric(fmt.Sprintf("keygate_upstream_ejections_total{target=%q,upstream=%q}", urls[1], "api")) != 1 {
		t.Error("the metrics do not tell")
	}
}

// TestEjectionHasABound: when all targets fail it is not the targets. Nor is one's
// own mistake answered with 500, which any client can have as often as it likes.
func TestEjectionHasABound(t *testing.T) {
	for status, want := range map[int64]int{503: 2, 502: 2, 504: 2, 500: 4, 404: 4} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			targets, urls := newTargets(t, 4)
			g, secret := front(t, urls)
			for _, target := range targets {
				target.status.Store(status)
			}
			for range 100 {
				if a := g.get("GET", "/x", secret); a.StatusCode != int(status) {
					t.Fatalf("%d %s", a.StatusCode, a.body)
				}
			}
			up := 0
			for _, url := range urls {
				up += int(g.metric(fmt.Sprintf("keygate_upstream_target_up{target=%q,upstream=%q}", url, "api")))
			}
			if up != want {
				t.Errorf("%d of 4 targets are up, want %d", up, want)
			}
		})
	}
}

// TestHealthChecks: what a check finds takes a target out and puts it back; when
// none is well all are used, because answering nothing at all is no better.
func TestHealthChecks(t *testing.T) {
	targets, urls := newTargets(t, 2)
	g, secret := front(t, urls, "health: { path: /healthz, every: 100ms }")
	up := func(i int) bool {
		return g.metric(fmt.Sprintf("keygate_upstream_target_up{target=%q,upstream=%q}", urls[i], "api")) == 1
	}
	send := func(want ...bool) {
		t.Helper()
		var before [2]int64
		for i := range targets {
			before[i] = targets[i].requests.Load()
		}
		for range 10 {
			if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
		}
		for i, target := range targets {
			if n := target.requests.Load() - before[i]; (n > 0) != want[i] {
				t.Errorf("target %d got %d of 10 requests", i, n)
			}
		}
	}
	targets[0].ill.Store(true)
	waitFor(t, func() bool { return !up(0) })
	send(false, true)
	targets[1].ill.Store(true)
	waitFor(t, func() bool { return !up(1) })
	send(true, true)
	targets[0].ill.Store(false)
	waitFor(t, func() bool { return up(0) })
	send(true, false)
	// Nobody checks for a policy that is no longer in force.
	g.setPolicy(frontPolicy(urls))
	n := targets[0].health.Load()
	time.Sleep(300 * time.Millisecond)
	if now := targets[0].health.Load(); now != n {
		t.Errorf("%d more checks", now-n)
	}
}

// TestOtherChecks: by connection, and by the gRPC health service.
func TestOtherChecks(t *testing.T) {
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		_, urls := newTargets(t, 1)
		dead := "http://" + closed(t)
		g, _ := front(t, []string{urls[0], dead}, "health: { type: tcp, every: 100ms }")
		waitFor(t, func() bool {
			return g.metric(fmt.Sprintf("keygate_upstream_target_up{target=%q,upstream=%q}", dead, "api")) == 0
		})
		if g.metric(fmt.Sprintf("keygate_upstream_target_up{target=%q,upstream=%q}", urls[0], "api")) != 1 {
			t.Error("the living target is out")
		}
	})
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		var status, code atomic.Int32
		status.Store(1)
		var mu sync.Mutex
		var asked string
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			question, _ := io.ReadAll(r.Body)
			mu.Lock()
			asked = r.URL.Path + " " + r.Header.Get("Content-Type") + " " + string(question)
			mu.Unlock()
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, byte(status.Load())})
			w.Header().Set("Grpc-Status", fmt.Sprint(code.Load()))
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		url := strings.Replace(s.URL, "http:", "h2c:", 1)
		g, _ := front(t, []string{url}, "health: { type: grpc, service: pets.Store, every: 100ms }")
		up := func() bool {
			return g.metric(fmt.Sprintf("keygate_upstream_target_up{target=%q,upstream=%q}", url, "api")) == 1
		}
		status.Store(2) // NOT_SERVING
		waitFor(t, func() bool { return !up() })
		status.Store(1)
		waitFor(t, up)
		code.Store(5) // NOT_FOUND: it does not know the service
		waitFor(t, func() bool { return !up() })
		mu.Lock()
		defer mu.Unlock()
		if want := "/grpc.health.v1.Health/Check application/grpc \x00\x00\x00\x00\x0c\x0a\x0apets.Store"; asked != want {
			t.Errorf("it asked %q, want %q", asked, want)
		}
	})
}
