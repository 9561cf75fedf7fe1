package sqlite

import (
	"context"

	"keygate/internal/keys"
)

var latestFirst = order{name: "log", column: "x.at", descending: true}

// auditWalk goes along the log, or along what concerns one record or one
// organization; who did what is checked entry by entry.
func auditWalk(f keys.AuditFilter, cursor string) (walk, error) {
	start, err := latestFirst.after(cursor)
	if err != nil {
		return walk{}, err
	}
	if !f.Until.IsZero() {
		start = latestFirst.later(start, place{at: micros(f.Until), row: latestFirst.lastRow()})
	}
	w := walk{order: latestFirst, from: "audit AS x INDEXED BY audit_by_time", start: start}
	switch {
	case f.Target != "":
		w.from = "audit AS x INDEXED BY audit_by_target"
		w.within.add("x.target=?", f.Target)
		if f.Organization != "" {
			w.rest.add("x.organization=?", f.Organization)
		}
	case f.Organization != "":
		w.from = "audit AS x INDEXED BY audit_by_organization"
		w.within.add("x.organization=?", f.Organization)
	}
	if !f.Since.IsZero() {
		w.within.add("x.at>=?", micros(f.Since))
	}
	if f.Actor != "" {
		w.rest.add("(x.actor=? OR x.actor_account=?)", f.Actor, f.Actor)
	}
	if f.Action != "" {
		w.rest.add("x.action=?", f.Action)
	}
	return w, nil
}

// AuditLog implements keys.Store.
func (s *Store) AuditLog(ctx context.Context, f keys.AuditFilter, p keys.Page) (keys.AuditPage, error) {
	w, err := auditWalk(f, p.After)
	if err != nil {
		return keys.AuditPage{}, err
	}
	found, next, err := page(ctx, s, w, p.Limit, loadAudit, scanAudit)
	return keys.AuditPage{Entries: found, Next: next}, err
}

const loadAudit = `SELECT ` + auditColumns + ` FROM json_each(?) j CROSS JOIN audit a ON a.rowid = j.value ORDER BY j.key`
