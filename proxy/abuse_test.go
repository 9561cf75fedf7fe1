package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

// raw sends bytes as they are and reads one answer.
func (g *gate) raw(request string) *http.Response {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

// TestMalformedBodyIsTheClients: a body that breaks the rules of chunking used
// to be answered 502, as if the API were at fault.
func TestMalformedBodyIsTheClients(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	_, secret := g.key(keys.NewKey{})
	for name, body := range map[string]string{
		"negative length": "-3\r\nabc\r\n0\r\n\r\n",
		"no length":       "zz\r\nabc\r\n0\r\n\r\n",
		"wrong end":       "3\r\nabcd\r\n0\r\n\r\n",
	} {
		res := g.raw(fmt.Sprintf("POST /any/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n%s", secret, body))
		if res.StatusCode != 400 {
			t.Errorf("%s: %d, want 400", name, res.StatusCode)
		}
	}
}

// TestMethodCannotBeOverridden: a GET that an upstream takes for a DELETE would
// have been authorized as a GET.
func TestMethodCannotBeOverridden(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{Permissions: []string{"orders:read"}})
	for _, header := range []string{"X-HTTP-Method-Override", "X-Http-Method", "x-method-override"} {
		a := g.get("GET", "/orders/1", secret, http.CanonicalHeaderKey(header), "DELETE")
		if a.StatusCode != 400 || a.problem.Error != "Ambiguous request" {
			t.Errorf("%s: %d %s", header, a.StatusCode, a.body)
		}
	}
	// A spelling that only some servers understand goes no further than here.
	if a := g.get("GET", "/orders/1", secret, "X_HTTP_Method_Override", "DELETE"); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	r, _, _ := g.upstream.seen()
	for name := range r.Header {
		if strings.EqualFold(name, "X_HTTP_Method_Override") {
			t.Errorf("it reached the upstream: %v", r.Header)
		}
	}
}

// TestTraceAndConnectAreForwardedForNobody: TRACE shows the client what only the
// upstream may see, CONNECT is a tunnel past every rule.
func TestTraceAndConnectAreForwardedForNobody(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	for _, method := range []string{"TRACE", "CONNECT"} {
		res := g.raw(method + " /any/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n\r\n")
		if res.StatusCode != 405 || res.Header.Get("Allow") == "" {
			t.Errorf("%s: %d, Allow %q", method, res.StatusCode, res.Header.Get("Allow"))
		}
	}
	if _, _, n := g.upstream.seen(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestPanicIsLogged: what went wrong inside must be found in the log at its
// default level, and the client must not take half an answer for a whole one.
func TestPanicIsLogged(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	g.broken.panics.Store(true)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", g.url+"/any/x", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	if res, err := http.DefaultTransport.RoundTrip(r); err == nil {
		t.Fatalf("answered %d", res.StatusCode)
	}
	waitFor(t, func() bool { return g.logs.FilterMessage("keygate panicked").Len() == 1 })
}
