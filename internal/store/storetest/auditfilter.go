package storetest

import (
	"fmt"
	"slices"
	"time"

	"keygate/internal/keys"
)

// auditFilters: each filter of the log alone and all together.
func auditFilters(w *world) {
	organizations, targets := []string{"", "org_1", "org_2"}, []string{"key_1", "key_2", "acc_1"}
	actors, actions := []string{"system", "key_1", "key_9"}, []string{"key.create", "key.revoke"}
	var all []keys.AuditEntry
	for i := range 90 {
		e := w.audit(actions[i/2%2])
		e.At = w.now.Add(time.Duration(i/3) * time.Minute) // three at each instant
		e.Organization, e.Target, e.Actor, e.ActorAccount = organizations[i/4%3], targets[i/5%3], actors[i/7%3], fmt.Sprint("acc_", i/6%2)
		all = append(all, e)
	}
	for part := range slices.Chunk(all, 7) {
		w.apply(keys.Mutation{Audit: part})
	}
	slices.Reverse(all)
	at := func(minute int) time.Time { return w.now.Add(time.Duration(minute) * time.Minute) }
	for _, f := range []keys.AuditFilter{
		{},
		{Organization: "org_1"},
		{Target: "key_2"},
		{Actor: "key_1"},
		{Actor: "acc_1"},
		{Action: "key.revoke"},
		{Since: at(10)},
		{Until: at(10)},
		{Since: at(10), Until: at(11)},
		{Since: at(11), Until: at(10)},
		{Since: at(29).Add(1000)},
		{Until: at(0)},
		{Organization: "org_2", Target: "key_1"},
		{Organization: "org_1", Actor: "system"},
		{Target: "acc_1", Action: "key.create"},
		{Organization: "org_1", Since: at(5), Until: at(20)},
		{Target: "key_1", Since: at(5), Until: at(20)},
		{Actor: "acc_0", Since: at(5), Until: at(20)},
		{Organization: "org_1", Target: "key_2", Actor: "acc_1", Action: "key.create", Since: at(1), Until: at(28)},
		{Organization: "org_3"},
		{Target: "key_3"},
		{Actor: "acc_3"},
		{Action: "key"},
		{Organization: "org_3", Target: "key_1"},
	} {
		var want []keys.AuditEntry
		for _, e := range all {
			if concerns(f, e) {
				want = append(want, e)
			}
		}
		for _, limit := range []int{1, 8, 200} {
			same(w, fmt.Sprintf("%+v by %d", f, limit), want)(w.everyEntry(f, limit), nil)
		}
	}
	same(w, "no entries asked for", keys.AuditPage{})(w.s.AuditLog(w.Context(), keys.AuditFilter{}, keys.Page{}))
	if w.h.Reopen != nil {
		first, err := w.s.AuditLog(w.Context(), keys.AuditFilter{Target: "key_1"}, keys.Page{Limit: 3})
		if err != nil {
			w.Fatal(err)
		}
		second, err := w.s.AuditLog(w.Context(), keys.AuditFilter{Target: "key_1"}, keys.Page{After: first.Next, Limit: 3})
		w.s = w.h.Reopen(w.T)
		same(w, "the second page of a store that was reopened", second.Entries)(func() ([]keys.AuditEntry, error) {
			again, againErr := w.s.AuditLog(w.Context(), keys.AuditFilter{Target: "key_1"}, keys.Page{After: first.Next, Limit: 3})
			return again.Entries, againErr
		}())
		if err != nil {
			w.Error(err)
		}
	}
}

// concerns is what a filter of the log means.
func concerns(f keys.AuditFilter, e keys.AuditEntry) bool {
	has := func(want, got string) bool { return want == "" || want == got }
	return has(f.Organization, e.Organization) && has(f.Target, e.Target) && has(f.Action, e.Action) &&
		(has(f.Actor, e.Actor) || has(f.Actor, e.ActorAccount)) &&
		(f.Since.IsZero() || !e.At.Before(f.Since)) && (f.Until.IsZero() || e.At.Before(f.Until))
}

// everyEntry reads the log to its end, by pages of at most limit.
func (w *world) everyEntry(f keys.AuditFilter, limit int) []keys.AuditEntry {
	w.Helper()
	var all []keys.AuditEntry
	after := ""
	for range 1000 {
		page, err := w.s.AuditLog(w.Context(), f, keys.Page{After: after, Limit: limit})
		if err != nil || len(page.Entries) > limit {
			w.Fatalf("AuditLog(%+v): %d entries of at most %d, error %v", f, len(page.Entries), limit, err)
		}
		all = append(all, page.Entries...)
		if page.Next == "" {
			return all
		}
		after = page.Next
	}
	w.Fatalf("AuditLog(%+v): a list without an end", f)
	return nil
}

// grantsOfMany: the grants of several accounts, in the accounts' order.
func grantsOfMany(w *world) {
	ctx := w.Context()
	a, b := w.tenant("acme"), w.tenant("beta")
	loner := w.account(a.organization)
	second, third := w.grant(a.account), w.grant(b.account)
	w.apply(keys.Mutation{Accounts: []keys.Account{loner}, Grants: []keys.Grant{third, second}})
	same(w, "one after the other", []keys.Grant{b.grant, third, a.grant, second})(w.s.Grants(ctx, b.account.ID, loner.ID, "acc_0", a.account.ID))
	same(w, "of one", []keys.Grant{a.grant, second})(w.s.Grants(ctx, a.account.ID))
	same(w, "of nobody", []keys.Grant{})(w.s.Grants(ctx))

	many := make([]keys.Account, 300)
	ids := make([]string, len(many))
	m := keys.Mutation{}
	for i := range many {
		many[i] = w.account(a.organization)
		ids[len(many)-1-i] = many[i].ID
		m.Grants = append(m.Grants, w.grant(many[i]))
	}
	m.Accounts = many
	w.apply(m)
	slices.Reverse(m.Grants)
	same(w, "of many", m.Grants)(w.s.Grants(ctx, ids...))
}
