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
	wanted, err := list(accounts)
	if err != nil {
		return nil, err
	}
	return many(ctx, s, scanGrant, grantsQuery, wanted)
}

const grantsQuery = `SELECT ` + grantColumns + ` FROM json_each(?) j CROSS JOIN grants g ON g.account = j.value ORDER BY j.key, g.id`

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

// bound is what a page's ids are smaller than.
func bound(p keys.Page) string {
	if p.After == "" {
		return lastID
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

// querier is the readers, or one transaction of theirs.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func many[T any](ctx context.Context, s *Store, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	return collect(ctx, s, s.readers, scan, query, args...)
}

func collect[T any](ctx context.Context, s *Store, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
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
