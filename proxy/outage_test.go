package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// TestStopMark: a change that this replica has not heard of acts within the life
// of a lease, because the ledger knows of it.
func TestStopMark(t *testing.T) {
	g := newGate(t, gateOptions{})
	ctx := context.Background()
	k, secret := g.key(keys.NewKey{})
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	// Another replica pauses the key, and the feed does not tell.
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	elsewhere := keys.NewService(keys.ServiceOptions{Store: g.store, Format: format, Policy: g.proxy.PolicyKeys, Changed: func(keys.Change) {}, Now: g.clock})
	paused, err := elsewhere.PauseKey(ctx, keys.System, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 200 {
		t.Fatalf("the test tests nothing: the replica knew of the change: %d", a.StatusCode)
	}
	if err := g.ledger.Stop(ctx, k.Organization, k.ID, paused.Version); err != nil {
		t.Fatal(err)
	}
	// A lease may be spent until it ends; no later.
	g.wait(ratelimit.LeaseTime(time.Minute))
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 401 || a.problem.Error != "API key is paused" {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
}

// TestStopMarkWithoutAChange: a mark that the store knows nothing of, because
// the change was lost, must not lock the key out.
func TestStopMarkWithoutAChange(t *testing.T) {
	g := newGate(t, gateOptions{})
	k, secret := g.key(keys.NewKey{})
	if err := g.ledger.Stop(context.Background(), k.Organization, k.ID, k.Version+5); err != nil {
		t.Fatal(err)
	}
	if a := g.get("GET", "/any/x", secret); a.StatusCode != 200 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
}

// TestLedgerOutage: strict plans refuse without saying that the key or its use
// is wrong; open ones go on within the replica's own count, and say so.
func TestLedgerOutage(t *testing.T) {
	g := newGate(t, gateOptions{policy: strings.Replace(testPolicy, "plans:", "plans:\n  open: { limits: [{ name: minute, requests: 2, per: 1m }], outage: { mode: open } }", 1)})
	_, strict := g.key(keys.NewKey{})
	_, open := g.key(keys.NewKey{Plan: "open"})
	g.broken.away.Store(true)
	a := g.get("GET", "/any/x", strict)
	if a.StatusCode != 503 || a.problem.Error != "Temporarily unavailable" || a.Header.Get("Retry-After") != "1" {
		t.Errorf("strict: %d %s", a.StatusCode, a.body)
	}
	for i, want := range []int{200, 200, 429} {
		a := g.get("GET", "/any/x", open)
		if a.StatusCode != want || a.Header.Get("X-Keygate-Degraded") != "limits" {
			t.Errorf("open, request %d: %d %s, degraded %q", i, a.StatusCode, a.body, a.Header.Get("X-Keygate-Degraded"))
		}
	}
	g.broken.away.Store(false)
	if a := g.get("GET", "/any/x", open); a.StatusCode != 200 || a.Header.Get("X-Keygate-Degraded") != "" {
		t.Errorf("after the outage: %d, degraded %q", a.StatusCode, a.Header.Get("X-Keygate-Degraded"))
	}
	if a := g.get("GET", "/any/x", strict); a.StatusCode != 200 {
		t.Errorf("after the outage, strict: %d", a.StatusCode)
	}
}
