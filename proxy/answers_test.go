package proxy_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"keygate/internal/keys"
)

// TestAnswers holds the wire contract: for each case the status, the fixed text
// and the headers that clients rely on.
func TestAnswers(t *testing.T) {
	g := newGate(t, gateOptions{})
	ctx := context.Background()
	_, reader := g.key(keys.NewKey{Permissions: []string{"orders:read"}})
	_, elsewhere := g.key(keys.NewKey{Permissions: []string{"orders:read"}, AllowedCIDRs: []string{"192.0.2.0/24"}})
	_, expired := g.key(keys.NewKey{Expires: "1d"})
	paused, pausedSecret := g.key(keys.NewKey{})
	if _, err := g.service.PauseKey(ctx, keys.System, paused.ID); err != nil {
		t.Fatal(err)
	}
	g.wait(24 * time.Hour)
	revoked, revokedSecret := g.key(keys.NewKey{})
	if _, err := g.service.RevokeKey(ctx, keys.System, revoked.ID); err != nil {
		t.Fatal(err)
	}
	deleted, deletedSecret := g.key(keys.NewKey{})
	if err := g.service.DeleteKey(ctx, keys.System, deleted.ID); err != nil {
		t.Fatal(err)
	}
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	const challenge = `Bearer realm="test"`
	invalid := challenge + `, error="invalid_token", error_description="API key is invalid"`

	for _, c := range []struct {
		name, method, target, secret string
		headers                      []string
		status                       int
		text, challenge, detail      string
	}{
		{"no key", "GET", "/any/", "", nil, 401, "API key is missing", challenge, "Authorization: Bearer"},
		{"another scheme", "GET", "/any/", "", []string{"Authorization", "Basic YTpi"}, 401, "API key is missing", challenge, "is not 'Bearer <key>'"},
		{"malformed", "GET", "/any/", "nonsense", nil, 401, "API key is invalid", invalid, ""},
		{"bad checksum", "GET", "/any/", reader[:len(reader)-1] + "!", nil, 401, "API key is invalid", invalid, ""},
		{"unknown", "GET", "/any/", format.Generate(), nil, 401, "API key is invalid", invalid, ""},
		{"deleted", "GET", "/any/", deletedSecret, nil, 401, "API key is invalid", invalid, ""},
		{"revoked", "GET", "/any/", revokedSecret, nil, 401, "API key has been revoked", challenge + `, error="invalid_token", error_description="API key has been revoked"`, ""},
		{"paused", "GET", "/any/", pausedSecret, nil, 401, "API key is paused", challenge + `, error="invalid_token", error_description="API key is paused"`, ""},
		{"expired", "GET", "/any/", expired, nil, 401, "API key has expired", challenge + `, error="invalid_token", error_description="API key has expired"`, "expired on"},
		{"two headers", "GET", "/any/", reader, []string{"Authorization", "Bearer " + reader}, 400, "Ambiguous credentials", challenge + `, error="invalid_request", error_description="Ambiguous credentials"`, ""},
		{"key in the query only", "GET", "/any/?k=" + reader, "", nil, 401, "API key is missing", challenge, "exposed"},
		{"key in query and header", "GET", "/any/?a=1&access_token=" + reader, reader, nil, 400, "Ambiguous credentials", challenge + `, error="invalid_request", error_description="Ambiguous credentials"`, "exposed"},
		{"missing scope", "POST", "/orders", reader, nil, 403, "Insufficient permissions", challenge + `, error="insufficient_scope", scope="orders:write"`, "Insufficient permissions for operation POST /orders"},
		{"one of two scopes", "GET", "/both", reader, nil, 403, "Insufficient permissions", challenge + `, error="insufficient_scope", scope="orders:read orders:write"`, "lacks orders:write."},
		{"foreign address", "GET", "/orders/", elsewhere, nil, 403, "Insufficient permissions", "", "127.0.0.1"},
		{"foreign organization", "GET", "/org/acme/x", reader, nil, 403, "Insufficient permissions", "", "organization"},
		{"no organization named", "GET", "/header", reader, nil, 403, "Insufficient permissions", "", "X-Organization"},
		{"two organizations in headers", "GET", "/header", reader, []string{"X-Organization", "default", "X-Organization", "acme"}, 400, "Ambiguous request", challenge, ""},
		{"organization in two spellings", "GET", "/header", reader, []string{"X-Organization", "default", "X_Organization", "acme"}, 400, "Ambiguous request", challenge, ""},
		{"organization nominated away", "GET", "/header", reader, []string{"X-Organization", "default", "Connection", "X-Organization"}, 400, "Ambiguous request", challenge, ""},
		{"two organizations in the query", "GET", "/query?org=default&org=acme", reader, nil, 400, "Ambiguous request", challenge, ""},
		{"unparsable query on a query-bound route", "GET", "/query?org=default;x=%zz", reader, nil, 400, "Ambiguous request", challenge, ""},
		{"foreign space", "GET", "/spaces/nowhere/x", reader, nil, 403, "Insufficient permissions", "", "no such space"},
		{"no route", "GET", "/nowhere", reader, nil, 404, "Not found", "", ""},
		{"no route comes before the key", "GET", "/nowhere", "", nil, 404, "Not found", "", ""},
		{"method", "DELETE", "/orders", "", nil, 405, "Method not allowed", "", "GET, HEAD, POST"},
		{"path", "GET", "/any/%2e%2e/orders", reader, nil, 400, "Ambiguous path", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, before := g.upstream.seen()
			a := g.get(c.method, c.target, c.secret, c.headers...)
			if a.StatusCode != c.status || a.problem.Status != c.status || a.problem.Error != c.text {
				t.Errorf("status %d, body %s; want %d %q", a.StatusCode, a.body, c.status, c.text)
			}
			want := c.challenge
			if c.status == 400 && c.text == "Ambiguous request" {
				want = "" // not about credentials
			}
			if got := a.Header.Get("WWW-Authenticate"); got != want {
				t.Errorf("WWW-Authenticate %q, want %q", got, want)
			}
			if !strings.Contains(a.problem.Detail, c.detail) {
				t.Errorf("detail %q lacks %q", a.problem.Detail, c.detail)
			}
			if a.problem.Title != http.StatusText(c.status) || a.problem.Type != "" {
				t.Errorf("title %q, type %q", a.problem.Title, a.problem.Type)
			}
			id := a.Header.Get("X-Request-Id")
			if id == "" || a.problem.RequestID != id || a.problem.Instance != "urn:uuid:"+id {
				t.Errorf("request id %q, body %s", id, a.body)
			}
			for name := range a.Header {
				if strings.HasPrefix(name, "Ratelimit") {
					t.Errorf("%s on a refusal", name)
				}
			}
			if c.secret != "" && strings.Contains(string(a.body), c.secret) {
				t.Error("the body repeats the secret")
			}
			if _, _, after := g.upstream.seen(); after != before {
				t.Error("the request reached the upstream")
			}
		})
	}
	if got := g.get("DELETE", "/orders", "").Header.Get("Allow"); got != "GET, HEAD, POST" {
		t.Errorf("Allow %q", got)
	}
	a := g.get("GET", "/both", reader)
	if !slices.Equal(a.problem.Required, []string{"orders:read", "orders:write"}) || !slices.Equal(a.problem.Granted, []string{"orders:read"}) {
		t.Errorf("required %v, granted %v", a.problem.Required, a.problem.Granted)
	}
	// Whoever is asked why a client was refused finds the key and the reason.
	b := g.get("GET", "/orders/1", revokedSecret)
	logged := func(a answer) (line map[string]any) {
		waitFor(t, func() bool {
			found := g.logs.FilterField(zap.String("request_id", a.problem.RequestID)).All()
			if len(found) == 1 {
				line = found[0].ContextMap()
			}
			return len(found) == 1
		})
		return line
	}
	if got := logged(a)["reason"]; got != "The API key lacks orders:write." {
		t.Errorf("the log's reason is %v", got)
	}
	if line := logged(b); line["key_id"] != revoked.ID || line["reason"] != "This API key has been revoked. Create a new one." {
		t.Errorf("the log of a revoked key: %v", line)
	}
	for _, e := range g.logs.All() {
		line := e.Message
		for name, value := range e.ContextMap() {
			if s, ok := value.(string); ok {
				line += " " + name + "=" + s
			}
		}
		for _, secret := range []string{reader, revokedSecret, pausedSecret, expired, deletedSecret} {
			if strings.Contains(line, secret) {
				t.Errorf("a log line holds a secret: %s", line)
			}
		}
	}
}

func TestSchemeAndSpaces(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	for _, value := range []string{"Bearer " + secret, "bearer " + secret, "BEARER    " + secret} {
		if a := g.get("GET", "/any/x", "", "Authorization", value); a.StatusCode != 200 {
			t.Errorf("scheme as in %q: %d %s", value[:10], a.StatusCode, a.body)
		}
	}
	for _, value := range []string{"Bearer" + secret, "Bearer\t" + secret, "Bearer " + secret + " x", "Bearer " + secret + ", Bearer " + secret} {
		if a := g.get("GET", "/any/x", "", "Authorization", value); a.StatusCode != 401 {
			t.Errorf("%q…: %d, want 401", value[:8], a.StatusCode)
		}
	}
}

// TestRetryAfterIsTrue waits exactly as long as the answer says, for every
// combination of the plan's limits that refuses.
func TestRetryAfterIsTrue(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{Plan: "tiny"})
	admitted := 0
	for range 3 {
		a := g.get("GET", "/any/x", secret)
		for a.StatusCode == 200 {
			admitted++
			a = g.get("GET", "/any/x", secret)
		}
		if a.StatusCode != 429 || a.problem.Error != "Rate limit exceeded" || a.problem.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		wait, err := time.ParseDuration(a.Header.Get("Retry-After") + "s")
		if err != nil || wait < time.Second {
			t.Fatalf("Retry-After %q", a.Header.Get("Retry-After"))
		}
		if got := a.Header.Get("RateLimit-Policy"); got != `"minute";q=3;w=60, "burst";q=2;w=1` {
			t.Errorf("RateLimit-Policy %q", got)
		}
		if got := a.Header.Get("RateLimit"); !strings.Contains(got, ";r=0;t="+a.Header.Get("Retry-After")) {
			t.Errorf("RateLimit %q with Retry-After %s", got, a.Header.Get("Retry-After"))
		}
		if !strings.Contains(a.problem.Detail, "Wait") {
			t.Errorf("detail %q", a.problem.Detail)
		}
		g.wait(wait - time.Second)
		if wait > time.Second {
			if a := g.get("GET", "/any/x", secret); a.StatusCode != 429 {
				t.Fatalf("admitted a second before Retry-After: %d", a.StatusCode)
			}
		}
		g.wait(time.Second)
	}
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 200 {
		t.Fatalf("not admitted after Retry-After: %d %s", a.StatusCode, a.body)
	}
	if admitted < 5 {
		t.Errorf("only %d requests were admitted", admitted)
	}
}

// The field is computed once for a policy: an answer must have that of the policy
// which decided it, and of the plan that stood in where the key's is gone.
func TestLimitsFieldFollowsThePolicy(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{Plan: "tiny"})
	other := strings.ReplaceAll(testPolicy, "UPSTREAM", g.upstream.URL)
	for _, c := range []struct{ name, policy, want string }{
		{"the plan", other, `"minute";q=3;w=60, "burst";q=2;w=1`},
		{"another quota", strings.ReplaceAll(other, "requests: 3,", "requests: 9,"), `"minute";q=9;w=60, "burst";q=2;w=1`},
		{"no such plan", strings.ReplaceAll(other, "tiny:", "other:"), `"minute";q=100;w=60`},
		{"no limits", strings.ReplaceAll(other, "tiny:", "tiny: { limits: [] }\n  other:"), ""},
	} {
		g.setPolicy(c.policy)
		g.wait(time.Minute)
		a := g.get("GET", "/any/x", secret)
		if got := a.Header.Get("RateLimit-Policy"); a.StatusCode != 200 || got != c.want {
			t.Errorf("%s: %d, RateLimit-Policy %q, want %q", c.name, a.StatusCode, got, c.want)
		}
	}
}

func TestPublicRouteIsLimitedPerAddress(t *testing.T) {
	g := newGate(t, gateOptions{})
	for range 2 {
		if a := g.get("GET", "/status", ""); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	a := g.get("GET", "/status", "")
	if a.StatusCode != 429 || a.Header.Get("Retry-After") == "" {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
}

// With LOG_LEVEL=warn no line was written at all, not even for a failing
// upstream.
func TestWarnLevelLogsFailures(t *testing.T) {
	g := newGate(t, gateOptions{target: "http://127.0.0.1:1", level: zapcore.WarnLevel})
	_, secret := g.key(keys.NewKey{})
	g.get("GET", "/any/x", "")
	a := g.get("GET", "/any/x", secret)
	waitFor(t, func() bool { return g.logs.Len() > 0 })
	if lines := g.logs.All(); len(lines) != 1 || lines[0].ContextMap()["request_id"] != a.problem.RequestID || a.StatusCode != 502 {
		t.Errorf("%d: %v", a.StatusCode, lines)
	}
}
