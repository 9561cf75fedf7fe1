package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"keygate/internal/keys"
)

// auditQuery is a filter as the script takes it.
type auditQuery struct {
	Limit  int      `json:"limit"`
	Most   int      `json:"most"`
	Checks []string `json:"checks"`
	Target string   `json:"target"`
	Actor  string   `json:"actor"`
	Action string   `json:"action"`
	Since  *int64   `json:"since,omitempty"`
	Until  *int64   `json:"until,omitempty"`
}

func newAuditQuery(f keys.AuditFilter, limit int) auditQuery {
	q := auditQuery{
		Limit: limit, Most: maxEntries, Checks: []string{}, Target: f.Target, Actor: f.Actor, Action: f.Action,
		Since: optionalMicros(f.Since), Until: optionalMicros(f.Until),
	}
	for _, c := range []struct{ name, value string }{{"target", f.Target}, {"actor", f.Actor}, {"action", f.Action}} {
		if c.value != "" {
			q.Checks = append(q.Checks, c.name)
		}
	}
	return q
}

// AuditLog implements keys.Store with one script. An organization's entries and a
// stretch of time are indexed; what else is asked for is looked up in the entries.
func (s *Store) AuditLog(ctx context.Context, f keys.AuditFilter, p keys.Page) (keys.AuditPage, error) {
	after, err := position(byLog, p.After)
	if err != nil || p.Limit <= 0 {
		return keys.AuditPage{}, err
	}
	text, err := json.Marshal(newAuditQuery(f, p.Limit))
	if err != nil {
		return keys.AuditPage{}, err
	}
	set := auditKey
	if f.Organization != "" {
		set += ":" + f.Organization
	}
	answer, err := read(ctx, s, "audit log", func(ctx context.Context) ([]string, error) {
		return auditScript.Run(ctx, s.client, []string{set}, text, after).StringSlice()
	})
	if err != nil {
		return keys.AuditPage{}, err
	}
	if len(answer)%2 != 1 {
		return keys.AuditPage{}, fmt.Errorf("a page of the audit log was answered with %d values", len(answer))
	}
	page := keys.AuditPage{Next: cursor(byLog, answer[0])}
	for of := range slices.Chunk(answer[1:], 2) {
		entry, err := decodeAudit(of[0], of[1])
		if err != nil {
			return keys.AuditPage{}, err
		}
		page.Entries = append(page.Entries, entry)
	}
	return page, nil
}
