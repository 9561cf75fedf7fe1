package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

const itself = "/.keygate/me"

// me asks a key about itself.
func (g *gate) me(secret string) (answer, map[string]any) {
	g.t.Helper()
	a := g.get("GET", itself, secret)
	var about map[string]any
	if a.StatusCode == http.StatusOK {
		if err := json.Unmarshal(a.body, &about); err != nil {
			g.t.Fatalf("%v in %s", err, a.body)
		}
	}
	return a, about
}

func TestMe(t *testing.T) {
	g := newGate(t, gateOptions{})
	ends := g.clock().Add(30 * 24 * time.Hour).UTC().Truncate(time.Second)
	k, secret := g.key(keys.NewKey{Name: "mine", Plan: "tiny", Permissions: []string{"orders:read"}, Expires: ends.Format(time.RFC3339)})
	g.get("GET", "/any/x", secret)
	a, about := g.me(secret)
	if a.StatusCode != 200 || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("X-Request-Id") == "" {
		t.Fatalf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	organization, err := g.store.Organization(context.Background(), "default")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"key": map[string]any{
			"id": k.ID, "name": "mine", "prefix": "kg_live", "last_four": secret[len(secret)-4:], "status": "active", "expires_at": ends.Format(time.RFC3339),
		},
		"organization": map[string]any{"id": organization.ID, "slug": "default"},
		"plan":         "tiny",
		"scopes":       []any{"orders:read"},
		"limits": []any{
			map[string]any{"name": "minute", "requests": 3.0, "per": "1m", "remaining": 2.0, "reset_seconds": 61.0},
			map[string]any{"name": "burst", "requests": 2.0, "per": "1s", "remaining": 1.0, "reset_seconds": 2.0},
		},
	}
	if !reflect.DeepEqual(about, want) {
		t.Errorf("%s\nwant %v", a.body, want)
	}
	if strings.Contains(string(a.body), secret) {
		t.Error("the answer repeats the secret")
	}
	for range 3 { // nothing is spent
		if _, again := g.me(secret); !reflect.DeepEqual(again, about) {
			t.Errorf("asked again: %v", again)
		}
	}
	if a.Header.Get("Ratelimit") != `"minute";r=2;t=61, "burst";r=1;t=2` {
		t.Errorf("RateLimit %s", a.Header.Get("Ratelimit"))
	}
	head := g.get("HEAD", itself, secret)
	if head.StatusCode != 200 || len(head.body) != 0 || head.ContentLength != int64(len(a.body)) {
		t.Errorf("HEAD: %d, %d bytes of %d", head.StatusCode, len(head.body), head.ContentLength)
	}
	if _, _, n := g.upstream.seen(); n != 1 {
		t.Errorf("%d requests reached the upstream, want the first one", n)
	}
	if n := g.logs.FilterField(zapDecision("allowed")).FilterMessage("request").Len(); n != 6 {
		t.Errorf("%d lines in the log", n)
	}
	line := g.logs.All()[g.logs.Len()-1].ContextMap()
	if line["http.route"] != itself || line["key_id"] != k.ID {
		t.Errorf("the log says %v", line)
	}
}

func TestMeInSpaces(t *testing.T) {
	g := newGate(t, gateOptions{})
	ctx := context.Background()
	here, err := g.service.CreateSpace(ctx, keys.System, keys.NewSpace{Organization: "default", Slug: "here"})
	if err != nil {
		t.Fatal(err)
	}
	viewer, err := g.service.CreateAccount(ctx, keys.System, keys.NewAccount{Name: "v", Organization: "default", NewGrant: keys.NewGrant{Space: "here", Role: "viewer"}})
	if err != nil {
		t.Fatal(err)
	}
	_, restricted := g.key(keys.NewKey{Space: "here", Permissions: []string{"orders:read"}, Account: viewer.Account.ID})
	_, about := g.me(restricted)
	if want := map[string]any{"id": here.ID, "slug": "here"}; !reflect.DeepEqual(about["space"], want) || !reflect.DeepEqual(about["scopes"], []any{"orders:read"}) {
		t.Errorf("restricted: %v", about)
	}
	_, free := g.key(keys.NewKey{Account: viewer.Account.ID, Permissions: []string{"orders:read"}})
	_, about = g.me(free)
	if !reflect.DeepEqual(about["scopes"], []any{}) || !reflect.DeepEqual(about["space_scopes"], map[string]any{here.ID: []any{"orders:read"}}) || about["space"] != nil {
		t.Errorf("free: %v", about)
	}
}

func TestMeRefusals(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	_, elsewhere := g.key(keys.NewKey{AllowedCIDRs: []string{"192.0.2.0/24"}})
	for _, c := range []struct {
		method, target, secret string
		status                 int
		allow                  string
	}{
		{"GET", itself, "", 401, ""},
		{"GET", itself, "wrong", 401, ""},
		{"GET", itself, elsewhere, 403, ""},
		{"POST", itself, secret, 405, "GET, HEAD"},
		{"OPTIONS", itself, "", 405, "GET, HEAD"},
		{"GET", "/.keygate/", secret, 404, ""},
		{"GET", "/.keygate/me/", secret, 404, ""},
		{"GET", "/.keygate/other", secret, 404, ""},
		{"GET", "/.keygate//me", secret, 400, ""},
		{"GET", "/%2Ekeygate/me", secret, 400, ""},
		{"GET", "/.keyg%61te/me", secret, 200, ""},
	} {
		a := g.get(c.method, c.target, c.secret)
		if a.StatusCode != c.status || a.Header.Get("Allow") != c.allow || c.status != 200 && a.problem.RequestID == "" {
			t.Errorf("%s %s: %d, Allow %q, %s", c.method, c.target, a.StatusCode, a.Header.Get("Allow"), a.body)
		}
	}
	if _, _, n := g.upstream.seen(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestMeIsLimited: each answer may cost a round trip, whatever the plan allows.
func TestMeIsLimited(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	_, other := g.key(keys.NewKey{})
	for i := range 10 {
		if a, _ := g.me(secret); a.StatusCode != 200 {
			t.Fatalf("request %d: %d", i+1, a.StatusCode)
		}
	}
	a, _ := g.me(secret)
	if a.StatusCode != 429 || a.Header.Get("Retry-After") != "1" || a.problem.Error != "Rate limit exceeded" || !reflect.DeepEqual(a.problem.ViolatedPolicies, []string{"me"}) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a, _ := g.me(other); a.StatusCode != 200 {
		t.Errorf("another key: %d", a.StatusCode)
	}
	g.wait(time.Second)
	if a, _ := g.me(secret); a.StatusCode != 200 {
		t.Errorf("after Retry-After: %d", a.StatusCode)
	}
}

// mute is a ledger that does not tell what is left.
type mute struct{ ratelimit.Ledger }

func (mute) Peek(context.Context, ratelimit.Ask) (ratelimit.Grant, error) {
	return ratelimit.Grant{}, errors.New("ledger is away")
}

// TestMeWithoutTheLedger: the answer does without what cannot be asked for.
func TestMeWithoutTheLedger(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{Plan: "tiny"})
	g.broken.Ledger = mute{g.ledger}
	a, about := g.me(secret)
	want := []any{map[string]any{"name": "minute", "requests": 3.0, "per": "1m"}, map[string]any{"name": "burst", "requests": 2.0, "per": "1s"}}
	if a.StatusCode != 200 || !reflect.DeepEqual(about["limits"], want) || a.Header.Get("Ratelimit") != "" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestMeStopped: a key that the ledger knows to have changed is looked up again.
func TestMeStopped(t *testing.T) {
	g := newGate(t, gateOptions{})
	k, secret := g.key(keys.NewKey{})
	g.me(secret)
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	elsewhere := keys.NewService(keys.ServiceOptions{Store: g.store, Format: format, Policy: g.proxy.PolicyKeys, Changed: func(keys.Change) {}, Now: g.clock})
	paused, err := elsewhere.PauseKey(context.Background(), keys.System, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.ledger.Stop(context.Background(), k.Organization, k.ID, paused.Version); err != nil {
		t.Fatal(err)
	}
	if a, _ := g.me(secret); a.StatusCode != 401 || a.problem.Error != "API key is paused" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestWithoutMe(t *testing.T) {
	policy := strings.Replace(testPolicy, "routes:", "routes:\n  - { match: \"GET /.keygate/{rest...}\", permission: any }", 1)
	g := newGate(t, gateOptions{noMe: true, policy: policy})
	_, secret := g.key(keys.NewKey{})
	if a := g.get("GET", itself, secret); a.StatusCode != 200 || string(a.body) != "hello" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if g := newGate(t, gateOptions{policy: policy}); g.get("GET", "/.keygate/x", "").StatusCode != 404 {
		t.Error("a route reaches what is reserved")
	}
}

// TestMeBehindProxies: the address that counts is the client's.
func TestMeBehindProxies(t *testing.T) {
	g := newGate(t, gateOptions{trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}})
	_, secret := g.key(keys.NewKey{AllowedCIDRs: []string{"192.0.2.0/24"}})
	if a := g.get("GET", itself, secret, "X-Forwarded-For", "192.0.2.7"); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
