package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keygate/internal/keys"
)

// upstreamPolicy has one upstream, whose fields stand for FIELDS, behind one route,
// whose fields stand for ROUTE.
const upstreamPolicy = `
version: 1
upstreams: { api: { targets: [TARGETS] FIELDS } }
plans: { free: { limits: [] } }
routes:
  - { match: "/{path...}", permission: any ROUTE }
`

// front is a gate before some targets; settings are more fields of the upstream,
// and of the route.
func front(t testing.TB, targets []string, settings ...string) (g *gate, secret string) {
	t.Helper()
	g = newGate(t, gateOptions{policy: frontPolicy(targets, settings...)})
	_, secret = g.key(keys.NewKey{})
	return g, secret
}

func frontPolicy(targets []string, settings ...string) string {
	fields := [2]string{}
	for i, s := range settings {
		if s != "" {
			fields[i] = ", " + s
		}
	}
	quoted := make([]string, len(targets))
	for i, target := range targets {
		quoted[i] = fmt.Sprintf("%q", target)
	}
	return strings.NewReplacer("TARGETS", strings.Join(quoted, ", "), "FIELDS", fields[0], "ROUTE", fields[1]).Replace(upstreamPolicy)
}

// do sends a request with a body, which may be empty for none.
func (g *gate) do(method, target, secret, body string, headers ...string) answer {
	g.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(context.Background(), method, g.url+target, reader)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return g.send(r)
}

// closed is an address where nobody listens.
func closed(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestWhatIsSentTwice: a server takes the second request of a connection and closes
// without a word. Nobody knows whether it acted on it. net/http sends such a
// request again on another connection if it has no body and carries an
// Idempotency-Key, whatever its method: orders were placed twice. On the other
// hand what is idempotent must not fail because a connection was stale.
func TestWhatIsSentTwice(t *testing.T) {
	for _, c := range []struct {
		method, body, header string
		status               int
		deliveries           int
	}{
		{"GET", "", "", 200, 2},
		{"HEAD", "", "", 200, 2},
		{"OPTIONS", "", "", 200, 2},
		{"DELETE", "", "", 200, 2},
		{"PUT", "", "", 200, 2},
		{"PUT", "a small body", "", 200, 2},
		{"PUT", strings.Repeat("x", 1<<20), "", 502, 1}, // too large to be kept
		{"POST", "", "", 502, 1},
		{"POST", "", "Idempotency-Key", 502, 1},
		{"POST", "", "X-Idempotency-Key", 502, 1},
		{"POST", "an order", "", 502, 1},
		{"POST", "an order", "Idempotency-Key", 502, 1},
		{"PATCH", "a change", "Idempotency-Key", 502, 1},
		{"PATCH", "", "Idempotency-Key", 502, 1},
	} {
		t.Run(fmt.Sprintf("%s %d %s", c.method, len(c.body), c.header), func(t *testing.T) {
			s := newRawServer(t, func(conn *rawConn) {
				for n := 1; ; n++ {
					r := conn.read()
					if r == nil || conn.number == 1 && n == 2 {
						return
					}
					if r.Method == "HEAD" {
						conn.answer("HTTP/1.1 200 OK\r\n\r\n")
						continue
					}
					conn.answer(good)
				}
			})
			g, secret := front(t, []string{"http://" + s.addr()})
			if a := g.get("GET", "/first", secret); a.StatusCode != 200 { // so that there is a connection to use again
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
			var headers []string
			if c.header != "" {
				headers = []string{c.header, "order-7"}
			}
			a := g.do(c.method, "/x", secret, c.body, headers...)
			got := s.deliveries()[1:]
			if a.StatusCode != c.status || len(got) != c.deliveries {
				t.Errorf("%d after the deliveries %q; want %d after %d", a.StatusCode, got, c.status, c.deliveries)
			}
		})
	}
}

// The name under which the guard hides the key from net/http is the same to the
// upstream.
func TestIdempotencyKeyReachesTheUpstream(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	for _, method := range []string{"POST", "PUT", "GET"} {
		g.do(method, "/any/x", secret, "body", "Idempotency-Key", "order-7", "X-Idempotency-Key", "order-8")
		r, _, _ := g.upstream.seen()
		if r.Header.Get("Idempotency-Key") != "order-7" || r.Header.Get("X-Idempotency-Key") != "order-8" {
			t.Errorf("%s: the upstream saw %v", method, r.Header)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		g.do(method, "/any/x", secret, "")
		if r, _, _ := g.upstream.seen(); r.Header["Idempotency-Key"] != nil || r.ContentLength != 0 {
			t.Errorf("%s: the upstream saw a key that nobody sent, or a body: %v, length %d", method, r.Header, r.ContentLength)
		}
	}
}

// TestResetStreams: an HTTP/2 server may say that it did not look at a request;
// then it is sent again, also a POST. With PROTOCOL_ERROR it says nothing of the
// kind, and net/http sends even that again (golang/go#47635).
func TestResetStreams(t *testing.T) {
	for _, c := range []struct {
		method, body string
		code         byte
		status       int
		deliveries   int
	}{
		{"GET", "", refusedStream, 200, 2},
		{"POST", "", refusedStream, 200, 2},
		{"POST", "an order", refusedStream, 200, 2},
		{"GET", "", protocolError, 200, 2},
		{"PUT", "a thing", protocolError, 200, 2},
		{"POST", "", protocolError, 502, 1},
		{"POST", "an order", protocolError, 502, 1},
	} {
		t.Run(fmt.Sprintf("%s %q %d", c.method, c.body, c.code), func(t *testing.T) {
			s := newRawServer(t, func(conn *rawConn) {
				conn.http2(func(stream uint32) {
					if len(conn.server.deliveries()) == 1 {
						conn.resetStream(stream, c.code)
						return
					}
					conn.answer2(stream)
				})
			})
			g, secret := front(t, []string{"h2c://" + s.addr()})
			a := g.do(c.method, "/x", secret, c.body)
			if got := len(s.deliveries()); a.StatusCode != c.status || got != c.deliveries {
				t.Errorf("%d %s after %d deliveries; want %d after %d", a.StatusCode, a.body, got, c.status, c.deliveries)
			}
		})
	}
}

// TestStaleConnections: a server that closes every connection after its answer,
// without having said so, meets a gate that has just taken it for the next request.
func TestStaleConnections(t *testing.T) {
	s := newRawServer(t, func(c *rawConn) {
		if c.read() != nil {
			c.answer(good)
		}
	})
	g, secret := front(t, []string{"http://" + s.addr()})
	for i := range 300 {
		method := []string{"GET", "PUT", "DELETE"}[i%3]
		body := []string{"", "a small body"}[i%2]
		if a := g.do(method, "/x", secret, body); a.StatusCode != 200 {
			t.Fatalf("request %d, %s: %d %s", i, method, a.StatusCode, a.body)
		}
	}
}

// TestDeadTarget: what was never sent may be sent to another target, whatever it is.
func TestDeadTarget(t *testing.T) {
	good := newUpstream(t)
	g, secret := front(t, []string{"http://" + closed(t), good.URL})
	for i := range 40 {
		large := strings.Repeat("x", 1<<20)
		for _, c := range [][2]string{{"POST", "an order"}, {"POST", large}, {"GET", ""}, {"PATCH", ""}} {
			if a := g.do(c[0], "/x", secret, c[1]); a.StatusCode != 200 {
				t.Fatalf("request %d: %d %s", i, a.StatusCode, a.body)
			}
		}
	}
	if _, _, n := good.seen(); n != 160 {
		t.Errorf("the living target got %d requests, want 160", n)
	}
	if g.metric(`keygate_upstream_retries_total{result="sent",upstream="api"}`) == 0 {
		t.Error("no retry is counted")
	}
}

// TestRetryBudget: an upstream that fails every request gets a fifth more of them
// and not twice as many.
func TestRetryBudget(t *testing.T) {
	s := newRawServer(t, func(c *rawConn) { c.read(); c.reset() })
	g, secret := front(t, []string{"http://" + s.addr()}, "", "retries: 5")
	const requests = 200
	for range requests {
		if a := g.get("GET", "/x", secret); a.StatusCode != 502 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	if got := len(s.deliveries()); got <= requests || got > requests+requests/5+10 {
		t.Errorf("%d deliveries of %d requests", got, requests)
	}
	if g.metric(`keygate_upstream_retries_total{result="no_budget",upstream="api"}`) == 0 {
		t.Error("nothing says that the budget was spent")
	}
}

// TestRetriesOff: a route can do without.
func TestRetriesOff(t *testing.T) {
	s := newRawServer(t, func(c *rawConn) { c.read(); c.reset() })
	g, secret := front(t, []string{"http://" + s.addr()}, "", "retries: 0")
	if a := g.get("GET", "/x", secret); a.StatusCode != 502 || !slices.Equal(s.deliveries(), []string{"GET"}) {
		t.Errorf("%d after %q", a.StatusCode, s.deliveries())
	}
}
