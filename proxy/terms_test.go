package proxy_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// change writes a key as it is given, past the service.
func (g *gate) change(k keys.Key) keys.Key {
	g.t.Helper()
	if _, err := g.store.Apply(context.Background(), keys.Mutation{At: g.clock(), Keys: []keys.Key{k}}); err != nil {
		g.t.Fatal(err)
	}
	k.Version++
	g.auth.Changed(keys.Change{Kind: keys.KindKey, ID: k.ID, Version: k.Version})
	return k
}

// TestOverriddenLimits: what was negotiated for a key is what counts and what
// the client reads.
func TestOverriddenLimits(t *testing.T) {
	g := newGate(t, gateOptions{})
	k, secret := g.key(keys.NewKey{Plan: "tiny"})
	k.Overrides = keys.Overrides{Limits: []ratelimit.Limit{
		{Name: "burst", Quota: 1, Per: time.Second}, {Name: "day", Quota: 9, Per: 24 * time.Hour},
	}}.Encode()
	k = g.change(k)
	a := g.get("GET", "/any/x", secret)
	if got := a.Header.Get("Ratelimit-Policy"); a.StatusCode != 200 || got != `"minute";q=3;w=60, "burst";q=1;w=1, "day";q=9;w=86400` {
		t.Fatalf("%d, RateLimit-Policy %s", a.StatusCode, got)
	}
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 429 || !strings.HasPrefix(a.problem.Detail, "This API key's limit is 1 request per 1 second, and ") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	k.Overrides = json.RawMessage(`{"limits":"none"}`)
	g.change(k)
	a = g.get("GET", "/any/x", secret)
	if a.StatusCode != 503 || strings.Contains(string(a.body), "override") {
		t.Errorf("overrides that cannot be read: %d %s", a.StatusCode, a.body)
	}
	line := g.logs.FilterMessage("request").All()
	if text, _ := line[len(line)-1].ContextMap()["error"].(string); !strings.Contains(text, "overrides are not readable") {
		t.Errorf("the log says %q", text)
	}
}
