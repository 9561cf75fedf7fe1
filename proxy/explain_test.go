package proxy_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/auth"
	"keygate/internal/keys"
)

// TestExplain: for each case the answer, which is also ServeHTTP's, the results
// of the checks (p, f, s in their order) and words that must stand in the detail
// of the first that fails, or of the limit.
func TestExplain(t *testing.T) {
	g := newExplained(t)
	long := "/any/" + strings.Repeat("x", 100)
	for _, c := range []struct {
		name, key, method, target string
		headers                   []string
		status                    int
		text, results, words      string
	}{
		{"let through", "reader", "GET", "/orders/1?a=b", nil, 0, "", "pppppsspp", `"minute" has 2000 of 2000 requests per 1 minute left`},
		{"HEAD comes with GET", "reader", "HEAD", "/orders/1", nil, 0, "", "pppppsspp", ""},
		{"any valid key", "nothing", "REPORT", long, nil, 0, "", "pppppsspp", ""},
		{"no limits", "unlimited", "GET", "/any/x", nil, 0, "", "pppppssps", `The plan "enterprise" has no limits`},
		{"an operator's", "operator", "GET", "/any/x", nil, 0, "", "pppppssps", "operators have no limits"},
		{"absolute form", "reader", "GET", "http://gate.example/any/x", nil, 403, "Insufficient permissions", "pppppssfp", "needs orders:write and the key holds orders:read"},
		{"no key", "none", "GET", "/orders/1", nil, 401, "API key is missing", "pppfsssss", "No API key"},
		{"unknown", "unknown", "GET", "/orders/1", nil, 401, "API key is invalid", "pppfsssss", ""},
		{"deleted", "deleted", "GET", "/orders/1", nil, 401, "API key is invalid", "pppfsssss", ""},
		{"made under a former prefix", "former", "GET", "/any/1", nil, 401, "API key is invalid", "pppfpsspp", `"former" (key_`},
		{"paused", "paused", "GET", "/orders/1", nil, 401, "API key is paused", "pppfpsspp", "paused on 20"},
		{"paused and without the scope", "paused", "POST", "/orders", nil, 401, "API key is paused", "pppfpssfp", ""},
		{"revoked", "revoked", "GET", "/any/1", nil, 401, "API key has been revoked", "pppfpsspp", "revoked on 20"},
		{"expired", "expired", "GET", "/any/1", nil, 401, "API key has expired", "pppfpsspp", "expired on 20"},
		{"scope", "reader", "POST", "/orders", nil, 403, "Insufficient permissions", "pppppssfp", "The route needs orders:write and the key holds orders:read."},
		{"one of two scopes", "reader", "GET", "/both", nil, 403, "Insufficient permissions", "pppppssfp", "needs orders:read, orders:write"},
		{"no scope at all", "nothing", "GET", "/both", nil, 403, "Insufficient permissions", "pppppssfp", "holds nothing there"},
		{"address", "far", "GET", "/any/1", nil, 403, "Insufficient permissions", "ppppfsspp", "comes from 192.0.2.7 and the key may be used from 198.51.100.0/24 only"},
		{"allowed address", "near", "GET", "/any/1", nil, 0, "", "pppppsspp", ""},
		{"organization", "reader", "GET", "/org/default/x", nil, 0, "", "ppppppspp", ""},
		{"foreign organization", "reader", "GET", "/org/acme/x", nil, 403, "Insufficient permissions", "pppppfspp", `takes the organization from path:org and the key belongs to "default"`},
		{"no organization", "operator", "GET", "/org/acme/x", nil, 403, "Insufficient permissions", "pppppfsps", "belongs to no organization"},
		{"none named", "reader", "GET", "/header", nil, 403, "Insufficient permissions", "pppppfspp", "header:X-Organization"},
		{"named", "reader", "GET", "/header", []string{"x-organization", "default"}, 0, "", "ppppppspp", ""},
		{"named twice", "reader", "GET", "/header", []string{"X-Organization", "default", "X-Organization", "acme"}, 400, "Ambiguous request", "pppppfspp", "2 values"},
		{"two spellings", "reader", "GET", "/header", []string{"X-Organization", "default", "X_Organization", "acme"}, 400, "Ambiguous request", "pppppfspp", "in another way too"},
		{"nominated away", "reader", "GET", "/header", []string{"X-Organization", "default", "Connection", "X-Organization"}, 400, "Ambiguous request", "pppppfspp", "Connection"},
		{"in the query", "reader", "GET", "/query?org=default", nil, 0, "", "ppppppspp", ""},
		{"twice in the query", "reader", "GET", "/query?org=default&org=acme", nil, 400, "Ambiguous request", "pppppfspp", ""},
		{"unparsable query", "reader", "GET", "/query?org=default;x=%zz", nil, 400, "Ambiguous request", "pppppfspp", ""},
		{"space", "reader", "GET", "/spaces/berlin/x", nil, 0, "", "pppppsppp", ""},
		{"no such space", "reader", "GET", "/spaces/nowhere/x", nil, 403, "Insufficient permissions", "pppppsfsp", "has no such space. The route takes the space from path:space"},
		{"restricted to a space", "berlin", "GET", "/spaces/berlin/x", nil, 0, "", "pppppsppp", ""},
		{"another space", "berlin", "GET", "/spaces/rome/x", nil, 403, "Insufficient permissions", "pppppsfsp", `restricted to the space "berlin"`},
		{"no space", "berlin", "GET", "/orders/1", nil, 403, "Insufficient permissions", "pppppsfsp", "not about a space"},
		{"organization and space", "writer", "PUT", "/org/acme?space=nowhere", nil, 403, "Insufficient permissions", "pppppffsp", "another organization"},
		{"key in the query", "none", "GET", "/any/x?k=" + g.secrets["reader"], nil, 401, "API key is missing", "pppfsssss", "stands in the URL"},
		{"key in the query and header", "reader", "GET", "/any/x?k=" + g.secrets["writer"], nil, 400, "Ambiguous credentials", "pppfpsspp", "another in the URL"},
		{"key in the path", "none", "POST", "/any/" + g.secrets["writer"], nil, 401, "API key is missing", "pppfsssss", "stands in the URL"},
		{"key in the path and header", "reader", "POST", "/any/" + g.secrets["writer"], nil, 400, "Ambiguous credentials", "pppfpsspp", "another in the URL"},
		{"public", "none", "GET", "/status", nil, 0, "", "pppsssssp", `"address" has 2 of 2 requests per 1 hour left`},
		{"public, with a key", "paused", "POST", "/status?k=" + g.secrets["reader"], nil, 0, "", "pppsssssp", `"address" has 1 of 2`},
		{"public, used up", "reader", "GET", "/status", nil, 429, "Rate limit exceeded", "pppsssssf", `"address" has 0 of 2`},
		{"no route", "reader", "GET", "/nowhere", nil, 404, "Not found", "pfsppsssp", `at the host "x"`},
		{"no route and no key", "none", "GET", "/nowhere", nil, 404, "Not found", "pfsfsssss", ""},
		{"method", "reader", "DELETE", "/orders", nil, 405, "Method not allowed", "ppfppsssp", "none of them the method DELETE. This path allows GET, HEAD, POST"},
		{"methods are case-sensitive", "reader", "get", "/orders/1", nil, 405, "Method not allowed", "ppfppsssp", "case-sensitive"},
		{"a method of nobody's", "reader", "BREW", "/any/x", nil, 0, "", "pppppsspp", ""},
		{"TRACE", "reader", "TRACE", "/any/x", nil, 405, "Method not allowed", "ppfppsspp", "TRACE is forwarded for nobody"},
		{"CONNECT to a path", "reader", "CONNECT", "/any/x", nil, 405, "Method not allowed", "ppfppsspp", "CONNECT is forwarded for nobody"},
		{"CONNECT to a host", "reader", "CONNECT", "gate.example:443", nil, 400, "Ambiguous path", "fssppsssp", ""},
		{"OPTIONS *", "reader", "OPTIONS", "*", nil, 404, "Not found", "pfsppsssp", ""},
		{"OPTIONS", "reader", "OPTIONS", "/any/x", nil, 0, "", "pppppsspp", ""},
		{"overridden method", "reader", "GET", "/orders/1", []string{"x-http-method-override", "DELETE"}, 400, "Ambiguous request", "ppfppsspp", "X-Http-Method-Override"},
		{"overridden on a public route", "reader", "GET", "/status", []string{"X-HTTP-Method", "DELETE"}, 400, "Ambiguous request", "ppfsssssf", ""},
		{"two readings of the path", "reader", "GET", "/any/%2e%2e/orders", nil, 400, "Ambiguous path", "fssppsssp", "encoded dot"},
		{"two slashes", "none", "GET", "//orders", nil, 400, "Ambiguous path", "fssfsssss", "empty segment"},
		{"opaque", "reader", "GET", "mailto:x", nil, 400, "Ambiguous path", "fssppsssp", ""},
		{"a fragment", "reader", "GET", "/orders/1#x", nil, 400, "Ambiguous path", "fssppsssp", "#"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, problem := g.agree(g.question(c.key, c.method, c.target, c.headers...), g.secrets[c.key])
			if problem != "" {
				t.Fatal(problem)
			}
			results, said := "", ""
			for _, check := range e.Checks {
				if check.Name == "upstream" { // TestExplainUpstream
					continue
				}
				results += check.Result[:1]
				if said == "" && (check.Result == "fail" || check.Name == "limit") {
					said = check.Detail
				}
			}
			if e.Status != c.status || e.Error != c.text || results != c.results || !strings.Contains(said, c.words) {
				t.Errorf("%d %q, checks %s, %q\nwant %d %q, checks %s, %q", e.Status, e.Error, results, said, c.status, c.text, c.results, c.words)
			}
		})
	}
}

// What is said beside the answer.
func TestExplainShowsRuleScopesAndLimits(t *testing.T) {
	g := newExplained(t)
	e := g.proxy.Explain(t.Context(), g.question("tiny", "PUT", "/org/default/a?space=rome"))
	want := auth.Explanation{
		Status: 403, Error: "Insufficient permissions", Detail: "Insufficient permissions for operation PUT /org/default/a: the API key lacks orders:write.",
		Rule: &auth.ExplainedRule{
			Match: "PUT /org/{org}/{space...}", Upstream: "api", Permissions: []string{"orders:write"}, Organization: "path:org", Space: "query:space",
		},
		Required: []string{"orders:write"}, Granted: []string{"orders:read"}, Missing: []string{"orders:write"},
		Plan: "tiny", Limits: []auth.ExplainedLimit{{Name: "minute", Quota: 3, Per: "1m", Remaining: 3}, {Name: "burst", Quota: 2, Per: "1s", Remaining: 2}},
	}
	e.Checks = nil
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e := g.proxy.Explain(t.Context(), g.question("none", "GET", "/status")); e.Rule.Public != "2/1h" || e.Plan != "" || e.Limits[0].Remaining != 2 {
		t.Errorf("public: %+v, %+v", e.Rule, e)
	}
	for range 2 {
		if v, _ := g.serve(g.proxy, g.question("tiny", "GET", "/any/x"), g.secrets["tiny"]); v.Status != 0 {
			t.Fatal(v)
		}
	}
	e = g.proxy.Explain(t.Context(), g.question("tiny", "GET", "/any/x"))
	if e.Status != 429 || e.RetryAfter <= 0 || e.Limits[0].Remaining != 1 || e.Limits[1].Remaining != 0 || e.Limits[1].Reset <= 0 {
		t.Errorf("over the limit: %+v", e)
	}
	// A limit that is used up is told also of a request that fails earlier.
	e = g.proxy.Explain(t.Context(), g.question("tiny", "POST", "/orders"))
	if e.Status != 403 || e.RetryAfter <= 0 || e.Checks[8].Result != "fail" {
		t.Errorf("over the limit and without the scope: %+v", e)
	}
	// The plan is gone from the policy: it is said which one stands in.
	g.setPolicy(strings.ReplaceAll(strings.ReplaceAll(explainPolicy, "tiny:", "other:"), "UPSTREAM", g.upstream.URL))
	e = g.proxy.Explain(t.Context(), g.question("tiny", "GET", "/any/x"))
	if e.Plan != "free" || !strings.Contains(e.Checks[8].Detail, `no plan "tiny"; "free" stands in`) || len(g.proxy.UnknownPlans()) != 0 {
		t.Errorf("%+v, noted as unknown: %v", e, g.proxy.UnknownPlans())
	}
}

// Without an address there is no judgement about addresses.
func TestExplainWithoutAnAddress(t *testing.T) {
	g := newExplained(t)
	for key, want := range map[string]string{"far": "skip", "reader": "pass"} {
		q := g.question(key, "GET", "/any/x")
		q.Client = netip.Addr{}
		if e := g.proxy.Explain(t.Context(), q); e.Status != 0 || e.Checks[4].Result != want {
			t.Errorf("%s: %d %+v", key, e.Status, e.Checks[4])
		}
	}
	q := g.question("none", "GET", "/status")
	q.Client = netip.Addr{}
	if e := g.proxy.Explain(t.Context(), q); e.Status != 0 || e.Checks[8].Result != "skip" {
		t.Errorf("public: %d %+v", e.Status, e.Checks[8])
	}
	q = g.question("near", "GET", "/any/x")
	q.Client = netip.MustParseAddr("::ffff:192.0.2.9") // IPv4 in IPv6 form is IPv4
	if e := g.proxy.Explain(t.Context(), q); e.Status != 0 || e.Checks[4].Result != "pass" {
		t.Errorf("mapped: %d %+v", e.Status, e.Checks[4])
	}
}

// While limits or keys cannot be checked, the answers are those of a request.
func TestExplainOutages(t *testing.T) {
	g := newExplained(t)
	g.broken.away.Store(true)
	for _, key := range []string{"reader", "open", "open", "open", "unlimited", "operator"} {
		if _, problem := g.agree(g.question(key, "GET", "/any/x"), g.secrets[key]); problem != "" {
			t.Errorf("%s: %s", key, problem)
		}
	}
	e := g.proxy.Explain(t.Context(), g.question("reader", "GET", "/any/x"))
	if e.Status != 503 || e.RetryAfter != time.Second || e.Limits != nil {
		t.Errorf("strict: %+v", e)
	}
	e = g.proxy.Explain(t.Context(), g.question("open", "GET", "/any/x"))
	if e.Status != 429 || !strings.Contains(e.Checks[8].Detail, "out of reach") {
		t.Errorf("open: %+v", e)
	}
	g.broken.away.Store(false)
	_ = g.store.Close()
	for _, key := range []string{"writer", "reader"} { // one that is not in memory, and one that is
		if _, problem := g.agree(g.question(key, "GET", "/any/x"), g.secrets[key]); problem != "" {
			t.Errorf("%s: %s", key, problem)
		}
	}
	if e := g.proxy.Explain(t.Context(), g.question("writer", "GET", "/any/x")); e.Status != 503 || e.Checks[3].Result != "fail" || e.Checks[7].Result != "skip" {
		t.Errorf("without the store: %+v", e)
	}
	if _, problem := g.agree(g.question("reader", "GET", "/spaces/berlin/x"), g.secrets["reader"]); problem != "" {
		t.Error(problem)
	}
}

// The ledger may know of a change before this replica does.
func TestExplainStopped(t *testing.T) {
	g := newExplained(t)
	ctx := t.Context()
	k, secret := g.key(keys.NewKey{})
	q := g.question("none", "GET", "/any/x")
	q.Key = keys.HashSecret(secret)
	if _, problem := g.agree(q, secret); problem != "" {
		t.Fatal(problem)
	}
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	elsewhere := keys.NewService(keys.ServiceOptions{Store: g.store, Format: format, Policy: g.proxy.PolicyKeys, Changed: func(keys.Change) {}, Now: g.clock})
	paused, err := elsewhere.PauseKey(ctx, keys.System, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.ledger.Stop(ctx, k.Organization, k.ID, paused.Version); err != nil {
		t.Fatal(err)
	}
	// A request that is refused for its scope asks no ledger, and learns nothing.
	lacking := q
	lacking.Target = "/both"
	if e, problem := g.agree(lacking, secret); problem != "" || e.Status != 403 || e.Checks[8].Result != "skip" {
		t.Errorf("%s %+v", problem, e)
	}
	if e, problem := g.agree(q, secret); problem != "" || e.Error != "API key is paused" {
		t.Errorf("%s %+v", problem, e)
	}
	// A mark that the store knows nothing of locks nobody out.
	k, secret = g.key(keys.NewKey{})
	q.Key = keys.HashSecret(secret)
	if err := g.ledger.Stop(ctx, k.Organization, k.ID, k.Version+5); err != nil {
		t.Fatal(err)
	}
	if e, problem := g.agree(q, secret); problem != "" || e.Status != 0 || len(e.Limits) != 1 {
		t.Errorf("%s %+v", problem, e)
	}
}

// Nothing that counts or records requests hears of an explanation.
func TestExplainLeavesNoTrace(t *testing.T) {
	g := newExplained(t)
	counted := func() (n int) {
		families, err := g.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				n += int(m.GetCounter().GetValue()) + int(m.GetHistogram().GetSampleCount())
			}
		}
		return n
	}
	for key := range g.secrets {
		for _, target := range []string{"/any/x", "/both", "/nowhere", "/status", "bad", "/any/x?k=" + g.secrets["reader"]} {
			for range 3 {
				g.proxy.Explain(t.Context(), g.question(key, "GET", target))
			}
		}
	}
	_, _, reached := g.upstream.seen()
	if n := counted(); n != 0 || g.logs.Len() != 0 || reached != 0 || g.ledger.Holders() != 0 {
		t.Errorf("%d metrics, %d log lines, %d requests upstream, %d holders in the ledger", n, g.logs.Len(), reached, g.ledger.Holders())
	}
	k, err := g.store.Lookup(t.Context(), keys.HashSecret(g.secrets["reader"]))
	if err != nil || !k.Key.LastUsedAt.IsZero() {
		t.Errorf("last used %s, %v", k.Key.LastUsedAt, err)
	}
}

// TestExplainUnreadable: what net/http takes for no request is answered 400
// here as there.
func TestExplainUnreadable(t *testing.T) {
	g := newExplained(t)
	for name, change := range map[string]func(q *auth.Question){
		"no target":                 func(q *auth.Question) { q.Target = "" },
		"no leading slash":          func(q *auth.Question) { q.Target = "orders" },
		"a query alone":             func(q *auth.Question) { q.Target = "?a=b" },
		"a space":                   func(q *auth.Question) { q.Target = "/a b" },
		"a line feed":               func(q *auth.Question) { q.Target = "/a\nb" },
		"a NUL":                     func(q *auth.Question) { q.Target = "/a\x00" },
		"DEL":                       func(q *auth.Question) { q.Target = "/a\x7f" },
		"a broken escape":           func(q *auth.Question) { q.Target = "/a%zz" },
		"a smuggled request":        func(q *auth.Question) { q.Target = "/a HTTP/1.1\r\nHost: y\r\n\r\nGET /b" },
		"no method":                 func(q *auth.Question) { q.Method = "" },
		"a method with a space":     func(q *auth.Question) { q.Method = "GET /x" },
		"a method with umlauts":     func(q *auth.Question) { q.Method = "GÉT" },
		"a header's name":           func(q *auth.Question) { q.Header = http.Header{"X Y": {"z"}} },
		"a header without a name":   func(q *auth.Question) { q.Header = http.Header{"": {"z"}} },
		"a header's value":          func(q *auth.Question) { q.Header = http.Header{"X-Y": {"a\r\nb"}} },
		"a host with a path":        func(q *auth.Question) { q.Host = "x/y" },
		"a host with a space":       func(q *auth.Question) { q.Host = "x y" },
		"CONNECT to nothing usable": func(q *auth.Question) { q.Method, q.Target = "CONNECT", "%" },
	} {
		q := g.question("reader", "GET", "/any/x")
		change(&q)
		e := g.proxy.Explain(t.Context(), q)
		if problem := coherent(e); problem != "" || e.Status != 400 || e.Error != "Malformed request" || e.Checks[0].Result != "fail" || e.Checks[3].Result != "skip" {
			t.Errorf("%s: %s %+v", name, problem, e)
		}
	}
	q := g.question("reader", "GET", "/any/"+strings.Repeat("x", 1<<20))
	if e := g.proxy.Explain(t.Context(), q); e.Status != 431 || coherent(e) != "" || len(fmt.Sprint(e)) > 2000 {
		t.Errorf("%d %s", e.Status, e.Detail)
	}
	// A host among the headers counts where the question names none, and no
	// credential does.
	q = g.question("reader", "GET", "/any/x", "host", "gate.example", "authorization", "Bearer "+g.secrets["writer"])
	q.Host = ""
	if e := g.proxy.Explain(t.Context(), q); e.Status != 403 || e.Rule.Match != "GET gate.example/any/x" {
		t.Errorf("%+v", e)
	}
}
