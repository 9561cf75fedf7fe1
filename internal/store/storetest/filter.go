package storetest

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"keygate/internal/keys"
)

// every reads a list of keys to its end, by pages of at most limit.
func (w *world) every(f keys.KeyFilter, limit int) []keys.Key {
	w.Helper()
	var all []keys.Key
	after := ""
	for range 1000 {
		page, err := w.s.Keys(w.Context(), f, keys.Page{After: after, Limit: limit})
		if err != nil || len(page.Keys) > limit {
			w.Fatalf("Keys(%+v): %d keys of at most %d, error %v", f, len(page.Keys), limit, err)
		}
		all = append(all, page.Keys...)
		if page.Next == "" {
			return all
		}
		after = page.Next
	}
	w.Fatalf("Keys(%+v): a list without an end", f)
	return nil
}

// passes is what a filter means.
func passes(f keys.KeyFilter, k keys.Key) bool {
	has := func(want, got string) bool { return want == "" || want == got }
	part := strings.Contains(strings.ToLower(k.Name), strings.ToLower(f.Query))
	unused := f.UnusedSince.IsZero() || !activity(k).After(f.UnusedSince)
	ends := f.ExpiresBefore.IsZero() || k.RevokedAt.IsZero() && k.ExpiresAt.After(f.At) && !k.ExpiresAt.After(f.ExpiresBefore)
	return has(f.Organization, k.Organization) && has(f.Account, k.Account) && has(f.Space, k.Space) && has(f.Name, k.Name) &&
		has(string(f.Status), string(k.Status(f.At))) && part && unused && ends
}

// activity is when a key was used last, or else made.
func activity(k keys.Key) time.Time {
	if k.LastUsedAt.IsZero() {
		return k.CreatedAt
	}
	return k.LastUsedAt
}

// crowd is keys of every kind at two organizations: the choices of a seed.
func (w *world) crowd(n int) (all []keys.Key, filters func() keys.KeyFilter) {
	w.Helper()
	a, b := w.tenant("acme"), w.tenant("beta")
	second := w.space(a.organization, "staging")
	operator := keys.Account{ID: w.id("acc_"), Name: "operator"}
	w.apply(keys.Mutation{Spaces: []keys.Space{second}, Accounts: []keys.Account{operator}})
	random := rand.New(rand.NewPCG(1, 2))
	chance := func(percent int) bool { return random.IntN(100) < percent }
	hour := func() time.Time { return w.now.Add(time.Duration(random.IntN(21)-10) * time.Hour) } // so that some are equal, and some are now
	names := []string{"Deploy", "deploy bot", "ÜBER billing", "über-Billing", "100% _sure_", "Σίσυφος", "日本語 key", "a*b?[c]"}
	for range n {
		owner := [...]keys.Account{a.account, b.account, operator}[random.IntN(3)]
		k := w.key(owner)
		k.Name = names[random.IntN(len(names))]
		k.CreatedAt = hour()
		if owner.ID == operator.ID && chance(60) {
			k.Organization = a.organization.ID
		}
		if k.Organization == a.organization.ID && chance(50) {
			k.Space = [...]string{a.space.ID, second.ID}[random.IntN(2)]
		}
		for _, t := range []struct {
			field   *time.Time
			percent int
		}{{&k.PausedAt, 30}, {&k.RevokedAt, 25}, {&k.ExpiresAt, 60}, {&k.LastUsedAt, 50}} {
			if chance(t.percent) {
				*t.field = hour()
			}
		}
		all = append(all, k)
	}
	pick := func(percent int, choices ...string) string {
		if !chance(percent) {
			return ""
		}
		return choices[random.IntN(len(choices))]
	}
	return w.create(all...), func() keys.KeyFilter {
		f := keys.KeyFilter{
			At: hour(), Organization: pick(40, a.organization.ID, b.organization.ID), Account: pick(20, a.account.ID, operator.ID),
			Space: pick(20, a.space.ID, second.ID, b.space.ID), Name: pick(15, names...),
			Query:  pick(25, "deploy", "EP", "Über", "ÜBER", "%", "_", "Σ", "語", "*", "[c]", "-", "nothing"),
			Status: keys.Status(pick(40, "active", "paused", "expired", "revoked")),
		}
		if chance(25) {
			f.UnusedSince = hour()
		}
		if chance(25) {
			f.ExpiresBefore = hour()
		}
		return f
	}
}

// filters: each filter alone and many together, in pages of every size, find
// what they should in the order in which they should.
func filters(w *world) {
	all, random := w.crowd(120)
	newest := slices.Clone(all)
	slices.Reverse(newest)
	check := func(f keys.KeyFilter, limit int) {
		w.Helper()
		var want []keys.Key
		for _, k := range newest {
			if passes(f, k) {
				want = append(want, k)
			}
		}
		got := w.every(f, limit)
		if f.UnusedSince.IsZero() || f.ExpiresBefore.IsZero() { // both: as the store likes
			inOrder(w, f, got)
		}
		byID := func(a, b keys.Key) int { return cmp.Compare(b.ID, a.ID) }
		slices.SortFunc(got, byID)
		same(w, fmt.Sprintf("%+v by %d", f, limit), want)(got, nil)
	}
	k := all[0]
	alone := []keys.KeyFilter{
		{},
		{Account: k.Account},
		{Name: k.Name},
		{Query: "deploy"},
		{Query: "deploy\x00"}, // no name has it, though an index may
		{Status: keys.Active},
		{Status: keys.Paused},
		{Status: keys.Revoked},
		{Status: keys.Expired},
		{UnusedSince: w.now},
		{ExpiresBefore: w.now.Add(5 * time.Hour)},
		{Space: all[slices.IndexFunc(all, func(k keys.Key) bool { return k.Space != "" })].Space},
	}
	for _, f := range alone {
		f.At = w.now
		for _, f.Organization = range []string{"", all[slices.IndexFunc(all, func(k keys.Key) bool { return k.Space != "" })].Organization} {
			for _, limit := range []int{1, 7, 500} {
				check(f, limit)
			}
		}
	}
	many := 40
	if os.Getenv("KEYGATE_TEST_FULL") != "" {
		many = 150
	}
	for range many {
		check(random(), 10)
	}
}

// inOrder wants keys in the order that a filter promises. What is equal in it
// may come in any order.
func inOrder(w *world, f keys.KeyFilter, got []keys.Key) {
	w.Helper()
	before := func(a, b keys.Key) bool {
		switch {
		case !f.UnusedSince.IsZero():
			return activity(a).Before(activity(b))
		case !f.ExpiresBefore.IsZero():
			return a.ExpiresAt.Before(b.ExpiresAt)
		case f.Query != "":
			return false
		}
		return a.ID > b.ID
	}
	for i := 1; i < len(got); i++ {
		if before(got[i], got[i-1]) {
			w.Errorf("%+v: key %s comes before %s", f, got[i-1].ID, got[i].ID)
			return
		}
	}
}

// filtersFollow: a list tells of a key what it became.
func filtersFollow(w *world) {
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	only := func(what string, f keys.KeyFilter, want bool) {
		w.Helper()
		f.At = w.now
		for _, f.Organization = range []string{"", n.organization.ID} {
			if got := w.every(f, 3); len(got) > 1 || (len(got) == 1) != want {
				w.Errorf("%s, %+v: %d keys", what, f, len(got))
			}
		}
	}
	is := func(what string, want keys.Status) {
		w.Helper()
		for _, status := range []keys.Status{keys.Active, keys.Paused, keys.Expired, keys.Revoked} {
			only(what, keys.KeyFilter{Status: status}, status == want)
		}
	}
	put := func() {
		w.Helper()
		w.apply(keys.Mutation{Keys: []keys.Key{k}})
		k.Version++
	}
	soon := keys.KeyFilter{ExpiresBefore: w.now.Add(time.Hour)}
	idle := keys.KeyFilter{UnusedSince: w.now}
	is("new", keys.Active)
	only("new", soon, false)
	only("new", idle, true) // made at this instant
	only("a moment earlier", keys.KeyFilter{UnusedSince: w.now.Add(-time.Microsecond)}, false)
	k.PausedAt = w.now
	put()
	is("paused", keys.Paused)
	k.ExpiresAt = w.now.Add(time.Hour)
	put()
	is("to expire", keys.Paused)
	only("to expire", soon, true)
	k.ExpiresAt = w.now.Add(time.Hour + time.Microsecond)
	put()
	only("to expire a moment later", soon, false)
	k.ExpiresAt = w.now
	put()
	is("expired this instant", keys.Expired)
	only("expired this instant", soon, false)
	k.ExpiresAt = w.now.Add(time.Microsecond)
	k.RevokedAt = w.now
	put()
	is("revoked", keys.Revoked)
	only("revoked", soon, false)
	k.PausedAt, k.RevokedAt, k.ExpiresAt = time.Time{}, time.Time{}, time.Time{}
	put()
	is("back", keys.Active)

	w.use(keys.Use{Key: k.ID, At: w.now.Add(time.Hour)})
	only("used", idle, false)
	only("used", keys.KeyFilter{UnusedSince: w.now.Add(time.Hour)}, true)
	put() // knows of no use
	only("used, then edited", idle, false)

	k.Space, k.Name = n.space.ID, "Neuer NAME"
	put()
	only("moved", keys.KeyFilter{Space: n.space.ID}, true)
	only("renamed", keys.KeyFilter{Query: "neuer name"}, true)
	only("renamed", keys.KeyFilter{Query: "name of"}, false)
	other := w.account(n.organization)
	k.Space, k.Account = "", other.ID
	w.apply(keys.Mutation{Accounts: []keys.Account{other}, Keys: []keys.Key{k}})
	k.Version++
	only("moved back", keys.KeyFilter{Space: n.space.ID}, false)
	only("another's", keys.KeyFilter{Account: other.ID}, true)
	only("another's", keys.KeyFilter{Account: n.account.ID}, false)
	w.apply(keys.Mutation{DeleteKeys: []keys.Key{k}})
	for _, f := range []keys.KeyFilter{{}, {Account: other.ID}, {Name: k.Name}, {Query: "name"}, {Status: keys.Active}, {UnusedSince: w.now.Add(time.Hour)}} {
		only("deleted", f, false)
	}
}

// cursors: what no page of a list's order gave is told from a store's failure.
func cursors(w *world) {
	ctx := context.Background()
	n := w.tenant("acme")
	ending := []keys.Key{w.key(n.account), w.key(n.account), w.key(n.account)}
	for i := range ending {
		ending[i].ExpiresAt = w.now.Add(time.Hour)
	}
	w.create(ending...)
	w.apply(keys.Mutation{Audit: []keys.AuditEntry{w.audit("a"), w.audit("b")}})

	// The longest name that there can be, in letters of four bytes that have a lower case:
	// the API refused the cursor behind it, and with it the rest of the list.
	long := []keys.Key{w.key(n.account), w.key(n.account)}
	for i := range long {
		long[i].Name = strings.Repeat("\U0001e900", 100)
	}
	w.create(long...)
	if page, err := w.s.Keys(ctx, keys.KeyFilter{Query: "\U0001e922"}, keys.Page{Limit: 1}); err != nil || page.Next == "" || len(page.Next) > keys.MaxCursor {
		w.Errorf("a cursor of %d bytes, error %v", len(page.Next), err)
	}

	lists := map[string]func(after string) (string, error){
		"log": func(after string) (string, error) {
			page, err := w.s.AuditLog(ctx, keys.AuditFilter{}, keys.Page{After: after, Limit: 1})
			return page.Next, err
		},
	}
	for what, f := range map[string]keys.KeyFilter{
		"keys": {}, "keys unused": {UnusedSince: w.now}, "keys expiring": {ExpiresBefore: w.now.Add(time.Hour)},
	} {
		f.At = w.now
		lists[what] = func(after string) (string, error) {
			page, err := w.s.Keys(ctx, f, keys.Page{After: after, Limit: 1})
			return page.Next, err
		}
	}
	for what, list := range lists {
		next, err := list("")
		if err != nil || next == "" {
			w.Fatalf("%s: cursor %q, error %v", what, next, err)
		}
		for other, list := range lists {
			_, err := list(next)
			if what == other && err != nil {
				w.Errorf("%s: the second page: %v", what, err)
			}
			if what != other {
				fails[string](w, fmt.Sprintf("%s after a cursor of %s", other, what), keys.ErrCursor)("", err)
			}
		}
		wrong := []string{"x", "key_1", ending[1].ID, "\x00", "é", " ", "=", "YQ", strings.Repeat("A", 5000)}
		// A number that Go reads and Redis does not was answered as if Redis were away.
		for _, order := range []string{"used", "ends", "log"} {
			for _, number := range []string{"0x_1p0", "0x1p3", "Inf", "nan", "1e400", ""} {
				wrong = append(wrong, base64.RawURLEncoding.EncodeToString([]byte(order+" "+number+" key_1")))
			}
		}
		for _, wrong := range wrong {
			_, err := list(wrong)
			fails[string](w, fmt.Sprintf("%s after %.20q", what, wrong), keys.ErrCursor)("", err)
		}
	}
}
