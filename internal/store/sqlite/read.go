package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"keygate/internal/keys"
)

// Lookup implements keys.Store with one statement, which is one snapshot.
func (s *Store) Lookup(ctx context.Context, h keys.Hash) (f keys.Found, err error) {
	var key keyRow
	var o struct {
		id, slug, name, plan, overrides string
		version, created, updated       int64
	}
	var sp struct {
		id, organization, slug, name string
		version, created, updated    int64
	}
	var grants string
	err = s.lookup.QueryRowContext(ctx, h[:]).Scan(append(key.into(),
		&o.id, &o.slug, &o.name, &o.plan, &o.overrides, &o.version, &o.created, &o.updated,
		&sp.id, &sp.organization, &sp.slug, &sp.name, &sp.version, &sp.created, &sp.updated, &grants)...)
	if errors.Is(err, sql.ErrNoRows) {
		return f, keys.ErrNotFound
	}
	if err != nil {
		return f, s.explain(err)
	}
	if f.Key, err = key.key(); err != nil {
		return f, s.explain(err)
	}
	if f.Grants, err = parseGrants(grants); err != nil {
		return f, s.explain(err)
	}
	for i := range f.Key.Secrets {
		if f.Key.Secrets[i].Hash == h {
			f.Secret = i
		}
	}
	if o.id != "" {
		f.Organization = keys.Organization{
			ID: o.id, Slug: o.slug, Name: o.name, Plan: o.plan, Overrides: optional(o.overrides),
			Version: o.version, CreatedAt: instant(o.created), UpdatedAt: instant(o.updated),
		}
	}
	if sp.id != "" {
		f.Space = keys.Space{
			ID: sp.id, Organization: sp.organization, Slug: sp.slug, Name: sp.name,
			Version: sp.version, CreatedAt: instant(sp.created), UpdatedAt: instant(sp.updated),
		}
	}
	return f, nil
}

const lookupQuery = `SELECT ` + keyColumns + `,
	coalesce(o.id, ''), coalesce(o.slug, ''), coalesce(o.name, ''), coalesce(o.plan, ''), coalesce(o.overrides, ''),
	coalesce(o.version, 0), coalesce(o.created_at, 0), coalesce(o.updated_at, 0),
	coalesce(s.id, ''), coalesce(s.organization, ''), coalesce(s.slug, ''), coalesce(s.name, ''),
	coalesce(s.version, 0), coalesce(s.created_at, 0), coalesce(s.updated_at, 0),
	` + grantsOf + `k.account)
	FROM secrets x JOIN keys k ON k.id = x.key
	LEFT JOIN organizations o ON o.id = k.organization
	LEFT JOIN spaces s ON s.id = k.space
	WHERE x.hash = ?`

// Organization implements keys.Store.
func (s *Store) Organization(ctx context.Context, ref string) (keys.Organization, error) {
	return one(ctx, s, "organization", ref, scanOrganization,
		`SELECT `+organizationColumns+` FROM organizations o WHERE o.id=?1 OR o.slug=?1`, ref)
}

// Space implements keys.Store.
func (s *Store) Space(ctx context.Context, organization, ref string) (keys.Space, error) {
	return one(ctx, s, "space", ref, scanSpace,
		`SELECT `+spaceColumns+` FROM spaces s WHERE s.organization=?1 AND s.id=?2 UNION ALL
		SELECT `+spaceColumns+` FROM spaces s WHERE s.organization=?1 AND s.slug=?2 LIMIT 1`, organization, ref)
}

// Account implements keys.Store.
func (s *Store) Account(ctx context.Context, id string) (keys.Account, error) {
	return one(ctx, s, "account", id, scanAccount, `SELECT `+accountColumns+` FROM accounts a WHERE a.id=?`, id)
}

// Key implements keys.Store.
func (s *Store) Key(ctx context.Context, id string) (keys.Key, error) {
	return one(ctx, s, "key", id, scanKey, `SELECT `+keyColumns+` FROM keys k WHERE k.id=?`, id)
}

// Setting implements keys.Store.
func (s *Store) Setting(ctx context.Context, name string) (keys.Setting, error) {
	return one(ctx, s, "setting", name, func(row scanner) (st keys.Setting, err error) {
		err = row.Scan(&st.Name, &st.Value, &st.Version)
		return st, err
	}, `SELECT name, value, version FROM settings WHERE name=?`, name)
}

// Grants implements keys.Store.
func (s *Store) Grants(ctx context.Context, accounts ...string) ([]keys.Grant, error) {
	var all []keys.Grant
	for _, account := range accounts {
		var text string
		if err := s.readers.QueryRowContext(ctx, `SELECT `+grantsOf+`?)`, account).Scan(&text); err != nil {
			return nil, s.explain(err)
		}
		grants, err := parseGrants(text)
		if err != nil {
			return nil, s.explain(err)
		}
		all = append(all, grants...)
	}
	return all, nil
}

// Organizations implements keys.Store.
func (s *Store) Organizations(ctx context.Context, p keys.Page) ([]keys.Organization, error) {
	return many(ctx, s, scanOrganization,
		`SELECT `+organizationColumns+` FROM organizations o WHERE o.id < ? ORDER BY o.id DESC LIMIT ?`, bound(p), limit(p))
}

// Spaces implements keys.Store.
func (s *Store) Spaces(ctx context.Context, organization string, p keys.Page) ([]keys.Space, error) {
	return many(ctx, s, scanSpace,
		`SELECT `+spaceColumns+` FROM spaces s WHERE s.organization=? AND s.id < ? ORDER BY s.id DESC LIMIT ?`, organization, bound(p), limit(p))
}

// Accounts implements keys.Store.
func (s *Store) Accounts(ctx context.Context, organization string, p keys.Page) ([]keys.Account, error) {
	return many(ctx, s, scanAccount,
		`SELECT `+accountColumns+` FROM accounts a WHERE a.organization IS ? AND a.id < ? ORDER BY a.id DESC LIMIT ?`, reference(organization), bound(p), limit(p))
}

// Keys implements keys.Store. Each of the four forms of the filter has an index.
func (s *Store) Keys(ctx context.Context, f keys.KeyFilter, p keys.Page) (keys.KeyPage, error) {
	where, args := `k.id < ?`, []any{bound(p)}
	if f.Name != "" {
		where, args = `k.name=? AND `+where, append([]any{f.Name}, args...)
	}
	if f.Organization != "" {
		where, args = `k.organization=? AND `+where, append([]any{f.Organization}, args...)
	}
	found, err := many(ctx, s, scanKey,
		`SELECT `+keyColumns+` FROM keys k WHERE `+where+` ORDER BY k.id DESC LIMIT ?`, append(args, limit(p))...)
	page := keys.KeyPage{Keys: found}
	if len(found) == p.Limit && p.Limit > 0 {
		page.Next = found[len(found)-1].ID
	}
	return page, err
}

// AuditLog implements keys.Store.
func (s *Store) AuditLog(ctx context.Context, _ keys.AuditFilter, p keys.Page) (keys.AuditPage, error) {
	found, err := many(ctx, s, scanAudit,
		`SELECT `+auditColumns+` FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?`, bound(p), limit(p))
	page := keys.AuditPage{Entries: found}
	if len(found) == p.Limit && p.Limit > 0 {
		page.Next = found[len(found)-1].ID
	}
	return page, err
}

// bound is what a page's ids are smaller than. Without a start that is the last
// code point: a condition that is always there is one that an index serves.
func bound(p keys.Page) string {
	if p.After == "" {
		return "\U0010FFFF"
	}
	return p.After
}

// limit keeps a negative number from meaning all.
func limit(p keys.Page) int { return max(p.Limit, 0) }

func one[T any](ctx context.Context, s *Store, kind, ref string, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	record, err := scan(s.readers.QueryRowContext(ctx, query, args...))
	if err != nil {
		var none T
		if errors.Is(err, sql.ErrNoRows) {
			return none, fmt.Errorf("%s %s: %w", kind, ref, keys.ErrNotFound)
		}
		return none, s.explain(err)
	}
	return record, nil
}

func many[T any](ctx context.Context, s *Store, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := s.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.explain(err)
	}
	defer rows.Close()
	var records []T
	for rows.Next() {
		record, err := scan(rows)
		if err != nil {
			return nil, s.explain(err)
		}
		records = append(records, record)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(err)
	}
	return records, nil
}
