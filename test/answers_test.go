package test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"keygate/internal/admin"
)

// tenantPolicy has a route for each way in which a request can be refused.
const tenantPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions:
  "orders:read":  { group: Read }
  "orders:write": { group: Write }
plans:
  twenty: { limits: [{ name: minute, requests: 20, per: 1m }] }
  quick:  { limits: [{ name: burst, requests: 3, per: 2s }, { name: hour, requests: 1000, per: 1h }] }
  pair:   { limits: [], max_keys: 2 }
roles:
  reader: ["read:all"]
routes:
  - { match: "GET /orders/{id...}", permission: "orders:read" }
  - { match: "POST /orders", permission: "orders:write" }
  - { match: "PUT /orders", permission: ["orders:read", "orders:write"] }
  - { match: "GET /orgs/{org}/orders", permission: "orders:read", organization: "path:org" }
  - { match: "GET /spaces/{space}/orders", permission: "orders:read", space: "path:space" }
  - { match: "GET /any", permission: any }
  - { match: "GET /status", public: { per_address: "1000/1m" } }
`

func inFrontOf(u *upstream, policy string) string {
	return strings.ReplaceAll(policy, "UPSTREAM", u.URL)
}

// Every answer that the gate gives itself, with keys made on the command line.
func TestAnswers(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{
		"KEYGATE_POLICY_FILE": written(t, "policy.yaml", inFrontOf(api, tenantPolicy)), "KEYGATE_DEFAULT_PLAN": "enterprise",
		"KEYGATE_TRUSTED_PROXIES": "127.0.0.1/32",
	})
	t.Run("of keys", func(t *testing.T) { testKeyAnswers(t, g, api) })
	t.Run("of expiry", func(t *testing.T) { testExpiry(t, g) })
	t.Run("of permissions", func(t *testing.T) { testPermissionAnswers(t, g, api) })
	t.Run("of organizations and spaces", func(t *testing.T) { testTenantAnswers(t, g, api) })
	t.Run("of addresses", func(t *testing.T) { testAddressAnswers(t, g) })
	t.Run("of routes", func(t *testing.T) { testRouteAnswers(t, g, api) })
}

func testKeyAnswers(t *testing.T, g *gateway, api *upstream) {
	k := g.newKey("good", "--permissions", "orders:read")
	paused, revoked, deleted := g.newKey("paused"), g.newKey("revoked"), g.newKey("deleted")
	// All of them are in the gate's cache when they change.
	for _, key := range []string{k.Secret, paused.Secret, revoked.Secret, deleted.Secret} {
		g.wants(http.StatusOK, "/any", key)
	}
	for _, args := range [][]string{{"pause", paused.ID}, {"revoke", revoked.ID, "--yes"}, {"delete", deleted.ID, "--yes"}} {
		if r := g.cli(append([]string{"keys"}, args...)...); r.code != 0 {
			t.Fatalf("%v: %+v", args, r)
		}
	}
	before := api.count.Load()
	for _, tt := range []struct{ name, key, text, challenge string }{
		{"missing", "", "API key is missing", `Bearer realm="keygate"`},
		{"malformed", "nonsense", "API key is invalid", `Bearer realm="keygate", error="invalid_token", error_description="API key is invalid"`},
		{"wrong checksum", k.Secret[:len(k.Secret)-1] + "!", "API key is invalid", `Bearer realm="keygate", error="invalid_token", error_description="API key is invalid"`},
		{"unknown", newSecret(t), "API key is invalid", `Bearer realm="keygate", error="invalid_token", error_description="API key is invalid"`},
		{"deleted", deleted.Secret, "API key is invalid", `Bearer realm="keygate", error="invalid_token", error_description="API key is invalid"`},
		{"revoked", revoked.Secret, "API key has been revoked", `Bearer realm="keygate", error="invalid_token", error_description="API key has been revoked"`},
		{"paused", paused.Secret, "API key is paused", `Bearer realm="keygate", error="invalid_token", error_description="API key is paused"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := g.refused(http.StatusUnauthorized, tt.text, "/any", tt.key)
			if got := a.header.Get("WWW-Authenticate"); got != tt.challenge {
				t.Errorf("WWW-Authenticate: %s, want %s", got, tt.challenge)
			}
			if a.header.Get("RateLimit") != "" {
				t.Error("a refused key shows limits")
			}
		})
	}
	g.refused(http.StatusUnauthorized, "API key is missing", "/any?api_key="+k.Secret, "")
	g.refused(http.StatusBadRequest, "Ambiguous credentials", "/any?api_key="+k.Secret, k.Secret)
	g.refused(http.StatusBadRequest, "Ambiguous credentials", "/any", k.Secret, func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+paused.Secret) })
	if n := api.count.Load() - before; n != 0 {
		t.Errorf("%d refused requests reached the upstream", n)
	}
	// Schemes have no case, and several spaces are one (RFC 9110, section 11.4).
	g.wants(http.StatusOK, "/any", "", func(r *http.Request) { r.Header.Set("Authorization", "bEARER   "+k.Secret) })

	if r := g.cli("keys", "resume", paused.ID); r.code != 0 {
		t.Errorf("resume: %+v", r)
	}
	g.wants(http.StatusOK, "/any", paused.Secret)
	if r := g.cli("keys", "resume", revoked.ID); r.code != 4 {
		t.Errorf("resuming a revoked key: %+v", r)
	}
}

// A key works up to its last instant and not after. Which of the two a request
// met is told by the clock around it, so that a slow machine changes nothing.
func testExpiry(t *testing.T, g *gateway) {
	end := time.Now().Add(3 * time.Second).Truncate(time.Microsecond)
	k := g.newKey("short-lived", "--expires", end.Format(time.RFC3339Nano))
	if !k.ExpiresAt.Equal(end) {
		t.Errorf("expires at %s, asked for %s", k.ExpiresAt, end)
	}
	for {
		before := time.Now()
		a := g.get("/any", k.Secret)
		after := time.Now()
		switch {
		case a.status == http.StatusOK && before.After(end):
			t.Fatalf("admitted %s after its expiry", before.Sub(end))
		case a.status == http.StatusUnauthorized:
			if checkProblem(t, a, http.StatusUnauthorized, "API key has expired"); after.Before(end) {
				t.Errorf("refused %s before its expiry", end.Sub(after))
			}
			var shown admin.Key
			if g.must(&shown, "keys", "get", k.ID); shown.Status != "expired" {
				t.Errorf("status %q", shown.Status)
			}
			return
		case a.status != http.StatusOK:
			t.Fatalf("status %d: %s", a.status, a.body)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func testPermissionAnswers(t *testing.T, g *gateway, api *upstream) {
	reader := g.newKey("reader", "--permissions", "orders:read")
	all := g.newKey("all", "--permissions", "read:all,write:all")
	g.wants(http.StatusOK, "/orders/1", reader.Secret)
	if got := api.seen().Header.Get("X-Keygate-Scopes"); got != "orders:read" {
		t.Errorf("scopes %q", got)
	}
	before := api.count.Load()
	for method, required := range map[string][]string{"POST": {"orders:write"}, "PUT": {"orders:read", "orders:write"}} {
		a := g.do(method, g.proxy+"/orders", reader.Secret, private)
		p := checkProblem(t, a, http.StatusForbidden, "Insufficient permissions")
		if !strings.HasPrefix(p.Detail, "Insufficient permissions for operation "+method+" /orders") || !slices.Equal(p.Required, required) || !slices.Equal(p.Granted, []string{"orders:read"}) {
			t.Errorf("%s: %s", method, a.body)
		}
		if want := `error="insufficient_scope", scope="` + strings.Join(required, " ") + `"`; !strings.HasSuffix(a.header.Get("WWW-Authenticate"), want) {
			t.Errorf("WWW-Authenticate: %s", a.header.Get("WWW-Authenticate"))
		}
	}
	if n := api.count.Load() - before; n != 0 {
		t.Errorf("%d refused requests reached the upstream", n)
	}
	if a := g.do(http.MethodPut, g.proxy+"/orders", all.Secret, private); a.status != http.StatusOK {
		t.Errorf("PUT with both permissions: %d %s", a.status, a.body)
	}
	// A key never does more than its owner may.
	var limited admin.Account
	g.must(&limited, "accounts", "create", "--name", "Limited", "--organization", "default", "--role", "reader")
	if r := g.cli("keys", "create", "--name", "too-much", "--account", limited.ID, "--permissions", "orders:write"); r.code != 4 || !strings.Contains(r.stderr, "--permissions") {
		t.Errorf("a key beyond its owner: %+v", r)
	}
	below := g.newKey("below", "--account", limited.ID, "--permissions", "read:all")
	g.wants(http.StatusOK, "/orders/1", below.Secret)
}

func testTenantAnswers(t *testing.T, g *gateway, api *upstream) {
	var acme, other admin.Organization
	g.must(&acme, "orgs", "create", "--slug", "acme", "--plan", "enterprise")
	g.must(&other, "orgs", "create", "--slug", "other", "--plan", "enterprise")
	var lab, shop admin.Space
	g.must(&lab, "spaces", "create", "--organization", "acme", "--slug", "lab")
	g.must(&shop, "spaces", "create", "--organization", "acme", "--slug", "shop")
	k := g.newKey("acme", "--organization", "acme", "--permissions", "read:all")
	inLab := g.newKey("lab", "--organization", "acme", "--space", "lab", "--permissions", "read:all")

	for _, ref := range []string{"acme", acme.ID} {
		g.wants(http.StatusOK, "/orgs/"+ref+"/orders", k.Secret)
	}
	if r := api.seen(); r.Header.Get("X-Keygate-Organization") != acme.ID || r.Header.Get("X-Keygate-Organization-Slug") != "acme" {
		t.Errorf("the upstream got %v", r.Header)
	}
	for _, ref := range []string{"lab", lab.ID} {
		g.wants(http.StatusOK, "/spaces/"+ref+"/orders", k.Secret)
		g.wants(http.StatusOK, "/spaces/"+ref+"/orders", inLab.Secret)
	}
	if r := api.seen(); r.Header.Get("X-Keygate-Space") != lab.ID || r.Header.Get("X-Keygate-Space-Slug") != "lab" {
		t.Errorf("the upstream got %v", r.Header)
	}
	for _, tt := range []struct{ name, path, key, word string }{
		{"a foreign organization", "/orgs/other/orders", k.Secret, "organization"},
		{"a foreign organization by id", "/orgs/" + other.ID + "/orders", k.Secret, "organization"},
		{"no such organization", "/orgs/nobody/orders", k.Secret, "organization"},
		{"another letter case", "/orgs/ACME/orders", k.Secret, "organization"},
		{"a foreign space", "/spaces/shop/orders", inLab.Secret, "space"},
		{"no such space", "/spaces/nowhere/orders", k.Secret, "space"},
		{"a route that binds no space", "/orders/1", inLab.Secret, "space"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, p := g.refused(http.StatusForbidden, "Insufficient permissions", tt.path, tt.key); !strings.Contains(p.Detail, tt.word) {
				t.Errorf("detail %q does not say that it is the %s", p.Detail, tt.word)
			}
		})
	}
}

// The client's address is the one that a trusted proxy saw.
func testAddressAnswers(t *testing.T, g *gateway) {
	k := g.newKey("office", "--allow-cidr", "203.0.113.0/24,2001:db8::/32")
	from := func(chain string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Forwarded-For", chain) }
	}
	for _, chain := range []string{"203.0.113.7", "198.51.100.1, 203.0.113.7", "2001:db8::1"} {
		g.wants(http.StatusOK, "/any", k.Secret, from(chain))
	}
	for _, chain := range []string{"198.51.100.9", "203.0.113.7, 198.51.100.9", "nonsense"} {
		if _, p := g.refused(http.StatusForbidden, "Insufficient permissions", "/any", k.Secret, from(chain)); !strings.Contains(p.Detail, "address") {
			t.Errorf("detail %q", p.Detail)
		}
	}
	g.refused(http.StatusForbidden, "Insufficient permissions", "/any", k.Secret) // 127.0.0.1 itself
}

func testRouteAnswers(t *testing.T, g *gateway, api *upstream) {
	k := g.newKey("routes", "--permissions", "read:all")
	before := api.count.Load()
	g.refused(http.StatusNotFound, "Not found", "/nothing", k.Secret)
	g.refused(http.StatusNotFound, "Not found", "/nothing", "") // routes come before keys
	for path, allow := range map[string]string{"/orders": "GET, HEAD, POST, PUT", "/any": "GET, HEAD"} {
		a := g.do(http.MethodDelete, g.proxy+path, k.Secret, "")
		checkProblem(t, a, http.StatusMethodNotAllowed, "Method not allowed")
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow: %s, want %s", path, got, allow)
		}
	}
	for _, path := range []string{"/orders/../any", "/orders//1", "/orders/%2e%2e/any", "/orders/a%2fb", "/orders/a%5cb", "/orders/a;b", "/orders/%00"} {
		// The client must not tidy the path up.
		a := g.do(http.MethodGet, g.proxy, k.Secret, "", func(r *http.Request) { r.URL.Opaque = path })
		checkProblem(t, a, http.StatusBadRequest, "Ambiguous path")
	}
	if n := api.count.Load() - before; n != 0 {
		t.Errorf("%d refused requests reached the upstream", n)
	}
	g.wants(http.StatusOK, "/status", "")
}
