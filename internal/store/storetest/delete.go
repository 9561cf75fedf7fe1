package storetest

import (
	"context"
	"errors"
	"slices"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
)

// deleteTenants: everything of a customer goes, in one change or in several,
// and what is gone can be neither found nor deleted again.
func deleteTenants(w *world) {
	ctx := w.Context()
	n, other := w.tenant("acme"), w.tenant("beta")
	k := w.create(w.key(n.account))[0]
	second := w.grant(n.account)
	w.apply(keys.Mutation{Grants: []keys.Grant{second}})

	end := w.end()
	w.apply(keys.Mutation{DeleteGrants: []keys.Grant{{ID: second.ID}}}) // ID is enough
	same(w, "Grants", []keys.Grant{n.grant})(w.s.Grants(ctx, n.account.ID))
	same(w, "Account", n.account)(w.s.Account(ctx, n.account.ID)) // of the same version
	w.told("a grant's deletion", end, keys.Change{Kind: keys.KindAccount, ID: n.account.ID, Organization: n.organization.ID, Version: 1})
	w.refuses("a grant again", keys.Mutation{DeleteGrants: []keys.Grant{second}}, keys.ErrNotFound)

	end = w.end()
	w.apply(keys.Mutation{DeleteSpaces: []keys.Space{{ID: n.space.ID, Version: 1}}})
	fails[keys.Space](w, "Space", keys.ErrNotFound)(w.s.Space(ctx, n.organization.ID, "production"))
	same(w, "Spaces", []keys.Space{})(w.s.Spaces(ctx, n.organization.ID, keys.Page{Limit: 9}))
	w.told("a space's deletion", end, keys.Change{Kind: keys.KindSpace, ID: n.space.ID, Organization: n.organization.ID})

	end = w.end()
	w.apply(keys.Mutation{
		DeleteKeys: []keys.Key{k}, DeleteAccounts: []keys.Account{{ID: n.account.ID, Version: 1}}, DeleteOrganizations: []keys.Organization{{ID: n.organization.ID, Version: 1}},
	})
	w.told("the rest's deletion", end, // the account's grants are told with it
		keys.Change{Kind: keys.KindKey, ID: k.ID, Organization: n.organization.ID},
		keys.Change{Kind: keys.KindAccount, ID: n.account.ID, Organization: n.organization.ID},
		keys.Change{Kind: keys.KindOrganization, ID: n.organization.ID, Organization: n.organization.ID})
	fails[keys.Organization](w, "Organization by id", keys.ErrNotFound)(w.s.Organization(ctx, n.organization.ID))
	fails[keys.Organization](w, "Organization by slug", keys.ErrNotFound)(w.s.Organization(ctx, "acme"))
	fails[keys.Account](w, "Account", keys.ErrNotFound)(w.s.Account(ctx, n.account.ID))
	fails[keys.Found](w, "Lookup", keys.ErrNotFound)(w.s.Lookup(ctx, k.Secrets[0].Hash))
	same(w, "Grants", []keys.Grant{})(w.s.Grants(ctx, n.account.ID))
	same(w, "Organizations", []keys.Organization{other.organization})(w.s.Organizations(ctx, keys.Page{Limit: 9}))
	same(w, "Accounts", []keys.Account{})(w.s.Accounts(ctx, n.organization.ID, keys.Page{Limit: 9}))

	w.refuses("a grant that went with its account", keys.Mutation{DeleteGrants: []keys.Grant{n.grant}}, keys.ErrNotFound)
	w.refuses("a space again", keys.Mutation{DeleteSpaces: []keys.Space{n.space}}, keys.ErrNotFound)
	w.refuses("an account again", keys.Mutation{DeleteAccounts: []keys.Account{n.account}}, keys.ErrNotFound)
	w.refuses("an organization again", keys.Mutation{DeleteOrganizations: []keys.Organization{n.organization}}, keys.ErrNotFound)
	w.refuses("changing the account", keys.Mutation{Accounts: []keys.Account{n.account}}, keys.ErrNotFound)
	w.refuses("a key of the account", keys.Mutation{Keys: []keys.Key{w.key(n.account)}}, keys.ErrNotFound)
	w.refuses("a space of the organization", keys.Mutation{Spaces: []keys.Space{w.space(n.organization, "x")}}, keys.ErrNotFound)

	// Operators' accounts are in no organization's list.
	operator := keys.Account{ID: w.id("acc_"), Name: "operator"}
	w.apply(keys.Mutation{Accounts: []keys.Account{operator}})
	end = w.end()
	w.apply(keys.Mutation{DeleteAccounts: []keys.Account{{ID: operator.ID, Version: 1}}})
	w.told("an operator's deletion", end, keys.Change{Kind: keys.KindAccount, ID: operator.ID})
	same(w, "operators", []keys.Account{})(w.s.Accounts(ctx, "", keys.Page{Limit: 9}))
}

// told wants exactly these entries in the feed after a cursor, in any order.
func (w *world) told(what string, after int64, want ...keys.Change) {
	w.Helper()
	got := w.since(after)
	slices.SortFunc(got, byKind)
	slices.SortFunc(want, byKind)
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("%s: the feed (-want +got):\n%s", what, diff)
	}
}

// deleteAndMake: what is deleted makes room for what the same change writes.
func deleteAndMake(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	o, s := w.organization("acme"), w.space(n.organization, "production")
	g := n.grant
	g.Role = "viewer"
	w.apply(keys.Mutation{DeleteSpaces: []keys.Space{n.space}, Spaces: []keys.Space{s}})
	w.apply(keys.Mutation{DeleteGrants: []keys.Grant{n.grant}, Grants: []keys.Grant{g}}) // of the same id
	s.Version = 1
	same(w, "Space", s)(w.s.Space(ctx, n.organization.ID, "production"))
	same(w, "Grants", []keys.Grant{g})(w.s.Grants(ctx, n.account.ID))

	a := n.account
	a.Version, a.Name = 0, "again" // the account under its own id, but without its grants
	w.apply(keys.Mutation{DeleteAccounts: []keys.Account{n.account}, Accounts: []keys.Account{a}})
	a.Version = 1
	same(w, "Account", a)(w.s.Account(ctx, a.ID))
	same(w, "Grants", []keys.Grant{})(w.s.Grants(ctx, a.ID))

	w.apply(keys.Mutation{
		DeleteAccounts: []keys.Account{a}, DeleteSpaces: []keys.Space{s}, DeleteOrganizations: []keys.Organization{n.organization}, Organizations: []keys.Organization{o},
	})
	o.Version = 1
	same(w, "Organization", o)(w.s.Organization(ctx, "acme"))

	// A reference that a change takes back still stands when it deletes.
	m := w.tenant("beta")
	k := w.create(w.key(m.account))[0]
	k.Account = w.account(m.organization).ID
	w.refuses("an account whose key moves away", keys.Mutation{
		DeleteAccounts: []keys.Account{m.account}, Keys: []keys.Key{k},
		Accounts: []keys.Account{{ID: k.Account, Organization: m.organization.ID}},
	}, inUse("account", m.account.ID, "keys"))
}

func inUse(kind, id, by string) error { return &keys.InUseError{Kind: kind, ID: id, By: by} }

// deleteInUse: who is referred to stays, and the first kind of those who refer
// is named.
func deleteInUse(w *world) {
	n := w.tenant("acme")
	operator := keys.Account{ID: w.id("acc_"), Name: "operator"}
	foreign := w.grant(operator)
	foreign.Organization, foreign.Space = n.organization.ID, n.space.ID
	k := w.key(operator)
	k.Organization, k.Space = n.organization.ID, n.space.ID
	w.apply(keys.Mutation{Accounts: []keys.Account{operator}, Grants: []keys.Grant{foreign}})
	operator.Version = 1
	k = w.create(k)[0]

	account := keys.Mutation{DeleteAccounts: []keys.Account{operator}}
	space := keys.Mutation{DeleteSpaces: []keys.Space{n.space}}
	organization := keys.Mutation{DeleteOrganizations: []keys.Organization{n.organization}}
	w.refuses("an account with a key", account, inUse("account", operator.ID, "keys"))
	w.refuses("a space with a key", space, inUse("space", n.space.ID, "keys"))
	w.refuses("an organization with a key", organization, inUse("organization", n.organization.ID, "keys"))
	revoked := k
	revoked.RevokedAt = w.now
	w.apply(keys.Mutation{Keys: []keys.Key{revoked}}) // counts all the same
	k.Version++
	w.refuses("an account with a revoked key", account, inUse("account", operator.ID, "keys"))

	w.apply(keys.Mutation{DeleteKeys: []keys.Key{k}})
	w.refuses("a space with a grant", space, inUse("space", n.space.ID, "grants"))
	w.refuses("an organization with a space", organization, inUse("organization", n.organization.ID, "spaces"))
	w.apply(keys.Mutation{DeleteGrants: []keys.Grant{foreign}})
	w.apply(space)
	w.refuses("an organization with an account", organization, inUse("organization", n.organization.ID, "accounts"))
	foreign.Space = ""
	w.apply(keys.Mutation{DeleteAccounts: []keys.Account{n.account}, Grants: []keys.Grant{foreign}})
	w.refuses("an organization with another's grant", organization, inUse("organization", n.organization.ID, "grants"))
	w.apply(account) // and its grant with it
	w.apply(organization)
}

// deleteConflict: a deletion that is based on another version fails, and takes
// the rest of its change with it.
func deleteConflict(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	empty := w.organization("empty")
	w.apply(keys.Mutation{Organizations: []keys.Organization{empty}})
	for _, version := range []int64{0, 2, 7} {
		s, a, o := n.space, n.account, empty
		s.Version, a.Version, o.Version = version, version, version
		w.refuses("space", keys.Mutation{DeleteSpaces: []keys.Space{s}}, keys.ErrConflict)
		w.refuses("account", keys.Mutation{DeleteAccounts: []keys.Account{a}}, keys.ErrConflict)
		w.refuses("organization", keys.Mutation{DeleteOrganizations: []keys.Organization{o}}, keys.ErrConflict)
		w.refuses("all that goes before", keys.Mutation{
			DeleteGrants: []keys.Grant{n.grant}, DeleteAccounts: []keys.Account{n.account}, DeleteSpaces: []keys.Space{n.space}, DeleteOrganizations: []keys.Organization{o},
		}, keys.ErrConflict)
	}
	same(w, "Grants", []keys.Grant{n.grant})(w.s.Grants(ctx, n.account.ID))
	same(w, "Account", n.account)(w.s.Account(ctx, n.account.ID))
	same(w, "Space", n.space)(w.s.Space(ctx, n.organization.ID, n.space.ID))
}

// deleteUnderConcurrency: an account and its space are deleted while keys are
// made for them. Either order is right, a key without its owner never is.
func deleteUnderConcurrency(w *world) {
	ctx := context.Background()
	n := w.tenant("acme")
	for range 12 {
		a, s := w.account(n.organization), w.space(n.organization, "short-lived")
		w.apply(keys.Mutation{Accounts: []keys.Account{a}, Spaces: []keys.Space{s}})
		a.Version, s.Version = 1, 1
		attempts := []keys.Mutation{
			{DeleteAccounts: []keys.Account{a}},
			{DeleteSpaces: []keys.Space{s}},
			{DeleteAccounts: []keys.Account{a}},
			{Grants: []keys.Grant{{ID: w.id("grt_"), Account: a.ID, Organization: n.organization.ID, Space: s.ID, Role: "viewer"}}},
		}
		var made []keys.Key
		for range 3 {
			k := w.key(a)
			k.Space = s.ID
			made = append(made, k)
			attempts = append(attempts, keys.Mutation{Keys: []keys.Key{k}})
		}
		outcomes := inParallel(len(attempts), func(i int) error { return w.try(attempts[i]) })
		for i, err := range outcomes {
			var inUse *keys.InUseError
			if err != nil && !errors.As(err, &inUse) && !errors.Is(err, keys.ErrNotFound) {
				w.Errorf("attempt %d: %v", i, err)
			}
		}
		_, account := w.s.Account(ctx, a.ID)
		_, space := w.s.Space(ctx, n.organization.ID, s.ID)
		grants, err := w.s.Grants(ctx, a.ID)
		if err != nil {
			w.Fatal(err)
		}
		if (outcomes[0] == nil || outcomes[2] == nil) != errors.Is(account, keys.ErrNotFound) || outcomes[0] == nil && outcomes[2] == nil {
			w.Errorf("the account's deletions: %v and %v; then Account: %v", outcomes[0], outcomes[2], account)
		}
		if (outcomes[1] == nil) != errors.Is(space, keys.ErrNotFound) {
			w.Errorf("the space's deletion: %v; then Space: %v", outcomes[1], space)
		}
		if len(grants) > 0 && (account != nil || space != nil) {
			w.Errorf("a grant is left: Account: %v, Space: %v", account, space)
		}
		var clear keys.Mutation
		for i, k := range made {
			found, err := w.s.Lookup(ctx, k.Secrets[0].Hash)
			if (err == nil) != (outcomes[4+i] == nil) {
				w.Errorf("a key: %v; then Lookup: %v", outcomes[4+i], err)
			}
			if err == nil && (account != nil || space != nil || found.Space.ID != s.ID) {
				w.Errorf("a key is left: Account: %v, Space: %v", account, space)
			}
			if err == nil {
				clear.DeleteKeys = append(clear.DeleteKeys, found.Key)
			}
		}
		if account == nil {
			clear.DeleteAccounts = []keys.Account{a}
		}
		if space == nil {
			clear.DeleteSpaces = []keys.Space{s}
		}
		w.apply(clear)
	}
}

// applied: a change says where the feed ends with it.
func applied(w *world) {
	n := w.tenant("acme")
	k := w.key(n.account)
	for what, m := range map[string]keys.Mutation{
		"a key and a setting":        {Keys: []keys.Key{k}, Settings: []keys.Setting{{Name: "mode"}}},
		"only audited":               {Audit: []keys.AuditEntry{w.audit("only.said")}},
		"nothing":                    {},
		"a grant, told as its owner": {Grants: []keys.Grant{w.grant(n.account)}},
	} {
		m.At = w.now
		end := w.end()
		got, err := w.s.Apply(w.Context(), m)
		var want int64
		if now := w.end(); now != end {
			want = keys.FeedNumber(now)
		}
		if err != nil || got.Seq != want {
			w.Errorf("%s: number %d, error %v; want %d", what, got.Seq, err, want)
		}
	}
}
