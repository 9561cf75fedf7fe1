package storetest

import (
	"context"
	"fmt"
	"slices"

	"keygate/internal/keys"
)

// pages: newest first, in pieces that neither overlap nor leave anything out.
func pages(w *world) {
	ctx := context.Background()
	a, b := w.tenant("acme"), w.tenant("beta")
	organizations := []string{a.organization.ID, b.organization.ID}
	spaces, accounts := []string{a.space.ID}, []string{a.account.ID}
	var all, ofA, shared, sharedOfA []string
	for i := range 12 {
		o := w.organization(fmt.Sprint("org-", i))
		s := w.space(a.organization, fmt.Sprint("space-", i))
		c := w.account(a.organization)
		k, other := w.key(a.account), w.key(b.account)
		if i%3 == 0 {
			k.Name, other.Name = "shared", "shared"
			shared = append(shared, k.ID, other.ID)
			sharedOfA = append(sharedOfA, k.ID)
		}
		w.apply(keys.Mutation{Organizations: []keys.Organization{o}, Spaces: []keys.Space{s}, Accounts: []keys.Account{c}, Keys: []keys.Key{k, other}})
		organizations, spaces, accounts = append(organizations, o.ID), append(spaces, s.ID), append(accounts, c.ID)
		all, ofA = append(all, k.ID, other.ID), append(ofA, k.ID)
	}
	byFilter := func(f keys.KeyFilter) func(keys.Page) ([]string, string, error) {
		return func(p keys.Page) ([]string, string, error) {
			page, err := w.s.Keys(ctx, f, p)
			found, _ := ids(page.Keys, nil)(func(k keys.Key) string { return k.ID })
			return found, page.Next, err
		}
	}
	// Lists without a cursor of their own go on from the last id.
	byID := func(list func(keys.Page) ([]string, error)) func(keys.Page) ([]string, string, error) {
		return func(p keys.Page) (found []string, next string, err error) {
			if found, err = list(p); len(found) > 0 && len(found) == p.Limit {
				next = found[len(found)-1]
			}
			return found, next, err
		}
	}
	lists := []struct {
		name string
		want []string
		page func(keys.Page) ([]string, string, error)
	}{
		{"organizations", organizations, byID(func(p keys.Page) ([]string, error) {
			return ids(w.s.Organizations(ctx, p))(func(o keys.Organization) string { return o.ID })
		})},
		{"spaces", spaces, byID(func(p keys.Page) ([]string, error) {
			return ids(w.s.Spaces(ctx, a.organization.ID, p))(func(s keys.Space) string { return s.ID })
		})},
		{"accounts", accounts, byID(func(p keys.Page) ([]string, error) {
			return ids(w.s.Accounts(ctx, a.organization.ID, p))(func(c keys.Account) string { return c.ID })
		})},
		{"all keys", all, byFilter(keys.KeyFilter{})},
		{"keys of an organization", ofA, byFilter(keys.KeyFilter{Organization: a.organization.ID})},
		{"keys of a name", shared, byFilter(keys.KeyFilter{Name: "shared"})},
		{"keys of a name in an organization", sharedOfA, byFilter(keys.KeyFilter{Organization: a.organization.ID, Name: "shared"})},
		{"keys of no such name", nil, byFilter(keys.KeyFilter{Name: "Shared"})},
	}
	for _, l := range lists {
		slices.Reverse(l.want)
		for _, limit := range []int{1, 4, 5, len(l.want) + 1} {
			var got []string
			for after := ""; ; {
				page, next, err := l.page(keys.Page{After: after, Limit: limit})
				if err != nil || len(page) > limit {
					w.Fatalf("%s after %q: %d records of at most %d, error %v", l.name, after, len(page), limit, err)
				}
				got = append(got, page...)
				if after = next; after == "" {
					break
				}
			}
			if !slices.Equal(got, l.want) {
				w.Errorf("%s by %d:\n got %v\nwant %v", l.name, limit, got, l.want)
			}
		}
	}
}

func ids[T any](records []T, err error) func(id func(T) string) ([]string, error) {
	return func(id func(T) string) ([]string, error) {
		var out []string
		for _, r := range records {
			out = append(out, id(r))
		}
		return out, err
	}
}

// pagesUnderInserts: a cursor holds its place while newer records appear and
// the one it names goes.
func pagesUnderInserts(w *world) {
	n := w.tenant("acme")
	made := w.create(w.key(n.account), w.key(n.account), w.key(n.account), w.key(n.account))
	for _, f := range []keys.KeyFilter{{}, {Organization: n.organization.ID}} {
		first, err := w.s.Keys(w.Context(), f, keys.Page{Limit: 2})
		same(w, "first page", []keys.Key{made[3], made[2]})(first.Keys, err)
		newer := w.create(w.key(n.account), w.key(n.account))
		same(w, "second page", []keys.Key{made[1], made[0]})(w.keys(w.Context(), f, keys.Page{After: first.Next, Limit: 2}))
		w.apply(keys.Mutation{DeleteKeys: newer})
	}
	first, err := w.s.Keys(w.Context(), keys.KeyFilter{}, keys.Page{Limit: 2})
	if err != nil {
		w.Fatal(err)
	}
	w.apply(keys.Mutation{DeleteKeys: []keys.Key{made[2]}})
	same(w, "after a deleted key", []keys.Key{made[1]})(w.keys(w.Context(), keys.KeyFilter{}, keys.Page{After: first.Next, Limit: 1}))
	same(w, "no records asked for", []keys.Key{})(w.keys(w.Context(), keys.KeyFilter{}, keys.Page{}))
}

// auditLog: every change adds its entries, newest first; there is no way to
// take one back.
func auditLog(w *world) {
	n := w.tenant("acme")
	var want []keys.AuditEntry
	for i := range 5 {
		k := w.key(n.account)
		entries := []keys.AuditEntry{w.audit(fmt.Sprint("first.", i)), w.audit(fmt.Sprint("second.", i))}
		w.apply(keys.Mutation{Keys: []keys.Key{k}, Audit: entries})
		k.Version = 1
		w.apply(keys.Mutation{DeleteKeys: []keys.Key{k}}) // the log outlives its subject
		want = append(want, entries...)
	}
	slices.Reverse(want)
	same(w, "all", want)(w.auditLog(w.Context(), keys.Page{Limit: 100}))
	first, err := w.s.AuditLog(w.Context(), keys.AuditFilter{}, keys.Page{Limit: 3})
	same(w, "first page", want[:3])(first.Entries, err)
	same(w, "second page", want[3:6])(w.auditLog(w.Context(), keys.Page{After: first.Next, Limit: 3}))

	again := want[4]
	again.Action = "forged"
	w.refuses("an entry of the same id", keys.Mutation{Audit: []keys.AuditEntry{again}}, &keys.ExistsError{Kind: "audit entry", Field: "id", Value: again.ID})
	same(w, "after the attempt", want)(w.auditLog(w.Context(), keys.Page{Limit: 100}))
}
