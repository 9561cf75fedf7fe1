package storetest

import (
	"errors"
	"reflect"
	"strings"

	"keygate/internal/keys"
)

// refuses wants a mutation to fail with this error and to leave nothing behind.
// want is a sentinel, or the very *ExistsError, *InUseError or *TooManyKeysError.
func (w *world) refuses(what string, m keys.Mutation, want error) {
	w.Helper()
	w.untouched(what, func() {
		w.Helper()
		err := w.try(m)
		var exists *keys.ExistsError
		var inUse *keys.InUseError
		var tooMany *keys.TooManyKeysError
		switch {
		case errors.As(want, &exists):
			exists = nil
			if errors.As(err, &exists); reflect.DeepEqual(exists, want) {
				return
			}
		case errors.As(want, &inUse):
			inUse = nil
			if errors.As(err, &inUse); reflect.DeepEqual(inUse, want) {
				return
			}
		case errors.As(want, &tooMany):
			tooMany = nil
			if errors.As(err, &tooMany); reflect.DeepEqual(tooMany, want) {
				return
			}
		case errors.Is(err, want):
			return
		}
		w.Errorf("%s: error %v; want %v", what, err, want)
	})
}

// update replaces every field, secrets included, and counts versions.
func update(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	old := k.Secrets[0].Hash

	o, s, a := n.organization, n.space, n.account
	o.Slug, o.Name, o.Plan, o.Overrides, o.UpdatedAt = "acme-2", "Acme 2", "pro", []byte(`{}`), w.now.Add(1)
	s.Slug, s.Name = "staging", "Staging"
	a.Name, a.Email, a.Subject = "Bob", "bob@example.com", "oidc|2"
	k.Name, k.Description, k.Space, k.Permissions, k.Plan, k.Overrides = "renamed", "text", s.ID, nil, "pro", []byte(`[]`)
	k.Secrets = []keys.Secret{w.secret("the next secret"), k.Secrets[0]}
	k.PausedAt, k.RotatedAt = w.now, w.now
	setting := keys.Setting{Name: "mode", Value: "one"}
	w.apply(keys.Mutation{Organizations: []keys.Organization{o}, Spaces: []keys.Space{s}, Accounts: []keys.Account{a}, Keys: []keys.Key{k}, Settings: []keys.Setting{setting}})
	o.Version, s.Version, a.Version, k.Version, setting.Version = 2, 2, 2, 2, 1
	o.UpdatedAt = w.now // nanoseconds are not kept

	same(w, "Lookup", keys.Found{Key: k, Secret: 1, Organization: o, Space: s, Grants: []keys.Grant{n.grant}})(w.s.Lookup(ctx, old))
	same(w, "Account", a)(w.s.Account(ctx, a.ID))
	fails[keys.Organization](w, "former slug", keys.ErrNotFound)(w.s.Organization(ctx, "acme"))
	same(w, "new slug", o)(w.s.Organization(ctx, "acme-2"))
	fails[keys.Space](w, "former slug", keys.ErrNotFound)(w.s.Space(ctx, o.ID, "production"))
	same(w, "new slug", s)(w.s.Space(ctx, o.ID, "staging"))
	same(w, "former name", []keys.Key{})(w.keys(ctx, keys.KeyFilter{Name: n.account.Name}, keys.Page{Limit: 9}))
	same(w, "new name", []keys.Key{k})(w.keys(ctx, keys.KeyFilter{Name: "renamed"}, keys.Page{Limit: 9}))

	k.Secrets = k.Secrets[:1]
	k.Space, k.PausedAt = "", keys.Key{}.PausedAt
	setting.Value = "two"
	w.apply(keys.Mutation{Keys: []keys.Key{k}, Settings: []keys.Setting{setting}})
	k.Version, setting.Version = 3, 2
	fails[keys.Found](w, "a secret that was taken away", keys.ErrNotFound)(w.s.Lookup(ctx, old))
	same(w, "Key", k)(w.s.Key(ctx, k.ID))
	same(w, "Setting", setting)(w.s.Setting(ctx, "mode"))

	// The former slugs and the former secret are free.
	again := w.organization("acme")
	other := w.key(n.account)
	other.Secrets[0].Hash = old
	w.apply(keys.Mutation{Organizations: []keys.Organization{again}, Keys: []keys.Key{other}, Spaces: []keys.Space{w.space(o, "production")}})
}

func deleteKeys(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	made := w.create(w.key(n.account), w.key(n.account))
	k := made[0]
	k.Secrets = append(k.Secrets, w.secret("second secret"))
	w.apply(keys.Mutation{Keys: []keys.Key{k}})
	k.Version++

	w.apply(keys.Mutation{DeleteKeys: []keys.Key{{ID: k.ID, Version: k.Version}}}) // ID and Version are enough
	fails[keys.Key](w, "Key", keys.ErrNotFound)(w.s.Key(ctx, k.ID))
	for _, s := range k.Secrets {
		fails[keys.Found](w, "Lookup", keys.ErrNotFound)(w.s.Lookup(ctx, s.Hash))
	}
	for _, f := range []keys.KeyFilter{{}, {Organization: n.organization.ID}, {Name: made[1].Name}} {
		same(w, "Keys", made[1:])(w.keys(ctx, f, keys.Page{Limit: 9}))
	}
	w.refuses("deleting again", keys.Mutation{DeleteKeys: []keys.Key{k}}, keys.ErrNotFound)
	w.refuses("changing it", keys.Mutation{Keys: []keys.Key{k}}, keys.ErrNotFound)

	// In one change, a key makes room for another with its secret.
	next := w.key(n.account)
	next.Secrets = made[1].Secrets
	w.apply(keys.Mutation{DeleteKeys: made[1:], Keys: []keys.Key{next}})
	next.Version = 1
	same(w, "successor", keys.Found{Key: next, Organization: n.organization, Grants: []keys.Grant{n.grant}})(w.s.Lookup(ctx, next.Secrets[0].Hash))
}

// conflict: a change based on another version than the stored one fails.
func conflict(w *world) {
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	setting := keys.Setting{Name: "mode", Version: 1}
	w.apply(keys.Mutation{Settings: []keys.Setting{{Name: "mode"}}})
	for _, off := range []int64{-1, 1, 5} {
		o, s, a, k, setting := n.organization, n.space, n.account, k, setting
		o.Version, s.Version, a.Version, k.Version, setting.Version = 2+off, 2+off, 2+off, 2+off, 2+off
		if off == -1 { // the stored version is 1: this once it works, for what follows is stale
			w.apply(keys.Mutation{Organizations: []keys.Organization{o}, Spaces: []keys.Space{s}, Accounts: []keys.Account{a}, Keys: []keys.Key{k}, Settings: []keys.Setting{setting}})
		}
		w.refuses("organization", keys.Mutation{Organizations: []keys.Organization{o}}, keys.ErrConflict)
		w.refuses("space", keys.Mutation{Spaces: []keys.Space{s}}, keys.ErrConflict)
		w.refuses("account", keys.Mutation{Accounts: []keys.Account{a}}, keys.ErrConflict)
		w.refuses("key", keys.Mutation{Keys: []keys.Key{k}}, keys.ErrConflict)
		w.refuses("setting", keys.Mutation{Settings: []keys.Setting{setting}}, keys.ErrConflict)
		w.refuses("deleting", keys.Mutation{DeleteKeys: []keys.Key{k}}, keys.ErrConflict)
	}
	k.Version = 0
	w.refuses("deleting what was never read", keys.Mutation{DeleteKeys: []keys.Key{k}}, keys.ErrConflict)

	// What should be there and is not is gone rather than changed.
	gone := func(id string) keys.Key { k := w.key(n.account); k.ID, k.Version = id, 1; return k }
	w.refuses("key that is not there", keys.Mutation{Keys: []keys.Key{gone("key_0")}}, keys.ErrNotFound)
	w.refuses("organization that is not there", keys.Mutation{Organizations: []keys.Organization{{ID: "org_0", Slug: "x", Version: 1}}}, keys.ErrNotFound)
	w.refuses("space that is not there", keys.Mutation{Spaces: []keys.Space{{ID: "spc_0", Organization: n.organization.ID, Slug: "x", Version: 1}}}, keys.ErrNotFound)
	w.refuses("account that is not there", keys.Mutation{Accounts: []keys.Account{{ID: "acc_0", Version: 1}}}, keys.ErrNotFound)
	w.refuses("setting that is not there", keys.Mutation{Settings: []keys.Setting{{Name: "x", Version: 1}}}, keys.ErrNotFound)
}

func exists(w *world) {
	n, other := w.tenant("acme"), w.tenant("beta")
	k := w.create(w.key(n.account))[0]
	w.apply(keys.Mutation{Settings: []keys.Setting{{Name: "mode", Value: "x"}}})

	o := w.organization("gamma")
	o.ID = n.organization.ID
	w.refuses("organization id", keys.Mutation{Organizations: []keys.Organization{o}}, &keys.ExistsError{Kind: "organization", Field: "id", Value: o.ID})
	w.refuses("organization slug", keys.Mutation{Organizations: []keys.Organization{w.organization("acme")}}, &keys.ExistsError{Kind: "organization", Field: "slug", Value: "acme"})
	renamed := other.organization
	renamed.Slug = "acme"
	w.refuses("slug of another", keys.Mutation{Organizations: []keys.Organization{renamed}}, &keys.ExistsError{Kind: "organization", Field: "slug", Value: "acme"})
	w.refuses("slug twice at once", keys.Mutation{Organizations: []keys.Organization{w.organization("delta"), w.organization("delta")}}, &keys.ExistsError{Kind: "organization", Field: "slug", Value: "delta"})

	s := w.space(n.organization, "gamma")
	s.ID = n.space.ID
	w.refuses("space id", keys.Mutation{Spaces: []keys.Space{s}}, &keys.ExistsError{Kind: "space", Field: "id", Value: s.ID})
	w.refuses("space slug", keys.Mutation{Spaces: []keys.Space{w.space(n.organization, "production")}}, &keys.ExistsError{Kind: "space", Field: "slug", Value: "production"})

	a := w.account(n.organization)
	a.ID = n.account.ID
	w.refuses("account id", keys.Mutation{Accounts: []keys.Account{a}}, &keys.ExistsError{Kind: "account", Field: "id", Value: a.ID})
	w.refuses("grant id", keys.Mutation{Grants: []keys.Grant{n.grant}}, &keys.ExistsError{Kind: "grant", Field: "id", Value: n.grant.ID})
	w.refuses("setting name", keys.Mutation{Settings: []keys.Setting{{Name: "mode"}}}, &keys.ExistsError{Kind: "setting", Field: "name", Value: "mode"})

	copied := w.key(n.account)
	copied.ID = k.ID
	w.refuses("key id", keys.Mutation{Keys: []keys.Key{copied}}, &keys.ExistsError{Kind: "key", Field: "id", Value: k.ID})
	stolen := w.key(other.account)
	stolen.Secrets[0].Hash = k.Secrets[0].Hash
	changed := w.create(w.key(n.account))[0]
	changed.Secrets = append(changed.Secrets, k.Secrets[0])
	for what, m := range map[string]keys.Mutation{"hash of another key": {Keys: []keys.Key{stolen}}, "hash of another key in a rotation": {Keys: []keys.Key{changed}}} {
		w.untouched(what, func() {
			var e *keys.ExistsError
			if err := w.try(m); !errors.As(err, &e) || e.Kind != "key" || e.Field != "hash" {
				w.Errorf("%s: error %v", what, err)
			} else if e.Value == "" || strings.Contains(e.Value, string(k.Secrets[0].Hash[:])) || len(e.Value) > 60 {
				w.Errorf("%s: value %q; want what may be shown of the secret", what, e.Value)
			}
		})
	}
	same(w, "the secret's owner", keys.Found{Key: k, Organization: n.organization, Grants: []keys.Grant{n.grant}})(w.s.Lookup(w.Context(), k.Secrets[0].Hash))
}

// dangling: what a record refers to must be there, and a space must be the
// organization's own.
func dangling(w *world) {
	n, other := w.tenant("acme"), w.tenant("beta")
	operator := keys.Account{ID: w.id("acc_"), Name: "operator"}
	w.apply(keys.Mutation{Accounts: []keys.Account{operator}})
	key := func(change func(k *keys.Key)) keys.Mutation {
		k := w.key(n.account)
		change(&k)
		return keys.Mutation{Keys: []keys.Key{k}}
	}
	grant := func(change func(g *keys.Grant)) keys.Mutation {
		g := w.grant(n.account)
		change(&g)
		return keys.Mutation{Grants: []keys.Grant{g}}
	}
	stored := w.create(w.key(n.account))[0]
	stored.Space = other.space.ID
	for what, m := range map[string]keys.Mutation{
		"space's organization":           {Spaces: []keys.Space{w.space(w.organization("x"), "s")}},
		"account's organization":         {Accounts: []keys.Account{w.account(w.organization("x"))}},
		"key's account":                  key(func(k *keys.Key) { k.Account = "acc_0" }),
		"key without an account":         key(func(k *keys.Key) { k.Account = "" }),
		"key's organization":             key(func(k *keys.Key) { k.Organization = "org_0" }),
		"key's space":                    key(func(k *keys.Key) { k.Space = "spc_0" }),
		"key's space, of another":        key(func(k *keys.Key) { k.Space = other.space.ID }),
		"key's space, no organization":   key(func(k *keys.Key) { k.Organization, k.Space = "", n.space.ID }),
		"a change to another's space":    {Keys: []keys.Key{stored}},
		"grant's account":                grant(func(g *keys.Grant) { g.Account = "acc_0" }),
		"grant's organization":           grant(func(g *keys.Grant) { g.Organization = "org_0" }),
		"grant's space":                  grant(func(g *keys.Grant) { g.Space = "spc_0" }),
		"grant's space, of another":      grant(func(g *keys.Grant) { g.Space = other.space.ID }),
		"grant's space, no organization": grant(func(g *keys.Grant) { g.Organization, g.Space = "", n.space.ID }),
		"bounded keys' organization":     {MaxKeys: &keys.MaxKeys{Organization: "org_0", Max: 5}},
	} {
		w.refuses(what, m, keys.ErrNotFound)
	}
	// An account may hold grants and keys at an organization that does not manage it.
	foreign := w.grant(operator)
	foreign.Organization, foreign.Space = n.organization.ID, n.space.ID
	k := w.key(operator)
	k.Organization, k.Space = n.organization.ID, n.space.ID
	w.apply(keys.Mutation{Grants: []keys.Grant{foreign}, Keys: []keys.Key{k}})
}

// atomic: a mutation whose last part fails leaves nothing of the others.
func atomic(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	for what, spoil := range map[string]func(m *keys.Mutation){
		"stale key":       func(m *keys.Mutation) { m.Keys = append(m.Keys, staleKey(k)) },
		"key that exists": func(m *keys.Mutation) { c := k; c.Version = 0; m.Keys = append(m.Keys, c) },
		"hash that exists": func(m *keys.Mutation) {
			c := w.key(n.account)
			c.Secrets = k.Secrets
			m.Keys = append(m.Keys, c)
		},
		"grant of nobody": func(m *keys.Mutation) {
			m.Grants = append(m.Grants, keys.Grant{ID: w.id("grt_"), Account: "acc_0", Role: "owner"})
		},
		"stale deletion": func(m *keys.Mutation) { m.DeleteKeys = append(m.DeleteKeys, staleKey(k)) },
		"unknown setting": func(m *keys.Mutation) {
			m.Settings = append(m.Settings, keys.Setting{Name: "other", Version: 3})
		},
		"too many keys": func(m *keys.Mutation) { m.MaxKeys = &keys.MaxKeys{Organization: n.organization.ID, Max: 1} },
	} {
		o := w.organization("next")
		s, a, made := w.space(o, "s"), w.account(o), w.key(n.account)
		changed := n.organization
		changed.Name = "changed"
		gone := w.create(w.key(n.account))[0]
		m := keys.Mutation{
			Organizations: []keys.Organization{o, changed}, Spaces: []keys.Space{s}, Accounts: []keys.Account{a}, Grants: []keys.Grant{w.grant(a)},
			Keys: []keys.Key{made}, Settings: []keys.Setting{{Name: "mode", Value: "x"}}, DeleteKeys: []keys.Key{gone}, Audit: []keys.AuditEntry{w.audit("x")},
		}
		spoil(&m)
		w.untouched(what, func() {
			if err := w.try(m); err == nil {
				w.Errorf("%s: no error", what)
			}
		})
		fails[keys.Organization](w, what, keys.ErrNotFound)(w.s.Organization(ctx, o.ID))
		fails[keys.Organization](w, what, keys.ErrNotFound)(w.s.Organization(ctx, o.Slug))
		fails[keys.Space](w, what, keys.ErrNotFound)(w.s.Space(ctx, o.ID, s.ID))
		fails[keys.Account](w, what, keys.ErrNotFound)(w.s.Account(ctx, a.ID))
		fails[keys.Key](w, what, keys.ErrNotFound)(w.s.Key(ctx, made.ID))
		fails[keys.Found](w, what, keys.ErrNotFound)(w.s.Lookup(ctx, made.Secrets[0].Hash))
		fails[keys.Setting](w, what, keys.ErrNotFound)(w.s.Setting(ctx, "mode"))
		same(w, what+": Grants", []keys.Grant{})(w.s.Grants(ctx, a.ID))
		same(w, what+": Organization", n.organization)(w.s.Organization(ctx, n.organization.ID))
		same(w, what+": Key", gone)(w.s.Key(ctx, gone.ID))
		same(w, what+": Keys", []keys.Key{gone, k})(w.keys(ctx, keys.KeyFilter{}, keys.Page{Limit: 9}))
		w.apply(keys.Mutation{DeleteKeys: []keys.Key{gone}})
	}
}

func staleKey(k keys.Key) keys.Key {
	k.Version += 7
	return k
}

// importMany: one change may hold many records.
func importMany(w *world) {
	n := w.tenant("acme")
	all := make([]keys.Key, 500)
	for i := range all {
		all[i] = w.key(n.account)
		all[i].Secrets[0].Imported = true
	}
	end := w.end()
	w.create(all...)
	if got := len(w.since(end)); got != len(all) {
		w.Errorf("%d change entries; want %d", got, len(all))
	}
	same(w, "last of them", all[499])(w.s.Key(w.Context(), all[499].ID))
	w.apply(keys.Mutation{}) // and none at all
}
