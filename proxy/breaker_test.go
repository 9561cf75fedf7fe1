package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBreaker: an upstream that fails is left alone; whoever asks is told when to
// come back; one request finds out whether it is well again.
func TestBreaker(t *testing.T) {
	targets, urls := newTargets(t, 1)
	g, secret := front(t, urls, "breaker: { requests: 10, failures: 50%, open: 1s }")
	targets[0].status.Store(503)
	for range 10 {
		g.get("GET", "/x", secret)
	}
	a := g.get("GET", "/x", secret)
	if a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" || a.problem.Error != "Upstream unavailable" || targets[0].requests.Load() != 10 {
		t.Errorf("%d %s after %d requests; Retry-After %q", a.StatusCode, a.body, targets[0].requests.Load(), a.Header.Get("Retry-After"))
	}
	if g.metric(`keygate_upstream_breaker_open{upstream="api"}`) != 1 || g.metric(`keygate_upstream_refused_total{reason="breaker",upstream="api"}`) != 1 {
		t.Error("the metrics do not tell")
	}
	targets[0].status.Store(0)
	waitFor(t, func() bool { return g.get("GET", "/x", secret).StatusCode == 200 })
	if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
		t.Errorf("it is not closed again: %d %s", a.StatusCode, a.body)
	}
}

// TestClientsDoNotOpenTheBreaker: bodies that nobody can read, bodies that are too
// large, clients that leave. A gateway that counts those against the upstream lets
// any client take it from all others.
func TestClientsDoNotOpenTheBreaker(t *testing.T) {
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}
	other := newUpstream(t)
	g, secret := front(t, []string{u.URL, other.URL}, "breaker: { requests: 5, failures: 1% }", "max_body: 1KiB")
	other.answer = u.answer
	head := "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n"
	for range 20 {
		if res := g.dial(head+"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", false); res.StatusCode != 400 {
			t.Fatalf("a malformed body: %s", res.Status)
		}
		if res := g.dial(head+"Content-Length: 100\r\n\r\nshort", true); res.StatusCode != 400 && res.StatusCode != 499 {
			t.Fatalf("a body that is broken off: %s", res.Status)
		}
		if res := g.dial(head+"Transfer-Encoding: chunked\r\n\r\n800\r\n"+strings.Repeat("x", 0x800)+"\r\n", true); res.StatusCode != 413 {
			t.Fatalf("a body that is too large: %s", res.Status)
		}
		if res := g.dial("GET /slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+secret+"\r\n\r\n", true); res.StatusCode != 499 {
			t.Fatalf("a client that left: %s", res.Status)
		}
	}
	if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	for _, url := range []string{u.URL, other.URL} {
		for _, reason := range []string{"connect", "timeout", "broken", "status"} {
			if n := g.metric(fmt.Sprintf("keygate_upstream_failures_total{reason=%q,target=%q,upstream=%q}", reason, url, "api")); n != 0 {
				t.Errorf("%v failures are blamed on the upstream as %q", n, reason)
			}
		}
	}
}

// TestSlowBodiesAreNotTheUpstreams: a client that sends its body slowly runs into
// the total, or into the patience of the upstream, as often as it likes.
func TestSlowBodiesAreNotTheUpstreams(t *testing.T) {
	impatient := newRawServer(t, func(c *rawConn) {
		_, _ = c.in.ReadString('\n') // the first line of the request
		c.reset()
	})
	patient := newUpstream(t)
	patient.answer = func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	for name, c := range map[string]struct {
		target string
		status int
	}{"total": {patient.URL, 408}, "upstream gives up": {"http://" + impatient.addr(), 502}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, secret := front(t, []string{c.target}, "breaker: { requests: 3, failures: 1% }", "timeouts: { total: 400ms }")
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					if status := g.slowly(secret, name == "total"); status != c.status {
						t.Errorf("%d, want %d", status, c.status)
					}
				})
			}
			all.Wait()
			if g.metric(`keygate_upstream_breaker_open{upstream="api"}`) != 0 {
				t.Error("the breaker is open")
			}
			for _, reason := range []string{"connect", "timeout", "broken", "status"} {
				if n := g.metric(fmt.Sprintf("keygate_upstream_failures_total{reason=%q,target=%q,upstream=%q}", reason, c.target, "api")); n != 0 {
					t.Errorf("%v failures are blamed on the upstream as %q", n, reason)
				}
			}
		})
	}
}

// slowly posts a body that does not arrive, or whose next bytes take a while.
func (g *gate) slowly(secret string, stops bool) (status int) {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100000\r\n\r\n%s", secret, strings.Repeat("x", 5000))
	if !stops {
		time.Sleep(150 * time.Millisecond)
		fmt.Fprint(conn, "x")
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode
}

// TestMaxConcurrent: what is over the bound is refused at once, and a place is free
// again when an answer has ended, however it ended.
func TestMaxConcurrent(t *testing.T) {
	release := make(chan struct{})
	var under, most atomic.Int64
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
	}
	g, secret := front(t, []string{u.URL}, "max_concurrent: 3", "retries: 0")
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() { g.get("GET", []string{"/x", "/abort", "/y"}[i], secret) })
	}
	waitFor(t, func() bool { return under.Load() == 3 })
	a := g.get("GET", "/x", secret)
	if a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" || a.problem.Error != "Upstream unavailable" {
		t.Errorf("%d %s; Retry-After %q", a.StatusCode, a.body, a.Header.Get("Retry-After"))
	}
	if g.metric(`keygate_upstream_refused_total{reason="max_concurrent",upstream="api"}`) != 1 {
		t.Error("the metric does not tell")
	}
	close(release)
	all.Wait()
	for range 10 {
		if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
			t.Fatalf("a place was not given back: %d %s", a.StatusCode, a.body)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d requests were under way at a time", most.Load())
	}
}
