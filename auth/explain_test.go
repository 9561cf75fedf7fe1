package auth

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"keygate/internal/keys"
	"keygate/proxy/route"
)

// ByHash answers for a hash what Authenticate does for the secret, from the same
// memory.
func TestByHashIsAuthenticate(t *testing.T) {
	f := newFixture(t)
	now := f.now()
	foreign, err := keys.NewFormat("former")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for name, change := range map[string]func(k *keys.Key){
		"active": func(*keys.Key) {}, "paused": func(k *keys.Key) { k.PausedAt = now }, "revoked": func(k *keys.Key) { k.RevokedAt = now },
		"expired": func(k *keys.Key) { k.ExpiresAt = now }, "former": func(*keys.Key) {},
	} {
		k := someKey
		k.ID = "key_" + name
		change(&k)
		known[name] = f.format.Generate()
		if name == "former" {
			known[name] = foreign.Generate()
		}
		f.store.put(known[name], k)
		h := keys.HashSecret(known[name])
		f.store.found[h].Key.Secrets[0].Prefix = known[name][:len(known[name])-37]
	}
	known["rotated out"] = f.format.Generate()
	k := someKey
	f.store.put(known["rotated out"], k)
	s := &f.store.found[keys.HashSecret(known["rotated out"])].Key.Secrets[0]
	s.Prefix, s.EndsAt = keys.DefaultPrefix, now
	known["unknown"] = f.format.Generate()

	for name, secret := range known {
		want, wantRefusal := f.Authenticate(context.Background(), secret, netip.Addr{}, f.policy)
		lookups := f.store.lookups.Load()
		got, refusal := f.ByHash(context.Background(), keys.HashSecret(secret), f.policy)
		if name != "former" && f.store.lookups.Load() != lookups {
			t.Errorf("%s: looked up again", name)
		}
		if (refusal == nil) != (wantRefusal == nil) || refusal != nil && (refusal.Reason != wantRefusal.Reason || refusal.Detail != wantRefusal.Detail || refusal.Key != wantRefusal.Key) {
			t.Errorf("%s: %+v, want %+v", name, refusal, wantRefusal)
		}
		if want != nil && got != want || (got == nil) != (name == "unknown") {
			t.Errorf("%s: principal %v, want %v", name, got, want)
		}
	}
}

// Judge goes on where Authorize stops, and knows what the owner lacks.
func TestJudge(t *testing.T) {
	f := newFixture(t)
	catalogue, err := keys.NewCatalogue([]keys.Permission{{Name: "orders:read", Group: "x"}, {Name: "orders:write", Group: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Catalogue = catalogue
	secret := f.format.Generate()
	k := someKey
	k.Permissions, k.AllowedCIDRs = []string{"orders:write"}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	f.store.put(secret, k)
	found := f.store.found[keys.HashSecret(secret)]
	found.Key.Secrets[0].Prefix = keys.DefaultPrefix
	found.Grants = []keys.Grant{{Account: k.Account, Organization: k.Organization, Permission: "orders:read"}}
	f.store.found[keys.HashSecret(secret)] = found
	f.store.spaces["org_1/lab"] = keys.Space{ID: "spc_1", Slug: "lab"}

	p, refusal := f.ByHash(context.Background(), keys.HashSecret(secret), f.policy)
	if refusal != nil {
		t.Fatal(refusal)
	}
	pattern, err := route.ParsePattern("GET /{org}/{space}")
	if err != nil {
		t.Fatal(err)
	}
	rule := &route.Rule{
		Pattern: pattern, Permissions: []string{"orders:read", "orders:write"},
		Organization: &route.Binding{Name: "org"}, Space: &route.Binding{Name: "space"},
	}
	for _, name := range rule.Permissions {
		n, _ := catalogue.Index(name)
		rule.Need = append(rule.Need, n)
	}
	elsewhere := netip.MustParseAddr("198.51.100.1")
	j := f.Judge(context.Background(), p, httptest.NewRequest("GET", "/acme/lab", nil), rule, elsewhere)
	if j.Address == nil || j.Organization == nil || j.Space != nil || j.Scope == nil {
		t.Errorf("%+v", j)
	}
	if j.Granted == nil || len(j.Granted) != 0 || !slices.Equal(j.Unowned, []string{"orders:write"}) {
		t.Errorf("granted %v, given and not owned %v", j.Granted, j.Unowned)
	}
	if j := f.Judge(context.Background(), p, httptest.NewRequest("GET", "/org_1/none", nil), rule, netip.MustParseAddr("192.0.2.1")); j.Address != nil || j.Organization != nil || j.Space == nil || j.Scope != nil || j.Granted != nil {
		t.Errorf("%+v", j)
	}
	if j := f.Judge(context.Background(), p, nil, nil, elsewhere); j.Address == nil || j.Organization != nil || j.Scope != nil {
		t.Errorf("without a rule: %+v", j)
	}
}
