// Package storetest is the contract of keys.Store as tests: every engine runs
// the same ones.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"keygate/internal/keys"
)

// Harness is an empty store to be tested, and what may be done to it. The
// engine's own test closes it at the end; closing it twice is allowed.
type Harness struct {
	Store keys.Store
	// Reopen closes the store and opens one over the same data; nil if the
	// engine keeps nothing.
	Reopen func(t *testing.T) keys.Store
	// KeepChanges is about how many change entries are kept, which should be
	// few hundred; 0 skips the test of the gap.
	KeepChanges int
}

// Run runs the contract; open is called once per test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*world)
	}{
		{"RoundTrip", roundTrip},
		{"Times", times},
		{"Text", text},
		{"Copies", copies},
		{"Unknown", unknown},
		{"References", references},
		{"Lookup", lookup},
		{"LookupIsOneSnapshot", lookupIsOneSnapshot},
		{"Update", update},
		{"Delete", deleteKeys},
		{"DeleteTenants", deleteTenants},
		{"DeleteAndMake", deleteAndMake},
		{"DeleteInUse", deleteInUse},
		{"DeleteConflict", deleteConflict},
		{"DeleteUnderConcurrency", deleteUnderConcurrency},
		{"Applied", applied},
		{"Conflict", conflict},
		{"Exists", exists},
		{"Dangling", dangling},
		{"Atomic", atomic},
		{"Import", importMany},
		{"MaxKeys", maxKeys},
		{"MaxKeysUnderConcurrency", maxKeysUnderConcurrency},
		{"OneWriterWins", oneWriterWins},
		{"OneSlugWins", oneSlugWins},
		{"Used", used},
		{"UsedThenEdited", usedThenEdited},
		{"UsedByMany", usedByMany},
		{"UsedWhileEdited", usedWhileEdited},
		{"Remembered", remembered},
		{"Forgotten", forgotten},
		{"OneRequestWins", oneRequestWins},
		{"Pages", pages},
		{"PagesUnderInserts", pagesUnderInserts},
		{"Filters", filters},
		{"FiltersFollow", filtersFollow},
		{"Cursors", cursors},
		{"GrantsOfMany", grantsOfMany},
		{"AuditLog", auditLog},
		{"AuditFilters", auditFilters},
		{"Feed", feed},
		{"FeedFromTheStart", feedFromTheStart},
		{"FeedInBatches", feedInBatches},
		{"FeedWaits", feedWaits},
		{"FeedUnderConcurrency", feedUnderConcurrency},
		{"FeedGap", feedGap},
		{"RegisterPolicy", registerPolicy},
		{"Reopen", reopen},
		{"Cancelled", cancelled},
		{"Close", closing},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			test.run(&world{T: t, h: h, s: h.Store, now: time.Date(2026, 3, 14, 15, 9, 26, 535_897_000, time.UTC)})
		})
	}
}

// world is a store and a maker of records whose ids sort by creation.
type world struct {
	*testing.T
	h    Harness
	s    keys.Store
	now  time.Time
	last int
}

func (w *world) id(prefix string) string {
	w.last++
	return fmt.Sprintf("%s%032x", prefix, w.last)
}

func (w *world) organization(slug string) keys.Organization {
	return keys.Organization{ID: w.id("org_"), Slug: slug, Name: "The " + slug, Plan: "free", CreatedAt: w.now, UpdatedAt: w.now}
}

func (w *world) space(o keys.Organization, slug string) keys.Space {
	return keys.Space{ID: w.id("spc_"), Organization: o.ID, Slug: slug, Name: "The " + slug, CreatedAt: w.now, UpdatedAt: w.now}
}

func (w *world) account(o keys.Organization) keys.Account {
	return keys.Account{ID: w.id("acc_"), Organization: o.ID, Name: "Ada", CreatedAt: w.now, UpdatedAt: w.now}
}

func (w *world) grant(a keys.Account) keys.Grant {
	return keys.Grant{ID: w.id("grt_"), Account: a.ID, Organization: a.Organization, Role: "owner", CreatedAt: w.now}
}

func (w *world) key(a keys.Account) keys.Key {
	id := w.id("key_")
	return keys.Key{
		ID: id, Name: "name of " + id, Organization: a.Organization, Account: a.ID, Permissions: []string{"orders:read"},
		Secrets: []keys.Secret{w.secret(id)}, CreatedAt: w.now, UpdatedAt: w.now,
	}
}

func (w *world) secret(text string) keys.Secret {
	return keys.Secret{Hash: keys.HashSecret(text), Prefix: "kg_live", LastFour: text[len(text)-4:], CreatedAt: w.now}
}

func (w *world) audit(action string) keys.AuditEntry {
	return keys.AuditEntry{ID: w.id("aud_"), At: w.now, Action: action, Actor: "system"}
}

// tenant is an organization with what most tests need of it.
type tenant struct {
	organization keys.Organization
	space        keys.Space
	account      keys.Account
	grant        keys.Grant
}

// tenant stores an organization with a space and an account that owns it.
func (w *world) tenant(slug string) tenant {
	w.Helper()
	var n tenant
	n.organization = w.organization(slug)
	n.space = w.space(n.organization, "production")
	n.account = w.account(n.organization)
	n.grant = w.grant(n.account)
	w.apply(keys.Mutation{
		Organizations: []keys.Organization{n.organization}, Spaces: []keys.Space{n.space},
		Accounts: []keys.Account{n.account}, Grants: []keys.Grant{n.grant},
	})
	n.organization.Version, n.space.Version, n.account.Version = 1, 1, 1
	return n
}

// apply wants the change to be made; a missing At is now.
func (w *world) apply(m keys.Mutation) {
	w.Helper()
	if err := w.try(m); err != nil {
		w.Fatalf("Apply: %v", err)
	}
}

func (w *world) try(m keys.Mutation) error {
	if m.At.IsZero() {
		m.At = w.now
	}
	_, err := w.s.Apply(context.Background(), m)
	return err
}

// create stores new keys and returns them as stored.
func (w *world) create(all ...keys.Key) []keys.Key {
	w.Helper()
	w.apply(keys.Mutation{Keys: all})
	for i := range all {
		all[i].Version = 1
	}
	return all
}

var comparing = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})}

// same compares what a read returned, error included, with what was written.
func same[T any](w *world, what string, want T) func(got T, err error) {
	w.Helper()
	return func(got T, err error) {
		w.Helper()
		if err != nil {
			w.Errorf("%s: %v", what, err)
		} else if diff := cmp.Diff(want, got, comparing); diff != "" {
			w.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

// fails wants an error that is target.
func fails[T any](w *world, what string, target error) func(got T, err error) {
	return func(_ T, err error) {
		w.Helper()
		if !errors.Is(err, target) {
			w.Errorf("%s: error %v; want %v", what, err, target)
		}
	}
}

// end is the present end of the feed.
func (w *world) end() int64 {
	w.Helper()
	batch, err := w.s.Changes(w.Context(), keys.FeedEnd, 0)
	if err != nil {
		w.Fatalf("Changes: %v", err)
	}
	return batch.Next
}

// since returns what the feed holds after a cursor, without its numbers.
func (w *world) since(after int64) []keys.Change {
	w.Helper()
	batch, err := w.s.Changes(w.Context(), after, 0)
	if err != nil || batch.Gap {
		w.Fatalf("Changes after %d: gap %v, error %v", after, batch.Gap, err)
	}
	for i := range batch.Changes {
		batch.Changes[i].Seq = 0
	}
	return batch.Changes
}

// untouched wants an attempt to leave neither audit nor change entries.
func (w *world) untouched(what string, attempt func()) {
	w.Helper()
	end := w.end()
	audit, err := w.auditLog(w.Context(), keys.Page{Limit: 1000})
	if err != nil {
		w.Fatal(err)
	}
	attempt()
	if changes := w.since(end); len(changes) > 0 {
		w.Errorf("%s: the feed has %+v", what, changes)
	}
	same(w, what+": audit log", audit)(w.auditLog(w.Context(), keys.Page{Limit: 1000}))
}

// keys and auditLog read the first records that pass, without the cursor.
func (w *world) keys(ctx context.Context, f keys.KeyFilter, p keys.Page) ([]keys.Key, error) {
	page, err := w.s.Keys(ctx, f, p)
	return page.Keys, err
}

func (w *world) auditLog(ctx context.Context, p keys.Page) ([]keys.AuditEntry, error) {
	page, err := w.s.AuditLog(ctx, keys.AuditFilter{}, p)
	return page.Entries, err
}
