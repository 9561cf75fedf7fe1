package proxy_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/internal/problem"
)

const explainPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions:
  "orders:read": { group: Read }
  "orders:write": { group: Write }
plans:
  free: { limits: [{ name: minute, requests: 100, per: 1m }], max_keys: 100 }
  tiny: { limits: [{ name: minute, requests: 3, per: 1m }, { name: burst, requests: 2, per: 1s }] }
  open: { limits: [{ name: minute, requests: 2, per: 1m }], outage: { mode: open } }
routes:
  - { match: "GET /orders/{id...}", permission: "orders:read" }
  - { match: "POST /orders", permission: "orders:write" }
  - { match: "GET /both", permission: ["orders:read", "orders:write"] }
  - { match: "/any/{rest...}", permission: any }
  - { match: "GET gate.example/any/x", permission: "orders:write" }
  - { match: "GET /org/{org}/x", permission: any, organization: "path:org" }
  - { match: "GET /header", permission: "orders:read", organization: "header:X-Organization" }
  - { match: "GET /query", permission: any, organization: "query:org" }
  - { match: "GET /spaces/{space}/x", permission: "orders:read", space: "path:space" }
  - { match: "GET /space", permission: any, space: "header:X-Space" }
  - { match: "PUT /org/{org}/{space...}", permission: "orders:write", organization: "path:org", space: "query:space" }
  - { match: "GET,POST /status", public: { per_address: "2/1h" } }
`

// explained is a gate with a key of every kind, by what is special about it.
type explained struct {
	*gate
	secrets map[string]string
}

func newExplained(t testing.TB) *explained {
	g := &explained{newGate(t, gateOptions{policy: explainPolicy}), map[string]string{"none": ""}}
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.service.CreateSpace(ctx, keys.System, keys.NewSpace{Organization: "default", Slug: "berlin"}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.service.CreateSpace(ctx, keys.System, keys.NewSpace{Organization: "default", Slug: "rome"}); err != nil {
		t.Fatal(err)
	}
	made := make(map[string]keys.Key)
	for name, in := range map[string]keys.NewKey{
		"reader": {Permissions: []string{"orders:read"}}, "writer": {Permissions: []string{"orders:write"}}, "all": {Permissions: []string{"*"}},
		"nothing": {}, "paused": {Permissions: []string{"orders:read"}}, "revoked": {}, "expired": {Expires: "1d"}, "deleted": {},
		"berlin": {Permissions: []string{"*"}, Space: "berlin"}, "near": {Permissions: []string{"*"}, AllowedCIDRs: []string{"192.0.2.0/24", "127.0.0.0/8"}},
		"far": {AllowedCIDRs: []string{"198.51.100.0/24"}}, "tiny": {Permissions: []string{"orders:read"}, Plan: "tiny"}, "open": {Plan: "open"},
		"unlimited": {Permissions: []string{"*"}, Plan: "enterprise"},
	} {
		in.Plan = cmp.Or(in.Plan, "pro")
		made[name], g.secrets[name] = g.key(in)
	}
	_, err := g.service.PauseKey(ctx, keys.System, made["paused"].ID)
	must(err)
	_, err = g.service.RevokeKey(ctx, keys.System, made["revoked"].ID)
	must(err)
	must(g.service.DeleteKey(ctx, keys.System, made["deleted"].ID))
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	g.secrets["operator"], g.secrets["unknown"] = format.Generate(), format.Generate()
	_, err = g.service.Bootstrap(ctx, keys.BootstrapOptions{Secret: g.secrets["operator"]})
	must(err)
	former, _ := keys.NewFormat("former")
	service := keys.NewService(keys.ServiceOptions{Store: g.store, Format: former, Policy: g.proxy.PolicyKeys, Changed: func(keys.Change) {}, Now: g.clock})
	_, g.secrets["former"], err = service.CreateKey(ctx, keys.System, keys.NewKey{Name: "former"})
	must(err)
	g.wait(24 * time.Hour)
	return g
}

// question asks about a request with one of the keys.
func (g *explained) question(key, method, target string, headers ...string) auth.Question {
	q := auth.Question{Method: method, Host: "x", Target: target, Header: make(http.Header), Client: netip.MustParseAddr("192.0.2.7")}
	if secret, ok := g.secrets[key]; !ok {
		g.t.Fatalf("no key %q", key)
	} else if secret != "" {
		q.Key = keys.HashSecret(secret)
	}
	for i := 0; i < len(headers); i += 2 {
		q.Header[headers[i]] = append(q.Header[headers[i]], headers[i+1])
	}
	return q
}

// verdict is what a client sees of an answer, and how long it is to wait.
type verdict struct {
	Status        int
	Error, Detail string
	RetryAfter    string
}

func verdictOf(e auth.Explanation) verdict {
	v := verdict{Status: e.Status, Error: e.Error, Detail: e.Detail}
	if e.RetryAfter > 0 && (e.Status == 429 || e.Status == 503) {
		v.RetryAfter = fmt.Sprint(int(e.RetryAfter / time.Second))
	}
	return v
}

// serve sends the request that is asked about, as it would come from a client.
// ok is false for what net/http takes for no request.
func (g *explained) serve(h http.Handler, q auth.Question, secret string) (v verdict, ok bool) {
	var wire strings.Builder
	fmt.Fprintf(&wire, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.Method, q.Target, q.Host)
	for name, values := range q.Header {
		for _, value := range values {
			fmt.Fprintf(&wire, "%s: %s\r\n", name, value)
		}
	}
	if secret != "" {
		fmt.Fprintf(&wire, "Authorization: Bearer %s\r\n", secret)
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire.String() + "\r\n")))
	if err != nil {
		return v, false
	}
	r.Header.Del("Host")
	r.RemoteAddr = netip.AddrPortFrom(q.Client, 1234).String()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Header().Get("Content-Type") != problem.ContentType || w.Code == http.StatusBadGateway {
		return v, true // it was let through
	}
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		g.t.Fatal(err)
	}
	return verdict{w.Code, p.Error, p.Detail, w.Header().Get("Retry-After")}, true
}

var checkNames = []string{"path", "route", "method", "key", "address", "organization", "space", "scope", "limit"}

// coherent reports what contradicts itself in an explanation.
func coherent(e auth.Explanation) string {
	var names, failed []string
	for _, c := range e.Checks {
		names = append(names, c.Name)
		if c.Result == "fail" {
			failed = append(failed, c.Name)
		}
		if !strings.HasSuffix(c.Detail, ".") || !slices.Contains([]string{"pass", "fail", "skip"}, c.Result) {
			return fmt.Sprintf("the check %+v is no sentence or has no known result", c)
		}
	}
	switch {
	case !slices.Equal(names, checkNames) && (e.Rule == nil || !slices.Equal(names, append(checkNames[:len(checkNames):len(checkNames)], "upstream"))):
		return fmt.Sprintf("the checks are %v", names)
	case (e.Status == 0) != (len(failed) == 0):
		return fmt.Sprintf("status %d where %v failed", e.Status, failed)
	case (e.Status == 0) != (e.Error == ""), (e.Status == 0) != (e.Detail == ""):
		return fmt.Sprintf("status %d, error %q, detail %q", e.Status, e.Error, e.Detail)
	}
	return ""
}

// agree holds Explain to what ServeHTTP answers.
func (g *explained) agree(q auth.Question, secret string) (e auth.Explanation, problem string) {
	e = g.proxy.Explain(context.Background(), q)
	if problem := coherent(e); problem != "" {
		return e, problem
	}
	if text := fmt.Sprintf("%+v", e); secret != "" && strings.Contains(text, secret) && !strings.Contains(q.Target, secret) {
		return e, "it holds the secret: " + text
	}
	again := g.proxy.Explain(context.Background(), q)
	got, ok := g.serve(g.proxy, q, secret)
	if !ok {
		return e, fmt.Sprintf("net/http takes it for no request; explained as %+v", verdictOf(e))
	}
	// Budgets of addresses go by the real clock: a second may end in between.
	after := g.proxy.Explain(context.Background(), q)
	if refusedByBudget := e.Rule != nil && e.Rule.Public != "" && e.Status == 429; !refusedByBudget {
		after = e
	}
	if got != verdictOf(e) && got != verdictOf(again) && got != verdictOf(after) {
		return e, fmt.Sprintf("explained as %+v\nbut answered %+v\nchecks %+v", verdictOf(e), got, e.Checks)
	}
	return e, ""
}
