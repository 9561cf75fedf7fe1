package sqlite

import (
	"context"
	"strings"

	"keygate/internal/keys"
)

// field is what a condition of a filter is about, as bits of a set.
type field uint

const (
	ofOrganization field = 1 << iota
	ofAccount
	inSpace
	named
	revoked
	paused
	ending
	expiring
	unused
)

// activity is when a key was used last, or else made; two indexes are on this
// very expression.
const activity = `CASE x.last_used_at WHEN 0 THEN x.created_at ELSE x.last_used_at END`

var (
	newestFirst   = order{name: "new"}
	soonestFirst  = order{name: "end", column: "x.expires_at"}
	longestUnused = order{name: "use", column: activity}
)

// keyPaths are the ways to walk along keys: the first whose fields are all in a
// filter is taken. Those of an order of their own come first, then the narrow.
var keyPaths = []struct {
	serves field
	order  order
	index  string
}{
	{ofOrganization | unused, longestUnused, "keys_by_organization_and_activity"},
	{unused, longestUnused, "keys_by_activity"},
	{ofOrganization | expiring, soonestFirst, "keys_by_organization_and_end"},
	{expiring, soonestFirst, "keys_by_end"},
	{ofAccount, newestFirst, "keys_by_account"},
	{ofOrganization | inSpace, newestFirst, "keys_by_space"},
	{inSpace, newestFirst, "keys_by_space"},
	{ofOrganization | named, newestFirst, "keys_by_organization_and_name"},
	{named, newestFirst, "keys_by_name"},
	{ofOrganization | revoked, newestFirst, "keys_revoked_by_organization"},
	{revoked, newestFirst, "keys_revoked"},
	{ofOrganization | paused, newestFirst, "keys_paused_by_organization"},
	{paused, newestFirst, "keys_paused"},
	{ofOrganization | ending, newestFirst, "keys_ending_by_organization"},
	{ending, newestFirst, "keys_ending"},
	{ofOrganization, newestFirst, "keys_by_organization"},
	{0, newestFirst, "sqlite_autoindex_keys_1"}, // the primary key's
}

// condition is one that a path serves if it serves its field; none serves 0.
type condition struct {
	field field
	term  string
	args  []any
}

// keyConditions are a filter's conditions but Query, which Go checks.
func keyConditions(f keys.KeyFilter) []condition {
	var all []condition
	add := func(field field, term string, args ...any) { all = append(all, condition{field, term, args}) }
	at := micros(f.At)
	if f.Organization != "" {
		add(ofOrganization, "x.organization=?", f.Organization)
	}
	if f.Account != "" {
		add(ofAccount, "x.account=?", f.Account)
	}
	if f.Space != "" {
		add(inSpace, "x.space=?", f.Space)
	}
	if f.Space != "" && f.Organization == "" { // the index starts with it
		add(inSpace, "x.organization=(SELECT organization FROM spaces WHERE id=?)", f.Space)
	}
	if f.Name != "" {
		add(named, "x.name=?", f.Name)
	}
	switch f.Status {
	case "":
	case keys.Revoked:
		add(revoked, "x.revoked_at<>0")
	case keys.Expired:
		add(ending, "x.revoked_at=0 AND x.expires_at<>0")
		add(0, "x.expires_at<=?", at)
	case keys.Paused:
		add(paused, "x.revoked_at=0 AND x.paused_at<>0")
		add(0, "(x.expires_at=0 OR x.expires_at>?)", at)
	case keys.Active:
		add(0, "x.revoked_at=0 AND x.paused_at=0 AND (x.expires_at=0 OR x.expires_at>?)", at)
	default:
		add(0, "FALSE")
	}
	if !f.UnusedSince.IsZero() {
		add(unused, activity+"<=?", micros(f.UnusedSince))
	}
	if !f.ExpiresBefore.IsZero() {
		add(expiring, "x.revoked_at=0 AND x.expires_at<>0 AND x.expires_at<=?", micros(f.ExpiresBefore))
		add(0, "x.expires_at>?", at)
	}
	return all
}

// keyWalk chooses the path for a filter and begins after a cursor of it.
func keyWalk(f keys.KeyFilter, cursor string) (walk, error) {
	all := keyConditions(f)
	var fields field
	for _, c := range all {
		fields |= c.field
	}
	chosen := keyPaths[len(keyPaths)-1]
	for _, p := range keyPaths {
		if p.serves&^fields == 0 {
			chosen = p
			break
		}
	}
	start, err := chosen.order.after(cursor)
	if err != nil {
		return walk{}, err
	}
	if chosen.serves&expiring != 0 { // what has ended at At is not walked
		start = chosen.order.later(start, place{at: micros(f.At), row: chosen.order.lastRow()})
	}
	w := walk{order: chosen.order, from: "keys AS x INDEXED BY " + chosen.index, start: start}
	for _, c := range all {
		if c.field&chosen.serves != 0 {
			w.within.add(c.term, c.args...)
		} else {
			w.rest.add(c.term, c.args...)
		}
	}
	if f.Query != "" {
		part := strings.ToLower(f.Query)
		w.text, w.match = "x.name", func(name string) bool { return strings.Contains(strings.ToLower(name), part) }
	}
	return w, nil
}

// Keys implements keys.Store. A filter for which no index was made is checked
// key by key along the nearest one. Letter case is what strings.ToLower says,
// letter by letter: ẞ and ß are equal, neither equals ss.
func (s *Store) Keys(ctx context.Context, f keys.KeyFilter, p keys.Page) (keys.KeyPage, error) {
	w, err := keyWalk(f, p.After)
	if err != nil {
		return keys.KeyPage{}, err
	}
	found, next, err := page(ctx, s, w, p.Limit, loadKeys, scanKey)
	return keys.KeyPage{Keys: found, Next: next}, err
}

const loadKeys = `SELECT ` + keyColumns + ` FROM json_each(?) j CROSS JOIN keys k ON k.rowid = j.value ORDER BY j.key`
