package test

import (
	"net/http"
	"strconv"
	"testing"
)

// Whoever tries keys or looks for what is there gets 429 after a while, from both
// listeners, and so does nobody else: valid keys of the same address are served.
func TestFailedRequestsHaveABudget(t *testing.T) {
	t.Parallel()
	g := start(t, settings{
		"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_FAILED_PER_ADDRESS": "4/10m",
	})
	good := g.newKey("good").Secret
	g.refused(http.StatusUnauthorized, "API key is invalid", "/any", newSecret(t))
	g.refused(http.StatusUnauthorized, "API key is invalid", "/any", "junk")
	g.refused(http.StatusNotFound, "Not found", "/nowhere", good)
	if a := g.do(http.MethodDelete, g.proxy+"/orders", good, ""); a.status != http.StatusMethodNotAllowed {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/any", "/nowhere"} {
		a, p := g.refused(http.StatusTooManyRequests, "Rate limit exceeded", path, newSecret(t))
		if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 100 || wait > 151 || len(p.ViolatedPolicies) != 1 {
			t.Errorf("%s: Retry-After %q, %+v", path, a.header.Get("Retry-After"), p)
		}
	}
	if a := g.do(http.MethodGet, g.management+"/v1/keys", newSecret(t), ""); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("management API: %d %v", a.status, a.header)
	}
	g.wants(http.StatusOK, "/any", good)
	g.refused(http.StatusForbidden, "Insufficient permissions", "/orders/1", good) // found, so no failure of this kind
	g.refused(http.StatusUnauthorized, "API key is missing", "/any", "")
	if n := g.metric("keygate_address_failures_refused_total"); n != 3 {
		t.Errorf("keygate_address_failures_refused_total is %v", n)
	}
}
