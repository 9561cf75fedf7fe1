package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// all reads a list page by page and returns the ids, and how many pages there were.
func all(t *testing.T, s *Store, f keys.KeyFilter, limit int) (ids []string, pages int) {
	t.Helper()
	for next := ""; ; {
		page, err := s.Keys(t.Context(), f, keys.Page{After: next, Limit: limit})
		if err != nil || len(page.Keys) > limit {
			t.Fatalf("%+v: %d keys of at most %d, error %v", f, len(page.Keys), limit, err)
		}
		pages++
		for _, k := range page.Keys {
			ids = append(ids, k.ID)
		}
		if next = page.Next; next == "" {
			return ids, pages
		}
	}
}

// passing is what a filter says, and in which order.
func passing(f keys.KeyFilter, from []keys.Key) []string {
	active := func(k keys.Key) time.Time {
		if k.LastUsedAt.IsZero() {
			return k.CreatedAt
		}
		return k.LastUsedAt
	}
	var some []keys.Key
	for _, k := range from {
		ends := k.RevokedAt.IsZero() && k.ExpiresAt.After(f.At) && !k.ExpiresAt.After(f.ExpiresBefore)
		if (f.Organization == "" || f.Organization == k.Organization) && (f.Account == "" || f.Account == k.Account) &&
			(f.Space == "" || f.Space == k.Space) && (f.Name == "" || f.Name == k.Name) &&
			strings.Contains(strings.ToLower(k.Name), strings.ToLower(f.Query)) && (f.Status == "" || f.Status == k.Status(f.At)) &&
			(f.UnusedSince.IsZero() || !active(k).After(f.UnusedSince)) && (f.ExpiresBefore.IsZero() || ends) {
			some = append(some, k)
		}
	}
	slices.SortFunc(some, func(a, b keys.Key) int {
		order := strings.Compare(b.ID, a.ID)
		switch {
		case !f.UnusedSince.IsZero():
			order = active(a).Compare(active(b))
		case !f.ExpiresBefore.IsZero():
			order = a.ExpiresAt.Compare(b.ExpiresAt)
		}
		if order == 0 {
			order = strings.Compare(a.ID, b.ID)
		}
		return order
	})
	var ids []string
	for _, k := range some {
		ids = append(ids, k.ID)
	}
	return ids
}

// TestKeysFilters: any filter finds what it says, in pages of any size.
func TestKeysFilters(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{Client: client(t, redistest.Start(t, redistest.Options{}).URL())})
	l := &life{T: t, s: s, random: rand.New(rand.NewPCG(7, 1)), now: time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC), keys: map[string]keys.Key{}, organizations: []string{"org_1", "org_2"}}
	for _, o := range l.organizations {
		apply(t, s, keys.Mutation{Organizations: []keys.Organization{{ID: o, Slug: "slug" + o}}})
	}
	l.tenants()
	l.tenants()
	for range 600 {
		l.step()
	}
	page, err := s.Keys(t.Context(), keys.KeyFilter{}, keys.Page{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	found, many := 0, 300
	if full() {
		many = 1000
	}
	for range many {
		k := pick(l, page.Keys...)
		maybe := func(text string) string { return pick(l, "", "", "", text) }
		f := keys.KeyFilter{
			Organization: maybe(k.Organization), Account: maybe(k.Account), Space: maybe(k.Space), Name: maybe(k.Name),
			Query: maybe(pick(l, "PLOY", "ärg", "ÄR", "i̇", "key_", "n")), Status: keys.Status(maybe(string(pick(l, keys.Active, keys.Paused, keys.Expired, keys.Revoked)))),
			UnusedSince: pick(l, time.Time{}, time.Time{}, k.LastUsedAt, k.CreatedAt), ExpiresBefore: pick(l, time.Time{}, time.Time{}, k.ExpiresAt), At: pick(l, k.CreatedAt, l.now),
		}
		got, _ := all(t, s, f, pick(l, 1, 2, 7, 1000))
		want := passing(f, page.Keys)
		if newKeyQuery(f, 1).Order == byName {
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v:\n got %v\nwant %v", f, got, want)
		}
		found += len(got)
	}
	if found < 5*many {
		t.Errorf("%d keys passed in all: the filters are too narrow to tell", found)
	}
}

// TestWalkIsBounded: a call looks at a bounded number of records and goes on where
// it stopped, even where keys go meanwhile.
func TestWalkIsBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{Client: client(t, redistest.Start(t, redistest.Options{}).URL())})
	const n = 2*maxRecords + 100
	fillTenants(t, s, n, n)
	fill(t, s, n, n) // made a µs after each other
	first, second := numbered(0, n), numbered(1, n)
	now := first.CreatedAt.Add(time.Hour)
	for _, k := range []keys.Key{first, second} { // the oldest
		k.Version, k.PausedAt, k.ExpiresAt = 1, now, now.Add(-time.Minute)
		apply(t, s, keys.Mutation{Keys: []keys.Key{k}})
	}
	for what, tt := range map[string]struct {
		filter keys.KeyFilter
		want   []string
		pages  int
	}{
		"expired":              {keys.KeyFilter{Status: keys.Expired}, []string{second.ID, first.ID}, 3},
		"expired, of a name":   {keys.KeyFilter{Status: keys.Expired, Query: "service 0"}, []string{first.ID}, 1},
		"expired, of any name": {keys.KeyFilter{Status: keys.Expired, Query: "SERVICE"}, []string{first.ID, second.ID}, 3},
		"paused":               {keys.KeyFilter{Status: keys.Paused}, nil, 1},
		"no such name":         {keys.KeyFilter{Query: "nobody's"}, nil, 1},
		"unused and expired":   {keys.KeyFilter{UnusedSince: now, Status: keys.Expired}, []string{first.ID, second.ID}, 3},
	} {
		tt.filter.At = now
		got, pages := all(t, s, tt.filter, 2)
		if what == "expired, of any name" { // the order is the names'
			slices.Sort(got)
		}
		if !slices.Equal(got, tt.want) || pages > tt.pages+1 || pages < tt.pages {
			t.Errorf("%s: %v in %d pages; want %v in %d", what, got, pages, tt.want, tt.pages)
		}
	}

	// All were used at the same moment: the id tells where a page ended, though
	// its key is gone.
	var uses []keys.Use
	for i := range 10 {
		uses = append(uses, keys.Use{Key: numbered(i, n).ID, At: now})
	}
	if err := s.Used(t.Context(), uses); err != nil {
		t.Fatal(err)
	}
	f := keys.KeyFilter{UnusedSince: now}
	page, err := s.Keys(t.Context(), f, keys.Page{Limit: n - 5})
	if err != nil || len(page.Keys) != n-5 {
		t.Fatalf("%d keys, error %v", len(page.Keys), err)
	}
	last := page.Keys[n-6]
	apply(t, s, keys.Mutation{DeleteKeys: []keys.Key{last}})
	page, err = s.Keys(t.Context(), f, keys.Page{After: page.Next, Limit: 9})
	if err != nil || len(page.Keys) != 5 || page.Keys[0].ID != numbered(5, n).ID || page.Next != "" {
		t.Errorf("after a key that is gone: %d keys, next %q, error %v", len(page.Keys), page.Next, err)
	}
}

// TestAuditWalkIsBounded: so does a call for the audit log.
func TestAuditWalkIsBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{Client: client(t, redistest.Start(t, redistest.Options{}).URL())})
	var m keys.Mutation
	for i := range maxEntries + 1 {
		m.Audit = append(m.Audit, keys.AuditEntry{ID: fmt.Sprintf("aud_%04d", i), At: time.Now(), Target: fmt.Sprint(i), Organization: "org_1"})
	}
	apply(t, s, m)
	for _, f := range []keys.AuditFilter{{Target: "0"}, {Target: "0", Organization: "org_1"}} {
		page, err := s.AuditLog(t.Context(), f, keys.Page{Limit: 2})
		if err != nil || len(page.Entries) != 0 || page.Next == "" {
			t.Errorf("%+v: %+v, %v; want a page without entries, and a next one", f, page, err)
		}
		page, err = s.AuditLog(t.Context(), f, keys.Page{After: page.Next, Limit: 2})
		if err != nil || len(page.Entries) != 1 || page.Next != "" {
			t.Errorf("%+v: %+v, %v; want the last page with the entry", f, page, err)
		}
	}
}

// TestCursors: what no page of the same list gave is refused before Redis is asked.
func TestCursors(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{Client: client(t, redistest.Start(t, redistest.Options{}).URL())})
	now := time.Now()
	cursors := map[string]string{
		"an id": "key_1", "no base64": "?", "padded": cursor(byID, "key_1") + "=", "no order": "a2V5", "no position": cursor(byID, "x")[:4],
		"other": cursor("other", "x"), "no score": cursor(byUse, "x key_1"), "no number": cursor(byUse, "nan key_1"), "no end": cursor(byUse, "inf key_1"), "no id": cursor(byUse, "12"),
	}
	orders := map[string]keys.KeyFilter{byID: {}, byName: {Query: "x"}, byUse: {UnusedSince: now}, byEnd: {ExpiresBefore: now}}
	good := map[string]string{byID: cursor(byID, "key_1"), byName: cursor(byName, "x\x00\x00key_1"), byUse: cursor(byUse, "12 key_1"), byEnd: cursor(byEnd, "12 key_1"), byLog: cursor(byLog, "12 aud_1")}
	for order, f := range orders {
		for of, c := range good {
			if _, err := s.Keys(t.Context(), f, keys.Page{After: c, Limit: 1}); errors.Is(err, keys.ErrCursor) != (of != order) {
				t.Errorf("a cursor of order %s in a list of order %s: %v", of, order, err)
			}
		}
		for what, c := range cursors {
			if _, err := s.Keys(t.Context(), f, keys.Page{After: c, Limit: 1}); !errors.Is(err, keys.ErrCursor) {
				t.Errorf("%s in a list of order %s: %v", what, order, err)
			}
		}
	}
	for what, c := range cursors {
		if _, err := s.AuditLog(t.Context(), keys.AuditFilter{}, keys.Page{After: c, Limit: 1}); !errors.Is(err, keys.ErrCursor) {
			t.Errorf("%s in the audit log: %v", what, err)
		}
	}
}
