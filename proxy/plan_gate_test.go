package proxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/ratelimit"
)

const richPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions: { "orders:read": {} }
plans:
  rich:
    limits:
      - { name: minute, requests: 100, per: 1m }
      - { name: org, requests: 150, per: 1h, shared: true }
      - { name: month, requests: 500, per: month, timezone: Europe/Zurich }
  single: { limits: [], concurrent: 2 }
routes:
  - { match: "/one", permission: any }
  - { match: "/five", permission: any, cost: 5 }
  - { match: "/metered", permission: any, cost: { header: X-Cost, reserve: 20, max: 60 } }
`

func limits(a answer) string { return a.Header.Get("RateLimit") }

// left is what a limit has left by an answer's header.
func left(t *testing.T, a answer, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(limits(a), `"`+name+`";r=`)
	if !found {
		t.Fatalf("no %q in %s", name, limits(a))
	}
	n, _, _ := strings.Cut(strings.SplitN(rest, ",", 2)[0], ";")
	return n
}

// Windows and months, a key's own and the organization's: all in the headers, in
// /.keygate/me and in what explain says, each counted by those whose it is.
func TestQuotasAndSharedBudgets(t *testing.T) {
	g := newGate(t, gateOptions{policy: richPolicy})
	_, secret := g.key(keys.NewKey{Plan: "rich"})
	_, second := g.key(keys.NewKey{Plan: "rich"})
	for day := g.clock().Day(); day < 2 || day > 26; day = g.clock().Day() {
		g.wait(24 * time.Hour) // the month must not end meanwhile
	}
	a := g.get("GET", "/five", secret)
	if got, want := a.Header.Get("RateLimit-Policy"), `"minute";q=100;w=60, "org";q=150;w=3600, "month";q=500`; got != want {
		t.Errorf("RateLimit-Policy: %s, want %s", got, want)
	}
	if left(t, a, "minute") != "95" || left(t, a, "org") != "145" || left(t, a, "month") != "495" {
		t.Errorf("RateLimit: %s", limits(a))
	}
	if a = g.get("GET", "/one", second); left(t, a, "minute") != "99" || left(t, a, "org") != "144" || left(t, a, "month") != "499" {
		t.Errorf("another key: %s", limits(a))
	}
	for range 19 {
		g.get("GET", "/five", secret)
	}
	for range 9 {
		g.get("GET", "/five", second)
	}
	for range 4 {
		g.get("GET", "/one", second)
	}
	a = g.get("GET", "/one", second)
	if a.StatusCode != http.StatusTooManyRequests || len(a.problem.ViolatedPolicies) != 1 || a.problem.ViolatedPolicies[0] != "org" ||
		!strings.Contains(a.problem.Detail, "150 requests per 1 hour for all keys of the organization together") || left(t, a, "month") != "450" {
		t.Errorf("%d %+v %s", a.StatusCode, a.problem, limits(a))
	}
	var me struct {
		Limits []struct {
			Name, Per, Timezone string
			Shared              bool
			Remaining           int64
		}
	}
	if err := json.Unmarshal(g.get("GET", "/.keygate/me", second).body, &me); err != nil || len(me.Limits) != 3 {
		t.Fatal(err, me)
	}
	if l := me.Limits[1]; !l.Shared || l.Per != "1h" || l.Remaining != 0 {
		t.Errorf("%+v", l)
	}
	if l := me.Limits[2]; l.Per != "month" || l.Timezone != "Europe/Zurich" || l.Remaining != 450 {
		t.Errorf("%+v", l)
	}
	e := g.proxy.Explain(t.Context(), auth.Question{Method: "GET", Target: "/one", Key: keys.HashSecret(second)})
	if e.Status != http.StatusTooManyRequests || e.Limits[2].Per != "month" || e.Limits[2].Timezone != "Europe/Zurich" || !e.Limits[1].Shared {
		t.Errorf("%+v", e)
	}
	// The month is not over when the hour is, and over when it is.
	g.wait(time.Hour + 2*ratelimit.LeaseTime(time.Hour)) // and leases that nobody looks after in a test
	if a = g.get("GET", "/one", secret); a.StatusCode != http.StatusOK || left(t, a, "org") != "149" {
		t.Errorf("%d %s", a.StatusCode, limits(a))
	}
	g.wait(32 * 24 * time.Hour)
	if a = g.get("GET", "/five", secret); left(t, a, "month") != "495" {
		t.Errorf("the next month: %s", limits(a))
	}
}

// An override replaces the plan's limit of the same name, whatever kind it is.
func TestOverridesOfEveryKind(t *testing.T) {
	g := newGate(t, gateOptions{policy: richPolicy})
	var o keys.Overrides
	for _, l := range []struct {
		name, per, zone string
		shared          bool
	}{{"org", "month", "", false}, {"month", "1m", "", true}} {
		o.Add(l.name, 7, l.per, l.zone, l.shared)
	}
	again, err := keys.ParseOverrides(o.Encode())
	if err != nil || again.Limits[0].Period != o.Limits[0].Period || !again.Limits[1].Shared || again.Limits[0].Shared {
		t.Fatalf("%+v, %v", again, err)
	}
	_, secret := g.key(keys.NewKey{Plan: "rich", Overrides: o})
	_, other := g.key(keys.NewKey{Plan: "rich", Overrides: o})
	a := g.get("GET", "/five", secret)
	if got, want := a.Header.Get("RateLimit-Policy"), `"minute";q=100;w=60, "org";q=7, "month";q=7;w=60`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if a = g.get("GET", "/one", other); left(t, a, "org") != "6" || left(t, a, "month") != "1" {
		t.Errorf("%s", limits(a))
	}
}

// What the answer says that a request cost is what the limits hold in the end:
// less, more up to the most, and what was reserved where it says nothing that can
// be understood.
func TestCostByHeader(t *testing.T) {
	g := newGate(t, gateOptions{policy: richPolicy})
	_, secret := g.key(keys.NewKey{Plan: "rich"})
	cost := []string{}
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request) { w.Header()["X-Cost"] = cost }
	for _, step := range []struct {
		header []string
		counts int64 // in the end
		bad    float64
	}{
		{[]string{"3"}, 3, 0},
		{[]string{"0"}, 0, 0},
		{[]string{"20"}, 20, 0},
		{[]string{"35"}, 35, 0},
		{[]string{"1000"}, 60, 0},
		{nil, 20, 1},
		{[]string{"free"}, 20, 1},
		{[]string{"-5"}, 20, 1},
		{[]string{"1.5"}, 20, 1},
		{[]string{"1", "2"}, 20, 1},
		{[]string{"99999999999999999999"}, 20, 1},
	} {
		before := unreadable(t, g)
		cost = step.header
		a := g.get("GET", "/metered", secret)
		if a.StatusCode != http.StatusOK || left(t, a, "minute") != "80" {
			t.Fatalf("%v: %d %s", step.header, a.StatusCode, limits(a))
		}
		g.settle()
		want := map[int64]string{0: "99", 3: "96", 20: "79", 35: "64", 60: "39"}[step.counts]
		if a = g.get("GET", "/one", secret); left(t, a, "minute") != want {
			t.Errorf("%v: %s left, want %s", step.header, left(t, a, "minute"), want)
		}
		if n := unreadable(t, g) - before; n != step.bad {
			t.Errorf("%v: counted %v times", step.header, n)
		}
		g.wait(2 * time.Hour)
	}
	// A request that came to more than there was delays those that follow.
	for _, cost = range [][]string{{"60"}, {"60"}} {
		g.get("GET", "/metered", secret)
		g.settle()
	}
	if a := g.get("GET", "/one", secret); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d %s", a.StatusCode, limits(a))
	}
}

func unreadable(t *testing.T, g *gate) float64 {
	t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "keygate_cost_headers_unreadable_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// So many requests of a key are under way at the same time and no more; one that
// is refused has cost nothing, and one that ends makes room.
func TestConcurrentRequests(t *testing.T) {
	g := newGate(t, gateOptions{policy: richPolicy})
	_, secret := g.key(keys.NewKey{Plan: "single"})
	_, other := g.key(keys.NewKey{Plan: "single"})
	began, end := make(chan struct{}, 9), make(chan struct{})
	g.upstream.answer = func(http.ResponseWriter, *http.Request) { began <- struct{}{}; <-end }
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if a := g.get("GET", "/one", secret); a.StatusCode != http.StatusOK {
				t.Errorf("%d", a.StatusCode)
			}
		})
		<-began
	}
	a := g.get("GET", "/one", secret)
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || a.problem.Error != "Rate limit exceeded" ||
		len(a.problem.ViolatedPolicies) != 1 || a.problem.ViolatedPolicies[0] != "concurrent" || !strings.Contains(a.problem.Detail, "2 requests at the same time") {
		t.Errorf("%d %v %+v", a.StatusCode, a.Header, a.problem)
	}
	all.Go(func() { g.get("GET", "/one", other) }) // each key has its own
	<-began
	close(end)
	all.Wait()
	for range 5 {
		if a := g.get("GET", "/one", secret); a.StatusCode != http.StatusOK {
			t.Errorf("%d %+v", a.StatusCode, a.problem)
		}
	}
	g.broken.away.Store(true)
	time.Sleep(300 * time.Millisecond) // what was not used has gone back
	if a := g.get("GET", "/one", secret); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without the ledger: %d", a.StatusCode)
	}
	var me struct{ Concurrent int64 }
	if err := json.Unmarshal(g.get("GET", "/.keygate/me", secret).body, &me); err != nil || me.Concurrent != 2 {
		t.Errorf("%+v, %v", me, err)
	}
}

// A request whose place is lost while it is under way is cut off, and says so.
func TestConcurrentRequestIsCutOff(t *testing.T) {
	g := newGate(t, gateOptions{policy: richPolicy})
	_, secret := g.key(keys.NewKey{Plan: "single"})
	began := make(chan struct{})
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request) { close(began); <-r.Context().Done() }
	done := make(chan answer)
	go func() { done <- g.get("GET", "/one", secret) }()
	<-began
	g.broken.away.Store(true)
	g.wait(time.Minute)
	select {
	case a := <-done:
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != "1" || !strings.Contains(a.problem.Detail, "cut off") {
			t.Errorf("%d %+v", a.StatusCode, a.problem)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}
