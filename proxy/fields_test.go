package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/keys"
)

// TestMaxBody: refused by what it says of itself before anything is spent, and else
// where it goes too far. The upstream never takes what there is for the whole.
func TestMaxBody(t *testing.T) {
	var whole atomic.Int64
	u := newUpstream(t)
	u.answer = func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	}
	g := newGate(t, gateOptions{policy: `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
routes:
  - { match: "/small/{x...}", permission: any, max_body: 1KiB }
  - { match: "/public", public: { per_address: "1/1m" }, max_body: 1KiB }
`, target: u.URL})
	_, secret := g.key(keys.NewKey{})
	send := func(body io.Reader, length int64) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(context.Background(), "POST", g.url+"/small/x", body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+secret)
		return g.send(r)
	}
	unknown := func(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }
	for _, c := range []struct {
		name   string
		size   int
		length int64
		status int
	}{
		{"as large as it may be", 1024, 1024, 200},
		{"as large as it may be, without a length", 1024, -1, 200},
		{"too large", 1025, 1025, 413},
		{"too large, without a length", 1025, -1, 413},
		{"much too large, without a length", 1 << 20, -1, 413},
	} {
		whole.Store(0)
		a := send(unknown(c.size), c.length)
		if a.StatusCode != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, a.StatusCode, a.body, c.status)
		}
		if c.status == 413 && (a.problem.Error != "Request body too large" || whole.Load() != 0) {
			t.Errorf("%s: %s; the upstream saw %d whole bodies", c.name, a.body, whole.Load())
		}
		if c.length > 1024 && a.Header.Get("RateLimit") != "" {
			t.Errorf("%s: a refusal by length was counted: %q", c.name, a.Header.Get("RateLimit"))
		}
	}
	// Nor is it counted where no key is needed; and who waits for 100 Continue gets
	// the refusal instead of an invitation.
	for range 3 {
		if res := g.dial("POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n", false); res.StatusCode != 413 {
			t.Error(res.Status)
		}
	}
	if a := g.get("GET", "/public", ""); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestRewrite: what is stripped and put before is the same in every spelling of a
// path, and what remains is what the client sent.
func TestRewrite(t *testing.T) {
	g := newGate(t, gateOptions{policy: `
version: 1
upstreams:
  api: { targets: ["UPSTREAM"] }
  base: { targets: ["UPSTREAM/base%20path"] }
routes:
  - { match: "/v1/{x...}", upstream: api, permission: any, rewrite: { strip: /v1 } }
  - { match: "/v2/{x...}", upstream: api, permission: any, rewrite: { strip: /v2, prefix: /internal/two } }
  - { match: "/v3/{x...}", upstream: base, permission: any, rewrite: { strip: /v3, host: api.internal:81 } }
  - { match: "/v4/{x...}", upstream: base, permission: any, rewrite: { prefix: /more, host: "{host}" } }
`})
	_, secret := g.key(keys.NewKey{})
	target := strings.TrimPrefix(g.upstream.URL, "http://")
	client := strings.TrimPrefix(g.url, "http://")
	for _, c := range []struct{ sent, want, host string }{
		{"/v1/orders/7?q=%zz;1&&x", "/orders/7?q=%zz;1&&x", target},
		{"/v1", "/", target},
		{"/v1/", "/", target},
		{"/v1?x", "/?x", target},
		{"/%761/a%2Cb", "/a%2Cb", target},
		{"/%76%31/v1/v1", "/v1/v1", target},
		{"/v1/caf%C3%A9/a%20b/%7Ec", "/caf%C3%A9/a%20b/~c", target},
		{"/v2/orders", "/internal/two/orders", target},
		{"/v2", "/internal/two", target},
		{"/v2/", "/internal/two/", target},
		{"/v3/orders", "/base%20path/orders", "api.internal:81"},
		{"/v3", "/base%20path", "api.internal:81"},
		{"/v4/x,y", "/base%20path/more/v4/x,y", client},
	} {
		if a := g.get("GET", c.sent, secret); a.StatusCode != 200 {
			t.Fatalf("%s: %d %s", c.sent, a.StatusCode, a.body)
		}
		if r, uri, _ := g.upstream.seen(); uri != c.want || r.Host != c.host {
			t.Errorf("%s reached the upstream as %s of %s, want %s of %s", c.sent, uri, r.Host, c.want, c.host)
		}
	}
	if a := g.get("GET", "/v10/x", secret); a.StatusCode != 404 {
		t.Errorf("/v10/x: %d", a.StatusCode)
	}
}

func TestHeaderChanges(t *testing.T) {
	g := newGate(t, gateOptions{policy: `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
routes:
  - match: "/changed"
    permission: any
    request_headers: { set: { X-Tenant: ours, Authorization: Basic dXM= }, add: { x-via: keygate }, remove: [cookie, X-Absent] }
    response_headers: { set: { Cache-Control: no-store }, add: { Vary: X-Tenant }, remove: [Server, X-Powered-By] }
  - { match: "/key", permission: any, forward_key: true }
  - { match: "/plain", permission: any }
`})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "leaky/1.0")
		w.Header().Set("X-Powered-By", "secrets")
		w.Header().Set("Cache-Control", "public")
		w.Header().Set("Vary", "Accept")
	}
	_, secret := g.key(keys.NewKey{})
	for range 3 { // what one request adds must not be there for the next
		a := g.get("GET", "/changed", secret, "X-Tenant", "theirs", "X-Via", "them", "Cookie", "c")
		r, _, _ := g.upstream.seen()
		for name, want := range map[string]string{
			"X-Tenant": "[ours]", "Authorization": "[Basic dXM=]", "X-Via": "[them keygate]", "Cookie": "[]", "X-Absent": "[]",
		} {
			if got := fmt.Sprint(r.Header.Values(name)); got != want {
				t.Errorf("the upstream sees %s: %s, want %s", name, got, want)
			}
		}
		for name, want := range map[string]string{
			"Server": "[]", "X-Powered-By": "[]", "Cache-Control": "[no-store]", "Vary": "[Accept X-Tenant]",
		} {
			if got := fmt.Sprint(a.Header.Values(name)); got != want {
				t.Errorf("the client sees %s: %s, want %s", name, got, want)
			}
		}
	}
	g.get("GET", "/key", secret)
	if r, _, _ := g.upstream.seen(); r.Header.Get("Authorization") != "Bearer "+secret {
		t.Error("the key is not forwarded where the route says so")
	}
	g.get("GET", "/plain", secret)
	if r, _, _ := g.upstream.seen(); r.Header["Authorization"] != nil || r.Header["X-Tenant"] != nil {
		t.Errorf("the upstream sees %v", r.Header)
	}
}

// TestReloadKeepsUpstreams: a reload that leaves an upstream as it is keeps its
// connections; one that changes it lets the requests under way finish, and leaves
// no connection behind.
func TestReloadKeepsUpstreams(t *testing.T) {
	release := make(chan struct{})
	s := newRawServer(t, func(c *rawConn) {
		for {
			r := c.read()
			if r == nil {
				return
			}
			if r.URL.Path == "/stream" {
				c.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
				<-release
				c.answer("1\r\nb\r\n0\r\n\r\n")
				continue
			}
			c.answer(good)
		}
	})
	g, secret := front(t, []string{"http://" + s.addr()})
	must := func() {
		t.Helper()
		if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	must()
	for range 10 {
		g.setPolicy(frontPolicy([]string{"http://" + s.addr()}))
		must()
	}
	if _, ever := s.connections(); ever != 1 {
		t.Errorf("a reload without a change led to %d connections", ever)
	}
	streamed := make(chan string, 1)
	begun := make(chan struct{})
	go func() {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			streamed <- err.Error()
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", secret)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			streamed <- err.Error()
			return
		}
		one := make([]byte, 1)
		_, _ = io.ReadFull(res.Body, one)
		close(begun)
		rest, err := io.ReadAll(res.Body)
		streamed <- fmt.Sprint(string(one)+string(rest), err)
	}()
	<-begun
	for i := range 10 {
		g.setPolicy(frontPolicy([]string{"http://" + s.addr()}, fmt.Sprintf("max_concurrent: %d", 100+i)))
		must()
	}
	close(release)
	if got := <-streamed; got != "ab<nil>" {
		t.Errorf("the stream that was open across the reloads ended as %q", got)
	}
	waitFor(t, func() bool { open, _ := s.connections(); return open == 1 })
	g.proxy.Close()
	waitFor(t, func() bool { open, _ := s.connections(); return open == 0 })
}

// TestReloadsUnderLoad: not one request fails while upstreams come and go.
func TestReloadsUnderLoad(t *testing.T) {
	_, urls := newTargets(t, 2)
	g, secret := front(t, urls)
	stop := make(chan struct{})
	failed := make(chan string, 4)
	var sent atomic.Int64
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					failed <- ""
					return
				default:
				}
				r, err := http.NewRequest("POST", g.url+"/x", strings.NewReader("an order"))
				if err != nil {
					panic(err)
				}
				r.Header.Set("Authorization", "Bearer "+secret)
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil || res.StatusCode != 200 {
					failed <- fmt.Sprint(res, err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				sent.Add(1)
			}
		}()
	}
	for i := range 100 {
		g.setPolicy(frontPolicy(urls[:1+i%2], fmt.Sprintf("max_concurrent: %d", 100+i)))
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	for range 4 {
		if why := <-failed; why != "" {
			t.Error(why)
		}
	}
	if sent.Load() < 100 {
		t.Errorf("only %d requests were sent", sent.Load())
	}
}
