package storetest

import (
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"time"

	"keygate/internal/keys"
)

// roundTrip writes every field of every record and reads it in every way.
func roundTrip(w *world) {
	ctx := w.Context()
	at := func(hours int) time.Time { return w.now.Add(time.Duration(hours) * time.Hour) }
	o := keys.Organization{ID: w.id("org_"), Slug: "acme", Name: "Acme", Plan: "pro", Overrides: json.RawMessage(`{"limits": [1, 2]}`), CreatedAt: at(1), UpdatedAt: at(2)}
	s := keys.Space{ID: w.id("spc_"), Organization: o.ID, Slug: "eu", Name: "Europe", CreatedAt: at(3), UpdatedAt: at(4)}
	a := keys.Account{ID: w.id("acc_"), Organization: o.ID, Name: "Ada", Email: "ada@example.com", Subject: "oidc|1", CreatedAt: at(5), UpdatedAt: at(6)}
	grants := []keys.Grant{
		{ID: w.id("grt_"), Account: a.ID, Organization: o.ID, Role: "owner", CreatedAt: at(7)},
		{ID: w.id("grt_"), Account: a.ID, Organization: o.ID, Space: s.ID, Permission: "orders:*", CreatedAt: at(8)},
		{ID: w.id("grt_"), Account: a.ID, Permission: keys.PermissionOperator, CreatedAt: at(9)},
	}
	k := keys.Key{
		ID: w.id("key_"), Name: "deploy", Description: "for the pipeline", Organization: o.ID, Space: s.ID, Account: a.ID,
		Permissions: []string{"orders:*", "*:read"}, Plan: "enterprise", Overrides: json.RawMessage(`{"minute":null}`),
		AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("192.168.1.7/24")},
		Secrets: []keys.Secret{
			{Hash: keys.HashSecret("new"), Prefix: "kg_live", LastFour: "abcd", CreatedAt: at(10), LastUsedAt: at(11)},
			{Hash: keys.HashSecret("old"), Prefix: "legacy", LastFour: "wxyz", CreatedAt: at(12), EndsAt: at(13), LastUsedAt: at(14), Imported: true},
		},
		CreatedAt: at(15), UpdatedAt: at(16), ExpiresAt: at(17), PausedAt: at(18), RevokedAt: at(19), LastUsedAt: at(20), RotatedAt: at(21),
		Lifetime: 90*24*time.Hour + time.Microsecond,
	}
	setting := keys.Setting{Name: "bootstrap", Value: k.ID}
	entry := keys.AuditEntry{
		ID: w.id("aud_"), At: at(22), Action: "key.create", Actor: k.ID, ActorAccount: a.ID, Address: "192.0.2.1", RequestID: "req-1",
		Kind: keys.KindKey, Target: k.ID, Organization: o.ID, Before: []byte(`{"a":1}`), After: []byte(`{"a": 2}`),
	}
	w.apply(keys.Mutation{
		Organizations: []keys.Organization{o}, Spaces: []keys.Space{s}, Accounts: []keys.Account{a}, Grants: grants,
		Keys: []keys.Key{k}, Settings: []keys.Setting{setting}, Audit: []keys.AuditEntry{entry},
	})
	o.Version, s.Version, a.Version, k.Version, setting.Version = 1, 1, 1, 1, 1

	page := keys.Page{Limit: 10}
	same(w, "Organization", o)(w.s.Organization(ctx, o.ID))
	same(w, "Organizations", []keys.Organization{o})(w.s.Organizations(ctx, page))
	same(w, "Space", s)(w.s.Space(ctx, o.ID, s.ID))
	same(w, "Spaces", []keys.Space{s})(w.s.Spaces(ctx, o.ID, page))
	same(w, "Account", a)(w.s.Account(ctx, a.ID))
	same(w, "Accounts", []keys.Account{a})(w.s.Accounts(ctx, o.ID, page))
	same(w, "Grants", grants)(w.s.Grants(ctx, a.ID))
	same(w, "Key", k)(w.s.Key(ctx, k.ID))
	same(w, "Keys", []keys.Key{k})(w.keys(ctx, keys.KeyFilter{}, page))
	same(w, "Setting", setting)(w.s.Setting(ctx, setting.Name))
	same(w, "AuditLog", []keys.AuditEntry{entry})(w.auditLog(ctx, page))
	same(w, "Lookup", keys.Found{Key: k, Organization: o, Space: s, Grants: grants})(w.s.Lookup(ctx, keys.HashSecret("new")))
	if err := w.s.Ping(ctx); err != nil {
		w.Errorf("Ping: %v", err)
	}
}

// times are kept to the microsecond, come back in UTC, and none stays none.
func times(w *world) {
	n := w.tenant("acme")
	k := w.key(n.account)
	k.CreatedAt = time.Date(2026, 10, 25, 2, 30, 0, 123_456_789, time.FixedZone("CEST", 2*3600))
	k.UpdatedAt = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	k.PausedAt = time.Date(1969, 7, 20, 20, 17, 40, 1000, time.UTC)
	w.create(k)
	got, err := w.s.Key(w.Context(), k.ID)
	if err != nil {
		w.Fatal(err)
	}
	want := map[string][2]time.Time{
		"CreatedAt":    {got.CreatedAt, time.Date(2026, 10, 25, 0, 30, 0, 123_456_000, time.UTC)},
		"UpdatedAt":    {got.UpdatedAt, k.UpdatedAt},
		"PausedAt":     {got.PausedAt, k.PausedAt},
		"RevokedAt":    {got.RevokedAt, time.Time{}},
		"secret's end": {got.Secrets[0].EndsAt, time.Time{}},
	}
	for what, pair := range want {
		if pair[0] != pair[1] { // == compares the location too
			w.Errorf("%s is %v; want %v", what, pair[0], pair[1])
		}
	}
}

// text comes back byte for byte.
func text(w *world) {
	const awkward = "O'Brien \"x\" \\ ; -- DROP TABLE keys; %s ? ?1 :a $1 {kg} *[a] \r\n\t é e\u0301 日本語 🔑 \u202e\U0010ffff"
	n := w.tenant("acme")
	n.organization.Name, n.organization.Plan = awkward, awkward
	n.account.Name, n.account.Email, n.account.Subject = awkward, awkward, awkward
	k := w.key(n.account)
	k.Name, k.Description, k.Permissions = awkward, awkward, []string{awkward, "", awkward}
	k.Secrets[0].Prefix, k.Secrets[0].LastFour = awkward, "日本語🔑"
	g := keys.Grant{ID: w.id("grt_"), Account: n.account.ID, Role: awkward, CreatedAt: w.now}
	setting := keys.Setting{Name: awkward, Value: awkward}
	entry := w.audit(awkward)
	entry.Before = []byte(`{"name": "` + "\u2028" + `\u0000"}`)
	w.apply(keys.Mutation{
		Organizations: []keys.Organization{n.organization}, Accounts: []keys.Account{n.account}, Keys: []keys.Key{k},
		Grants: []keys.Grant{g}, Settings: []keys.Setting{setting}, Audit: []keys.AuditEntry{entry},
	})
	k.Version, n.organization.Version, n.account.Version, setting.Version = 1, 2, 2, 1
	same(w, "Lookup", keys.Found{Key: k, Organization: n.organization, Grants: []keys.Grant{n.grant, g}})(w.s.Lookup(w.Context(), k.Secrets[0].Hash))
	same(w, "Account", n.account)(w.s.Account(w.Context(), n.account.ID))
	same(w, "Setting", setting)(w.s.Setting(w.Context(), awkward))
	same(w, "Keys by name", []keys.Key{k})(w.keys(w.Context(), keys.KeyFilter{Name: awkward}, keys.Page{Limit: 2}))
	same(w, "AuditLog", []keys.AuditEntry{entry})(w.auditLog(w.Context(), keys.Page{Limit: 1}))
}

// copies: what a caller does to a record it was given stays with the caller.
func copies(w *world) {
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	for range 2 {
		f, err := w.s.Lookup(w.Context(), k.Secrets[0].Hash)
		if err != nil {
			w.Fatal(err)
		}
		same(w, "Lookup", k)(f.Key, nil)
		f.Key.Permissions[0], f.Key.Secrets[0].LastFour, f.Grants[0].Role = "x", "x", "x"
	}
}

func unknown(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	fails[keys.Found](w, "Lookup", keys.ErrNotFound)(w.s.Lookup(ctx, keys.HashSecret("?")))
	fails[keys.Organization](w, "Organization by slug", keys.ErrNotFound)(w.s.Organization(ctx, "other"))
	fails[keys.Organization](w, "Organization by id", keys.ErrNotFound)(w.s.Organization(ctx, w.id("org_")))
	fails[keys.Organization](w, "Organization without a name", keys.ErrNotFound)(w.s.Organization(ctx, ""))
	fails[keys.Organization](w, "Organization of another case", keys.ErrNotFound)(w.s.Organization(ctx, "ACME"))
	fails[keys.Space](w, "Space", keys.ErrNotFound)(w.s.Space(ctx, n.organization.ID, "other"))
	fails[keys.Space](w, "Space of no organization", keys.ErrNotFound)(w.s.Space(ctx, w.id("org_"), n.space.ID))
	fails[keys.Account](w, "Account", keys.ErrNotFound)(w.s.Account(ctx, w.id("acc_")))
	fails[keys.Key](w, "Key", keys.ErrNotFound)(w.s.Key(ctx, w.id("key_")))
	fails[keys.Setting](w, "Setting", keys.ErrNotFound)(w.s.Setting(ctx, "nothing"))
	same(w, "Grants", []keys.Grant{})(w.s.Grants(ctx, w.id("acc_")))
	same(w, "Spaces", []keys.Space{})(w.s.Spaces(ctx, w.id("org_"), keys.Page{Limit: 2}))
	same(w, "Accounts", []keys.Account{})(w.s.Accounts(ctx, w.id("org_"), keys.Page{Limit: 2}))
	same(w, "Keys", []keys.Key{})(w.keys(ctx, keys.KeyFilter{Organization: w.id("org_")}, keys.Page{Limit: 2}))
}

// references: organizations and spaces answer to id and slug, and a space only
// within its own organization.
func references(w *world) {
	ctx := w.Context()
	a, b := w.tenant("acme"), w.tenant("beta")
	same(w, "Organization by slug", a.organization)(w.s.Organization(ctx, "acme"))
	same(w, "Organization by id", b.organization)(w.s.Organization(ctx, b.organization.ID))
	same(w, "Space by slug", a.space)(w.s.Space(ctx, a.organization.ID, "production"))
	same(w, "Space by slug", b.space)(w.s.Space(ctx, b.organization.ID, "production"))
	same(w, "Space by id", b.space)(w.s.Space(ctx, b.organization.ID, b.space.ID))
	fails[keys.Space](w, "another's space", keys.ErrNotFound)(w.s.Space(ctx, a.organization.ID, b.space.ID))
	// Redis has the slugs of organizations and of spaces under names of one form: what
	// names a space's, given for an organization, failed where there is such a space
	// and was not found where there is none. So one tenant learned another's slugs.
	for _, ref := range []string{b.organization.ID + ":production", b.organization.ID + ":other"} {
		fails[keys.Organization](w, ref, keys.ErrNotFound)(w.s.Organization(ctx, ref))
		fails[keys.Space](w, ref, keys.ErrNotFound)(w.s.Space(ctx, a.organization.ID, ref))
	}
}

func lookup(w *world) {
	ctx := w.Context()
	a, b := w.tenant("acme"), w.tenant("beta")
	operator := keys.Account{ID: w.id("acc_"), Name: "operator", CreatedAt: w.now, UpdatedAt: w.now}
	loner := w.account(a.organization)
	second := w.grant(a.account)
	w.apply(keys.Mutation{Accounts: []keys.Account{operator, loner}, Grants: []keys.Grant{second}})

	rotated := w.key(a.account)
	rotated.Space = a.space.ID
	rotated.Secrets = []keys.Secret{w.secret("the new one"), w.secret("the old one")}
	rotated.Secrets[1].EndsAt = w.now.Add(-time.Hour) // whether it still counts is not the store's to say
	plain, own, lone := w.key(b.account), w.key(operator), w.key(loner)
	made := w.create(rotated, plain, own, lone)

	want := keys.Found{Key: made[0], Organization: a.organization, Space: a.space, Grants: []keys.Grant{a.grant, second}}
	same(w, "present secret", want)(w.s.Lookup(ctx, rotated.Secrets[0].Hash))
	want.Secret = 1
	same(w, "rotated-out secret", want)(w.s.Lookup(ctx, rotated.Secrets[1].Hash))
	same(w, "another organization", keys.Found{Key: made[1], Organization: b.organization, Grants: []keys.Grant{b.grant}})(w.s.Lookup(ctx, plain.Secrets[0].Hash))
	same(w, "operator's key", keys.Found{Key: made[2]})(w.s.Lookup(ctx, own.Secrets[0].Hash))
	same(w, "owner without grants", keys.Found{Key: made[3], Organization: a.organization})(w.s.Lookup(ctx, lone.Secrets[0].Hash))
	same(w, "operators' accounts", []keys.Account{{ID: operator.ID, Name: "operator", Version: 1, CreatedAt: w.now, UpdatedAt: w.now}})(w.s.Accounts(ctx, "", keys.Page{Limit: 5}))

	// A paused, revoked or expired key is found: its state is for the caller to see.
	k := made[1]
	k.PausedAt, k.RevokedAt, k.ExpiresAt = w.now, w.now, w.now
	w.apply(keys.Mutation{Keys: []keys.Key{k}})
	k.Version++
	same(w, "revoked key", keys.Found{Key: k, Organization: b.organization, Grants: []keys.Grant{b.grant}})(w.s.Lookup(ctx, k.Secrets[0].Hash))
}

// lookupIsOneSnapshot: what one change writes together is seen together.
func lookupIsOneSnapshot(w *world) {
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	ctx, stop := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() {
		defer stop()
		for range 40 {
			plan := "free"
			if n.organization.Plan == plan {
				plan = "pro"
			}
			n.organization.Plan, k.Plan = plan, plan
			if err := w.try(keys.Mutation{Organizations: []keys.Organization{n.organization}, Keys: []keys.Key{k}}); err != nil {
				w.Errorf("Apply: %v", err)
				return
			}
			n.organization.Version++
			k.Version++
		}
	})
	for ctx.Err() == nil {
		f, err := w.s.Lookup(context.Background(), k.Secrets[0].Hash)
		if err != nil {
			w.Fatal(err)
		}
		if f.Key.Plan != f.Organization.Plan && f.Key.Version > 1 || f.Key.Version != f.Organization.Version {
			w.Fatalf("key version %d on plan %q, organization version %d on plan %q", f.Key.Version, f.Key.Plan, f.Organization.Version, f.Organization.Plan)
		}
	}
	writing.Wait()
}
