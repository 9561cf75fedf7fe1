package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What net/http cannot send to an HTTP/2 upstream was taken for a failure of that
// upstream: with a handshake of WebSocket, or a header longer than it takes, anybody
// could open its breaker and keep all others out.
func TestWhatCannotBeSentIsNotTheUpstreams(t *testing.T) {
	h2c := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Config.MaxHeaderBytes = 4 << 10
	h2c.Start()
	t.Cleanup(h2c.Close)
	g, secret := front(t, []string{strings.Replace(h2c.URL, "http:", "h2c:", 1)}, "breaker: { requests: 5, failures: 1% }")
	g.get("GET", "/x", secret) // net/http knows only then what the upstream takes
	for range 20 {
		a := g.get("GET", "/x", secret, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		if a.StatusCode != 200 || string(a.body) != "HTTP/2.0" {
			t.Fatalf("a handshake of WebSocket: %d %s", a.StatusCode, a.body)
		}
		if a := g.get("GET", "/x", secret, "X-Long", strings.Repeat("x", 10<<10)); a.StatusCode != 431 || a.problem.Error != "Request header too large" {
			t.Fatalf("a header that is too long: %d %s", a.StatusCode, a.body)
		}
		if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
			t.Fatalf("another client's request: %d %s", a.StatusCode, a.body)
		}
	}
}

// The one request that a half-open breaker lets through may be one whose body never
// ends. It kept the upstream closed to everybody for as long as its client liked.
func TestSlowBodyDoesNotHoldTheBreaker(t *testing.T) {
	u := newUpstream(t)
	var well atomic.Bool
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			w.WriteHeader(503)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}
	g, secret := front(t, []string{u.URL}, "breaker: { requests: 5, failures: 50%, open: 1s }")
	for range 5 {
		g.get("GET", "/x", secret)
	}
	if a := g.get("GET", "/x", secret); a.problem.Error != "Upstream unavailable" {
		t.Fatalf("the breaker is not open: %d %s", a.StatusCode, a.body)
	}
	well.Store(true)
	slow, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	time.Sleep(1100 * time.Millisecond) // it is half open then, and the next request the one that may try
	_, _ = io.WriteString(slow, "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+secret+"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
	waitFor(t, func() bool {
		return g.metric(fmt.Sprintf("keygate_upstream_requests_in_flight{target=%q,upstream=%q}", u.URL, "api")) == 1
	})
	waitFor(t, func() bool { return g.get("GET", "/x", secret).StatusCode == 200 })
	_, _ = io.WriteString(slow, "0\r\n\r\n")
	if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
		t.Errorf("it is not closed again: %d %s", a.StatusCode, a.body)
	}
}
