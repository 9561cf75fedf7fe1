package test

import (
	"net/http"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// lastUsed is a key's last use as the management API shows it. Where the key's
// secret is the administrator's own, asking is a use.
func (g *gateway) lastUsed(id string) time.Time {
	g.t.Helper()
	k, err := g.api().GetKey(g.t.Context(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return k.LastUsedAt
}

// use sends one request, which must get this status.
func (g *gateway) use(c *http.Client, key string, status int) {
	g.t.Helper()
	if a, err := try(c, http.MethodGet, g.proxy+"/x", key, nil); err != nil || a.status != status {
		g.t.Fatalf("%v, %d %s", err, a.status, a.body)
	}
}

// When a key was used outlives a kill once it was written, and an orderly end
// at once. A refused request is a use too, a refused key is not.
func TestLastUse(t *testing.T) {
	t.Parallel()
	backend := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(backend, tenantPolicy)})
	c := newClient(t)
	before := time.Now().Truncate(time.Microsecond)
	lacking := g.newKey("lacking", "--permissions", "orders:write")
	other := g.newKey("other", "--permissions", "orders:write")
	revoked := g.newKey("revoked", "--permissions", "orders:write")
	g.must(new(admin.Key), "keys", "revoke", revoked.ID, "--yes")
	if at := g.lastUsed(lacking.ID); !at.IsZero() {
		t.Fatalf("a new key was used at %v", at)
	}
	orders := func(k admin.CreatedKey, status int) {
		t.Helper()
		if a, err := try(c, http.MethodGet, g.proxy+"/orders/1", k.Secret, nil); err != nil || a.status != status {
			t.Fatalf("%v, %d %s", err, a.status, a.body)
		}
	}
	orders(lacking, http.StatusForbidden)
	orders(revoked, http.StatusUnauthorized)
	var used time.Time
	eventually(t, "the use is shown", func() bool {
		used = g.lastUsed(lacking.ID)
		return !used.IsZero()
	})
	if after := time.Now(); used.Before(before) || used.After(after) {
		t.Errorf("used at %v, sent between %v and %v", used, before, after)
	}
	g.kill9()
	g.start()
	if at := g.lastUsed(lacking.ID); !at.Equal(used) {
		t.Errorf("after a kill: %v, was %v", at, used)
	}
	orders(other, http.StatusForbidden)
	g.restart()
	if g.lastUsed(other.ID).IsZero() {
		t.Error("an orderly end forgot the use just before it")
	}
	if at := g.lastUsed(revoked.ID); !at.IsZero() {
		t.Errorf("the revoked key was used at %v", at)
	}
	if n := g.metric("keygate_uses_dropped_total"); n != 0 {
		t.Errorf("%v uses were dropped", n)
	}
}

// Two replicas tell apart uses of a minute, not more: the second one's use
// changes nothing.
func TestLastUseOnTwoReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	backend := newUpstream(t, nil)
	all := startReplicas(t, settings{"KEYGATE_UPSTREAM": backend.URL}, server.URL(), server.URL())
	c := newClient(t)
	key := all[0].created(admin.NewKey{Name: "shared"})
	all[0].use(c, key.Secret, http.StatusOK)
	var used time.Time
	eventually(t, "the use is shown", func() bool {
		used = all[1].lastUsed(key.ID)
		return !used.IsZero()
	})
	all[1].use(c, key.Secret, http.StatusOK)
	for _, g := range all { // an orderly end writes what was noted
		g.restart()
	}
	if at := all[0].lastUsed(key.ID); !at.Equal(used) && at.Sub(used) < keys.UseEvery {
		t.Errorf("used at %v and, within a minute, at %v: that is one use", used, at)
	}
}
