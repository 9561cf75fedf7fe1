package proxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"keygate/auth"
	"keygate/internal/keys"
)

// explain said that a request would be forwarded while the breaker held all of them
// back, or the upstream had as many as it may, or no target was well.
func TestExplainUpstream(t *testing.T) {
	ask := func(t *testing.T, g *gate, secret string) (auth.Explanation, auth.Check) {
		t.Helper()
		e := g.proxy.Explain(t.Context(), auth.Question{Method: "GET", Target: "/x", Key: keys.HashSecret(secret)})
		last := e.Checks[len(e.Checks)-1]
		if last.Name != "upstream" {
			t.Errorf("the last check is %+v", last)
		}
		return e, last
	}
	t.Run("breaker", func(t *testing.T) {
		t.Parallel()
		targets, urls := newTargets(t, 1)
		g, secret := front(t, urls, "breaker: { requests: 10, open: 1s }")
		if e, check := ask(t, g, secret); e.Status != 0 || check.Result != "pass" || !strings.Contains(check.Detail, "1 of 1") {
			t.Errorf("well: %+v", check)
		}
		targets[0].status.Store(503)
		for range 10 {
			g.get("GET", "/x", secret)
		}
		e, check := ask(t, g, secret)
		a := g.get("GET", "/x", secret)
		if e.Status != a.StatusCode || e.Error != a.problem.Error || e.RetryAfter.Seconds() != 1 || check.Result != "fail" || !strings.Contains(check.Detail, "fails at the moment") {
			t.Errorf("open: %+v, answered %d %s", e, a.StatusCode, a.body)
		}
		waitFor(t, func() bool { e, _ := ask(t, g, secret); return e.Status == 0 }) // half open
		targets[0].status.Store(0)
		if a := g.get("GET", "/x", secret); a.StatusCode != 200 {
			t.Errorf("explain has taken the place of the request that may try: %d %s", a.StatusCode, a.body)
		}
	})
	t.Run("max_concurrent", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		g, secret := front(t, []string{"UPSTREAM"}, "max_concurrent: 1")
		g.upstream.answer = func(http.ResponseWriter, *http.Request) { <-release }
		var held sync.WaitGroup
		held.Go(func() { g.get("GET", "/x", secret) })
		waitFor(t, func() bool { _, _, n := g.upstream.seen(); return n == 1 })
		if e, check := ask(t, g, secret); e.Status != 503 || check.Result != "fail" || !strings.Contains(check.Detail, "as many requests under way as it may have") {
			t.Errorf("%+v", e)
		}
		close(release)
		held.Wait()
		waitFor(t, func() bool { e, _ := ask(t, g, secret); return e.Status == 0 })
	})
	t.Run("targets", func(t *testing.T) {
		t.Parallel()
		targets, urls := newTargets(t, 2)
		g, secret := front(t, urls, "health: { path: /healthz, every: 100ms }")
		for i, want := range []string{"1 of 2 targets that are well", "no target that is well: 2 of 2"} {
			targets[i].ill.Store(true)
			waitFor(t, func() bool {
				e, check := ask(t, g, secret)
				return e.Status == 0 && check.Result == "pass" && strings.Contains(check.Detail, want)
			})
		}
	})
}

// explain did not know of KEYGATE_REQUIRE_HTTPS.
func TestExplainHTTPS(t *testing.T) {
	g := newGate(t, gateOptions{https: true})
	_, secret := g.key(keys.NewKey{})
	e := g.proxy.Explain(t.Context(), auth.Question{Method: "GET", Target: "/any/x", Key: keys.HashSecret(secret)})
	if first := e.Checks[0]; e.Status != 0 || first.Name != "https" || first.Result != "skip" || !strings.Contains(first.Detail, "403 (HTTPS is required)") {
		t.Errorf("%+v", e)
	}
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 403 || a.problem.Error != "HTTPS is required" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
