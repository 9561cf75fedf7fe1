package proxy_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"keygate/internal/keys"
)

const corsPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions: { "orders:read": { group: Read } }
plans: { tiny: { limits: [{ name: minute, requests: 1, per: 1m }] } }
routes:
  - { match: "GET,POST /orders", permission: "orders:read", cors: { origins: ["https://app.example"], headers: [Authorization, X-Trace], credentials: true, max_age: 1h } }
  - { match: "/all/{rest...}", permission: any, cors: { origins: ["*"], methods: [GET, PUT] } }
  - { match: "GET /own", permission: any }
  - { match: "GET /asks", permission: any }
  - { match: "OPTIONS /asks", permission: any }
  - { match: "GET /status", public: { per_address: "1/1m" } }
`

func (g *gate) preflight(path, origin, method string) answer {
	return g.get(http.MethodOptions, path, "", "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "authorization")
}

// A browser's question is answered as the route says, without a key, and reaches no
// upstream.
func TestPreflightIsAnswered(t *testing.T) {
	g := newGate(t, gateOptions{policy: corsPolicy})
	a := g.preflight("/orders", "https://app.example", "POST")
	want := map[string]string{
		"Access-Control-Allow-Origin": "https://app.example", "Access-Control-Allow-Methods": "GET, HEAD, POST",
		"Access-Control-Allow-Headers": "Authorization, X-Trace", "Access-Control-Allow-Credentials": "true", "Access-Control-Max-Age": "3600",
		"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
	}
	for name, value := range want {
		if got := strings.Join(a.Header.Values(name), ", "); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if a.StatusCode != http.StatusNoContent || len(a.body) > 0 || a.Header.Get("X-Request-Id") == "" {
		t.Errorf("%d %q %v", a.StatusCode, a.body, a.Header)
	}
	a = g.preflight("/all/x", "https://anybody.example", "DELETE")
	if a.StatusCode != http.StatusNoContent || a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Methods") != "GET, PUT" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	// The origin is compared whole: neither a part of it nor another scheme will do.
	for _, origin := range []string{"https://evil.example", "http://app.example", "https://app.example.evil.example", "https://app.example:8443", "null"} {
		a := g.preflight("/orders", origin, "GET")
		if a.StatusCode != http.StatusForbidden || a.problem.Error != "Origin not allowed" || a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") == "" {
			t.Errorf("%s: %d %v", origin, a.StatusCode, a.Header)
		}
		waitFor(t, func() bool {
			line := g.logs.FilterField(zap.String("request_id", a.problem.RequestID)).FilterField(zap.String("reason", "Origin not allowed."))
			return line.Len() == 1
		})
	}
	// What no rule covers is no preflight's business.
	if a := g.preflight("/orders", "https://app.example", "DELETE"); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", a.StatusCode)
	}
	if a := g.preflight("/nowhere", "https://app.example", "GET"); a.StatusCode != http.StatusNotFound {
		t.Errorf("/nowhere: %d", a.StatusCode)
	}
	// OPTIONS without the two headers is a request like any other.
	if a := g.get(http.MethodOptions, "/all/x", "", "Origin", "https://app.example"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("no preflight: %d", a.StatusCode)
	}
	if _, _, n := g.upstream.seen(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// Where the policy says nothing of CORS the upstream answers for itself: it gets the
// question without a key, an identity or the key that somebody put there.
func TestPreflightIsForwarded(t *testing.T) {
	g := newGate(t, gateOptions{policy: corsPolicy})
	_, secret := g.key(keys.NewKey{Name: "of a page", Plan: "enterprise", Permissions: []string{"orders:read"}})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://theirs.example")
		w.WriteHeader(http.StatusNoContent)
	}
	a := g.get(http.MethodOptions, "/own", secret, "Origin", "https://x.example", "Access-Control-Request-Method", "GET")
	r, _, n := g.upstream.seen()
	if a.StatusCode != http.StatusNoContent || a.Header.Get("Access-Control-Allow-Origin") != "https://theirs.example" || n != 1 {
		t.Fatalf("%d %v, %d requests", a.StatusCode, a.Header, n)
	}
	if r.Method != http.MethodOptions || r.Header.Get("X-Keygate-Key-Id")+r.Header.Get("Authorization")+r.Header.Get("X-Keygate-Scopes") != "" {
		t.Errorf("%s %v", r.Method, r.Header)
	}
	// A rule for OPTIONS itself has the say.
	if a := g.preflight("/asks", "https://x.example", "GET"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("/asks: %d", a.StatusCode)
	}
	// A public route's budget counts them too.
	if a := g.preflight("/status", "https://x.example", "GET"); a.StatusCode != http.StatusNoContent {
		t.Errorf("/status: %d", a.StatusCode)
	}
	if a := g.preflight("/status", "https://x.example", "GET"); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("/status again: %d", a.StatusCode)
	}
	// Nobody uses an upstream without a key for long.
	refused := 0
	for range 700 {
		if a := g.preflight("/own", "https://x.example", "GET"); a.StatusCode == http.StatusTooManyRequests && a.Header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused < 90 {
		t.Errorf("%d of 700 preflights were refused", refused)
	}
}

// Pages read why they were refused; of what is forwarded keygate's word replaces the
// upstream's, so that nobody is let in twice.
func TestCORSOfAnswers(t *testing.T) {
	g := newGate(t, gateOptions{policy: corsPolicy})
	_, secret := g.key(keys.NewKey{Name: "of a page", Plan: "tiny", Permissions: []string{"orders:read"}})
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "https://upstream.example")
		h.Set("Access-Control-Expose-Headers", "X-Total")
		h.Set("Vary", "Accept")
	}
	check := func(what string, a answer, status int, exposed string, vary ...string) {
		t.Helper()
		if got := a.Header.Values("Access-Control-Allow-Origin"); a.StatusCode != status || !slices.Equal(got, []string{"https://app.example"}) {
			t.Errorf("%s: %d, Access-Control-Allow-Origin: %v", what, a.StatusCode, got)
		}
		if got := strings.Join(a.Header.Values("Access-Control-Expose-Headers"), ", "); !strings.HasPrefix(got, exposed) || !strings.Contains(got, "RateLimit") {
			t.Errorf("%s: Access-Control-Expose-Headers: %q", what, got)
		}
		if got := a.Header.Values("Vary"); !slices.Equal(got, vary) {
			t.Errorf("%s: Vary: %q", what, got)
		}
	}
	check("no key", g.get("GET", "/orders", "", "Origin", "https://app.example"), http.StatusUnauthorized, "RateLimit", "Origin")
	check("forwarded", g.get("GET", "/orders", secret, "Origin", "https://app.example"), http.StatusOK, "X-Total, RateLimit", "Accept", "Origin")
	check("over the limit", g.get("GET", "/orders", secret, "Origin", "https://app.example"), http.StatusTooManyRequests, "RateLimit", "Origin")
	_, other := g.key(keys.NewKey{Name: "elsewhere", Plan: "enterprise", Permissions: []string{"orders:read"}})
	for _, origin := range []string{"https://evil.example", ""} {
		a := g.get("GET", "/orders", other, "Origin", origin)
		if got := a.Header.Values("Access-Control-Allow-Origin"); len(got) > 0 || a.StatusCode != http.StatusOK {
			t.Errorf("origin %q: %d, %v", origin, a.StatusCode, got)
		}
	}
}

// A preflight that is forwarded has no key, and what stands in its Authorization nobody
// has looked at: an upstream that gets keys on this route would have trusted it.
func TestPreflightForwardsNoKey(t *testing.T) {
	g := newGate(t, gateOptions{policy: strings.Replace(testPolicy, `"/any/{rest...}", permission: any`, `"GET /any/{rest...}", permission: any, forward_key: true`, 1)})
	_, secret := g.key(keys.NewKey{})
	if a := g.get("OPTIONS", "/any/x", "anything", "Origin", "https://app.example", "Access-Control-Request-Method", "GET"); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if r, _, _ := g.upstream.seen(); r.Method != "OPTIONS" || r.Header["Authorization"] != nil {
		t.Errorf("the upstream got %s %v", r.Method, r.Header)
	}
	g.get("GET", "/any/x", secret)
	if r, _, _ := g.upstream.seen(); r.Header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("the upstream got %v", r.Header)
	}
}
