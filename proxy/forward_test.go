package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/problem"
)

func TestForwardedRequest(t *testing.T) {
	g := newGate(t, gateOptions{})
	org, err := g.store.Organization(context.Background(), keys.DefaultOrganization)
	if err != nil {
		t.Fatal(err)
	}
	key, secret := g.key(keys.NewKey{Permissions: []string{"read:all"}})
	a := g.get("GET", "/any/a%20b/c?q=%zz;1&&x", secret,
		// Every way in which a client could speak as somebody else.
		"X-Keygate-Key-Id", "forged",
		"X_Keygate_Account", "forged",
		"x-keygate_Scopes", "forged",
		"X-KEYGATE-ANYTHING", "forged",
		"X-Request-Id", "theirs",
		"X_Request_Id", "theirs",
		"X-Forwarded-For", "203.0.113.9",
		"X_Forwarded_For", "203.0.113.9",
		"X-Forwarded-Prefix", "/admin",
		"Forwarded", "for=203.0.113.9",
		"X-Original-Url", "/orders",
		"X-Real-Ip", "203.0.113.9",
		"X-Client-Ip", "203.0.113.9",
		"True_Client_Ip", "203.0.113.9",
		"X-Forwarded", "for=203.0.113.9",
		"X-Host", "forged",
		"Proxy", "http://203.0.113.9/",
		"Connection", "X-Keygate-Plan, X-Keygate-Key-Id, Authorization, X-Request-Id",
		"X-Mine", "kept",
	)
	if a.StatusCode != 200 || string(a.body) != "hello" {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	r, uri, _ := g.upstream.seen()
	if uri != "/any/a%20b/c?q=%zz;1&&x" {
		t.Errorf("upstream saw %q", uri)
	}
	id := a.Header.Get("X-Request-Id")
	want := map[string]string{
		"X-Keygate-Key-Id":            key.ID,
		"X-Keygate-Account":           key.Account,
		"X-Keygate-Organization":      org.ID,
		"X-Keygate-Organization-Slug": "default",
		"X-Keygate-Scopes":            "orders:read read:all",
		"X-Keygate-Plan":              "free",
		"X-Request-Id":                id,
		"X-Forwarded-For":             "127.0.0.1",
		"X-Forwarded-Host":            strings.TrimPrefix(g.url, "http://"),
		"X-Forwarded-Proto":           "http",
		"X-Mine":                      "kept",
	}
	for name, value := range want {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, " "), "forged") || strings.Contains(strings.Join(values, " "), "203.0.113.9") || strings.Contains(strings.Join(values, " "), "theirs") {
			t.Errorf("%s: %q reached the upstream", name, values)
		}
	}
	for _, name := range []string{"Authorization", "Forwarded", "X-Original-Url", "X-Real-Ip", "X-Forwarded-Prefix", "X-Keygate-Space"} {
		if r.Header.Get(name) != "" {
			t.Errorf("%s: %q reached the upstream", name, r.Header.Get(name))
		}
	}
	if got := a.Header.Get("RateLimit"); got != `"minute";r=99;t=61` {
		t.Errorf("RateLimit %q", got)
	}
}

func TestSpaceBinding(t *testing.T) {
	g := newGate(t, gateOptions{})
	ctx := context.Background()
	here, err := g.service.CreateSpace(ctx, keys.System, keys.NewSpace{Organization: "default", Slug: "here"})
	if err != nil {
		t.Fatal(err)
	}
	there, err := g.service.CreateSpace(ctx, keys.System, keys.NewSpace{Organization: "default", Slug: "there"})
	if err != nil {
		t.Fatal(err)
	}
	// A viewer at one space only: the ceiling differs from space to space.
	viewer, err := g.service.CreateAccount(ctx, keys.System, keys.NewAccount{Name: "v", Organization: "default", NewGrant: keys.NewGrant{Space: "here", Role: "viewer"}})
	if err != nil {
		t.Fatal(err)
	}
	_, restricted := g.key(keys.NewKey{Space: "here", Permissions: []string{"orders:read"}})
	_, free := g.key(keys.NewKey{Permissions: []string{"orders:read"}})
	_, viewers := g.key(keys.NewKey{Account: viewer.Account.ID, Permissions: []string{"orders:read"}})
	for _, c := range []struct {
		name, secret, target string
		status               int
	}{
		{"restricted, its space by slug", restricted, "/spaces/here/x", 200},
		{"restricted, its space by id", restricted, "/spaces/" + here.ID + "/x", 200},
		{"restricted, another space", restricted, "/spaces/there/x", 403},
		{"restricted, another space by id", restricted, "/spaces/" + there.ID + "/x", 403},
		{"restricted, slug in another case", restricted, "/spaces/Here/x", 403},
		{"restricted, on a route without a space", restricted, "/any/x", 403},
		{"unrestricted", free, "/spaces/there/x", 200},
		{"unrestricted, percent-encoded", free, "/spaces/%74here/x", 200},
		{"unrestricted, encoded twice", free, "/spaces/%2574here/x", 403},
		{"unrestricted, unknown space", free, "/spaces/gone/x", 403},
		{"viewer at its space", viewers, "/spaces/here/x", 200},
		{"viewer at another space", viewers, "/spaces/there/x", 403},
	} {
		if a := g.get("GET", c.target, c.secret); a.StatusCode != c.status {
			t.Errorf("%s: %d %s; want %d", c.name, a.StatusCode, a.body, c.status)
		}
	}
	g.get("GET", "/spaces/here/x", restricted)
	r, _, _ := g.upstream.seen()
	if r.Header.Get("X-Keygate-Space") != here.ID || r.Header.Get("X-Keygate-Space-Slug") != "here" {
		t.Errorf("space headers %q %q", r.Header.Get("X-Keygate-Space"), r.Header.Get("X-Keygate-Space-Slug"))
	}
	// A space made after it was asked for is there at once.
	if _, err := g.service.CreateSpace(ctx, keys.System, keys.NewSpace{Organization: "default", Slug: "gone"}); err != nil {
		t.Fatal(err)
	}
	if a := g.get("GET", "/spaces/gone/x", free); a.StatusCode != 200 {
		t.Errorf("a new space is refused: %d %s", a.StatusCode, a.body)
	}
}

// TestChangesActAtOnce asks right after each acknowledged change.
func TestChangesActAtOnce(t *testing.T) {
	g := newGate(t, gateOptions{})
	ctx := context.Background()
	k, secret := g.key(keys.NewKey{})
	status := func() int { return g.get("GET", "/any/x", secret).StatusCode }
	for range 20 {
		for _, step := range []struct {
			change func(context.Context, keys.Actor, string) (keys.Key, error)
			want   int
		}{{g.service.PauseKey, 401}, {g.service.ResumeKey, 200}} {
			if _, err := step.change(ctx, keys.System, k.ID); err != nil {
				t.Fatal(err)
			}
			if got := status(); got != step.want {
				t.Fatalf("%d right after the change, want %d", got, step.want)
			}
		}
	}
	if _, err := g.service.RevokeKey(ctx, keys.System, k.ID); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != 401 {
		t.Fatalf("%d after revocation", got)
	}
}

func TestTrustedProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	g := newGate(t, gateOptions{trusted: trusted})
	_, secret := g.key(keys.NewKey{AllowedCIDRs: []string{"203.0.113.0/24", "2001:db8::/32"}})
	for _, c := range []struct {
		forwarded []string
		status    int
	}{
		{[]string{"203.0.113.7"}, 200},
		{[]string{"203.0.113.7:4711"}, 200},
		{[]string{"2001:db8::7"}, 200},
		{[]string{"::ffff:203.0.113.7"}, 200},
		{[]string{"203.0.113.7, 10.1.2.3"}, 200},
		{[]string{"203.0.113.7", "10.1.2.3"}, 200},
		{[]string{"203.0.113.7, 198.51.100.1"}, 403}, // the client wrote the first one
		{[]string{"198.51.100.1"}, 403},
		{[]string{"203.0.113.7, nonsense"}, 403},
		{nil, 403},
	} {
		var headers []string
		for _, value := range c.forwarded {
			headers = append(headers, "X-Forwarded-For", value)
		}
		if a := g.get("GET", "/any/x", secret, append(headers, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "api.example")...); a.StatusCode != c.status {
			t.Errorf("%v: %d %s; want %d", c.forwarded, a.StatusCode, a.body, c.status)
		}
	}
	r, _, _ := g.upstream.seen()
	if got := r.Header.Get("X-Forwarded-For"); got != "203.0.113.7, 10.1.2.3, 127.0.0.1" {
		t.Errorf("X-Forwarded-For %q", got)
	}
	if r.Header.Get("X-Forwarded-Proto") != "https" || r.Header.Get("X-Forwarded-Host") != "api.example" {
		t.Errorf("a trusted proxy's word was lost: %v", r.Header)
	}
}

func TestUpstreamUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	g := newGate(t, gateOptions{target: "http://" + ln.Addr().String()})
	_, secret := g.key(keys.NewKey{})
	a := g.get("GET", "/any/x", secret)
	if a.StatusCode != 502 || a.problem.Error != "Upstream unavailable" || strings.Contains(string(a.body), ln.Addr().String()) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a.Header.Get("RateLimit") == "" {
		t.Error("an admitted request shows no limit")
	}
	if g.logs.FilterField(zapDecision("allowed")).Len() != 1 {
		t.Error("an unreachable upstream changed what the gate decided")
	}
}

// TestUpstreamAbortReachesTheClient: an answer that breaks off must not look
// complete to the client.
func TestUpstreamAbortReachesTheClient(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		panic(http.ErrAbortHandler)
	}
	_, secret := g.key(keys.NewKey{})
	r, _ := http.NewRequestWithContext(context.Background(), "GET", g.url+"/any/x", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Fatal("the client saw a complete answer")
	}
	waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == 1 })
	if g.logs.All()[0].ContextMap()["aborted"] != true {
		t.Errorf("the log does not tell: %v", g.logs.All()[0].ContextMap())
	}
}

// TestClientLeaves: the upstream call ends with the client, and the log says 499.
func TestClientLeaves(t *testing.T) {
	g := newGate(t, gateOptions{})
	reached, gone := make(chan struct{}), make(chan struct{})
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(gone)
	}
	_, secret := g.key(keys.NewKey{})
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "GET", g.url+"/any/x", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	go func() { <-reached; cancel() }()
	if res, err := http.DefaultTransport.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Fatal(res, err)
	}
	<-gone
	waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == 1 })
	if got := g.logs.All()[0].ContextMap()["http.response.status_code"]; got != int64(499) {
		t.Errorf("logged status %v, want 499", got)
	}
}

// TestUpgrade: the gate's bookkeeping must not stand in the way of protocols
// that take the connection over.
func TestUpgrade(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	}
	_, secret := g.key(keys.NewKey{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /any/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", secret)
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	fmt.Fprint(conn, "hi\n")
	if line, err := reader.ReadString('\n'); line != "echo hi\n" {
		t.Fatalf("%q %v", line, err)
	}
}

// TestOnlyWebSocketUpgrades: ReverseProxy would hand the connection over to
// whatever protocol client and upstream agree on. Through h2c a client could then
// make any request, without a key on a public route.
func TestOnlyWebSocketUpgrades(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	for _, try := range [][2]string{{"/status", "h2c"}, {"/any/x", "h2c"}, {"/any/x", "H2C"}, {"/any/x", "TLS/1.0"}, {"/any/x", "websocket, h2c"}} {
		a := g.get("GET", try[0], secret, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", try[1], "Http2-Settings", "AAMAAABk")
		got, _, _ := g.upstream.seen()
		if a.StatusCode != 200 || got.Header["Upgrade"] != nil || got.Header["Http2-Settings"] != nil || got.Header["Connection"] != nil {
			t.Errorf("%v: %d, the upstream saw %v", try, a.StatusCode, got.Header)
		}
	}
}

// TestHalfClosedConnection: net/http takes a client that has only finished
// sending for one that left. Saying nothing to it used to become "200 OK" without
// a body, for a request that nobody had answered.
func TestHalfClosedConnection(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	_, secret := g.key(keys.NewKey{})
	res := g.dial("GET /any/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+secret+"\r\n\r\n", true)
	if res.StatusCode != 499 || res.Header.Get("Content-Type") != problem.ContentType {
		t.Errorf("%s %v", res.Status, res.Header)
	}
}

// TestRefusalDoesNotWaitForTheBody: net/http reads the rest of a body before it
// answers, for as long as the client likes: anybody could hold connections for
// ever, without a key.
func TestRefusalDoesNotWaitForTheBody(t *testing.T) {
	g := newGate(t, gateOptions{})
	for name, framing := range map[string]string{"length": "Content-Length: 1000", "chunked": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if res := g.dial("POST /orders HTTP/1.1\r\nHost: x\r\n"+framing+"\r\n\r\n", false); res.StatusCode != 401 {
				t.Error(res.Status)
			}
		})
	}
}

// dial sends bytes and reads one answer.
func (g *gate) dial(request string, halfClose bool) *http.Response {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	if halfClose {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for range 500 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("did not happen within 5 s")
}
