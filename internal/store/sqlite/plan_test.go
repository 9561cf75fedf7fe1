package sqlite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

// plan is how SQLite would answer a query. Statistics would change plans: there
// are none, and none are gathered.
func plan(t *testing.T, s *Store, query string, args ...any) []string {
	t.Helper()
	if args == nil {
		args = make([]any, strings.Count(query, "?"))
	}
	rows, err := s.readers.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

// direct reports whether a plan reads only what it needs, in its order.
func direct(steps []string) bool {
	for _, step := range steps {
		// Neither is a scan of anything stored.
		named := strings.Contains(step, "SCAN (subquery") || strings.Contains(step, "SCAN j VIRTUAL TABLE") || step == "SCAN CONSTANT ROW" || strings.Contains(step, "SCAN u")
		if strings.Contains(step, "SCAN") && !named || strings.Contains(step, "TEMP B-TREE FOR ORDER BY") {
			return false
		}
	}
	return true
}

// TestQueriesUseIndexes: no query that runs over many records reads them all or
// sorts them.
func TestQueriesUseIndexes(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	queries := []string{
		lookupQuery,
		`SELECT ` + accountColumns + ` FROM accounts a WHERE a.organization IS ? AND a.id < ? ORDER BY a.id DESC LIMIT ?`,
		`SELECT ` + spaceColumns + ` FROM spaces s WHERE s.organization=? AND s.id < ? ORDER BY s.id DESC LIMIT ?`,
		`SELECT ` + organizationColumns + ` FROM organizations o WHERE o.id=?1 OR o.slug=?1`,
		countQuery,
		`SELECT seq, kind, id, organization, version FROM changes WHERE seq > ? ORDER BY seq LIMIT ?`,
		`DELETE FROM changes WHERE seq <= ?`,
		`SELECT id FROM remembered WHERE until <= ? ORDER BY until LIMIT ?`, forgetQuery,
		useKeys, useSecrets,
	}
	for _, r := range []removal{keyRemoval, accountRemoval, spaceRemoval, organizationRemoval} {
		queries = append(append(queries, r.find), r.remove...)
		for _, u := range r.users {
			queries = append(queries, u.query)
		}
	}
	for _, query := range queries {
		if steps := plan(t, s, query); !direct(steps) {
			t.Errorf("%s\nhas the plan\n%s", query, strings.Join(steps, "\n"))
		}
	}
	// A page's few records are sorted after they were found one by one.
	for _, query := range []string{loadKeys, loadAudit, grantsQuery} {
		if steps := plan(t, s, query); strings.Count(strings.Join(steps, "\n"), "SCAN") != 1 {
			t.Errorf("%s\nhas the plan\n%s", query, strings.Join(steps, "\n"))
		}
	}
}

// TestFiltersUseIndexes: each filter of keys, alone and within an organization,
// is a stretch of an index that is in the list's order.
func TestFiltersUseIndexes(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	now := time.UnixMicro(1_700_000_000_000_000)
	for what, c := range map[string]struct {
		f         keys.KeyFilter
		own, both string // the index alone, and in an organization
	}{
		"all":            {keys.KeyFilter{}, "sqlite_autoindex_keys_1 (id<?)", "keys_by_organization (organization=? AND id<?)"},
		"account":        {keys.KeyFilter{Account: "acc_1"}, "keys_by_account (account=? AND id<?)", "keys_by_account (account=? AND id<?)"},
		"space":          {keys.KeyFilter{Space: "spc_1"}, "keys_by_space (organization=? AND space=? AND id<?)", "keys_by_space (organization=? AND space=? AND id<?)"},
		"name":           {keys.KeyFilter{Name: "x"}, "keys_by_name (name=? AND id<?)", "keys_by_organization_and_name (organization=? AND name=? AND id<?)"},
		"part of a name": {keys.KeyFilter{Query: "x"}, "sqlite_autoindex_keys_1 (id<?)", "keys_by_organization (organization=? AND id<?)"},
		"active":         {keys.KeyFilter{Status: keys.Active}, "sqlite_autoindex_keys_1 (id<?)", "keys_by_organization (organization=? AND id<?)"},
		"revoked":        {keys.KeyFilter{Status: keys.Revoked}, "keys_revoked (id<?)", "keys_revoked_by_organization (organization=? AND id<?)"},
		"paused":         {keys.KeyFilter{Status: keys.Paused}, "keys_paused (id<?)", "keys_paused_by_organization (organization=? AND id<?)"},
		"expired":        {keys.KeyFilter{Status: keys.Expired}, "COVERING INDEX keys_ending (id<?)", "keys_ending_by_organization (organization=? AND id<?)"},
		"expiring":       {keys.KeyFilter{ExpiresBefore: now}, "keys_by_end (expires_at>? AND expires_at<?)", "keys_by_organization_and_end (organization=? AND expires_at>? AND expires_at<?)"},
		"unused":         {keys.KeyFilter{UnusedSince: now}, "keys_by_activity (<expr>>? AND <expr><?)", "keys_by_organization_and_activity (organization=? AND <expr>>? AND <expr><?)"},
	} {
		for _, organization := range []string{"", "org_1"} {
			c.f.Organization, c.f.At = organization, now
			w, err := keyWalk(c.f, "")
			if err != nil {
				t.Fatal(err)
			}
			index := c.own
			if organization != "" {
				index = c.both
			}
			alongIndex(t, s, what+" of "+organization, w, index)
		}
	}
	for what, c := range map[string]struct {
		f     keys.AuditFilter
		index string
	}{
		"all":          {keys.AuditFilter{}, "audit_by_time (at<?)"},
		"a time":       {keys.AuditFilter{Since: now, Until: now}, "audit_by_time (at>? AND at<?)"},
		"organization": {keys.AuditFilter{Organization: "org_1"}, "audit_by_organization (organization=? AND at<?)"},
		"target":       {keys.AuditFilter{Target: "key_1", Organization: "org_1", Since: now}, "audit_by_target (target=? AND at>? AND at<?)"},
		"actor":        {keys.AuditFilter{Actor: "key_1"}, "audit_by_time (at<?)"},
	} {
		w, err := auditWalk(c.f, "")
		if err != nil {
			t.Fatal(err)
		}
		alongIndex(t, s, "the log, "+what, w, c.index)
	}
}

// alongIndex wants a walk to be along this stretch of an index, and where it
// goes on in the middle, to begin there.
func alongIndex(t *testing.T, s *Store, what string, w walk, index string) {
	t.Helper()
	check := func(along stretch, index string) {
		t.Helper()
		query, args := w.query(along)
		steps := plan(t, s, query, args...)
		if !direct(steps) || !strings.HasPrefix(steps[0], "SEARCH x USING ") || !strings.HasSuffix(steps[0], index) {
			t.Errorf("%s\n%s\nhas the plan\n%s", what, query, strings.Join(steps, "\n"))
		}
	}
	check(w.stretches()[0], index)
	if w.order.column == "" {
		return
	}
	w.start = place{at: 1, row: 1, id: "x"}
	after := "=? AND rowid>?)"
	if w.order.descending {
		after = "=? AND rowid<?)"
	}
	check(w.stretches()[0], after)
	check(w.stretches()[1], index)
}

// TestShortPages: a filter that few pass ends a call after a bounded walk, and
// the next goes on from there.
func TestShortPages(t *testing.T) {
	const mostWalked = 200
	s := openStore(t, Options{Dir: t.TempDir()})
	s.mostWalked = mostWalked
	const all = 2*mostWalked + 10
	m := keys.Mutation{Accounts: []keys.Account{{ID: "acc_1"}}}
	for i := range all {
		k := keys.Key{ID: fmt.Sprintf("key_%08d", i), Account: "acc_1", Name: "common"}
		if i == 5 || i == mostWalked {
			k.Name = "RÄRE"
		}
		m.Keys = append(m.Keys, k)
	}
	if _, err := s.Apply(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	cursor := ""
	for call, want := range []string{"", "key_00000200", "key_00000005"} {
		page, err := s.Keys(t.Context(), keys.KeyFilter{Query: "räre"}, keys.Page{After: cursor, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(page.Keys) > 0 {
			got = page.Keys[0].ID
		}
		if got != want || len(page.Keys) > 1 || (page.Next == "") != (call == 2) {
			t.Errorf("call %d: %d keys, the first %q (want %q), next %q", call+1, len(page.Keys), got, want, page.Next)
		}
		cursor = page.Next
	}
}

// TestForgetting: answers whose time is over go when another comes.
func TestForgetting(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	at := time.UnixMicro(1_700_000_000_000_000)
	remember := func(id string, until time.Duration) {
		t.Helper()
		if _, err := s.Apply(t.Context(), keys.Mutation{At: at, Remember: &keys.Remembered{ID: id, Until: at.Add(until)}}); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() (n int) {
		t.Helper()
		if err := s.readers.QueryRowContext(t.Context(), `SELECT count(*) FROM remembered`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range forgetAtOnce + 20 {
		remember(fmt.Sprint(i), time.Duration(i+1)*time.Second)
	}
	at = at.Add(time.Hour)
	remember("next", time.Hour)
	if n := kept(); n != 21 {
		t.Errorf("%d answers are kept; want 21", n)
	}
	remember("last", time.Hour)
	if n := kept(); n != 2 {
		t.Errorf("%d answers are kept; want 2", n)
	}
}
