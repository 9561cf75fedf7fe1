package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"keygate/internal/keys"
)

// Apply implements keys.Store. It returns once the change is on disk.
func (s *Store) Apply(ctx context.Context, m keys.Mutation) (keys.Applied, error) {
	var last int64
	err := s.writer.submit(ctx, func(t *tx) (err error) {
		last, err = s.apply(t, m)
		return err
	})
	if err != nil { // and last may still be written to
		return keys.Applied{}, s.explain(err)
	}
	return keys.Applied{Durable: true, Seq: last}, nil
}

// apply makes a mutation and returns the number of its last entry in the feed.
// A request that was answered before goes by its answer, whatever else would be
// wrong with it by now. What is deleted makes room for what is written.
func (s *Store) apply(t *tx, m keys.Mutation) (last int64, err error) {
	if m.Remember != nil {
		if err := t.remember(*m.Remember, micros(m.At)); err != nil {
			return 0, err
		}
	}
	f := &feed{t: t}
	if err := t.deleteAll(f, m); err != nil {
		return 0, err
	}
	if err := t.putAll(f, m); err != nil {
		return 0, err
	}
	if m.MaxKeys != nil {
		if err := t.checkMaxKeys(*m.MaxKeys, micros(m.At)); err != nil {
			return 0, err
		}
	}
	return f.last, f.trim(s.keepChanges)
}

// putAll writes what a mutation writes, what others refer to first.
func (t *tx) putAll(f *feed, m keys.Mutation) error {
	for _, o := range m.Organizations {
		if err := t.putOrganization(f, o); err != nil {
			return err
		}
	}
	for _, sp := range m.Spaces {
		if err := t.putSpace(f, sp); err != nil {
			return err
		}
	}
	for _, a := range m.Accounts {
		if err := t.putAccount(f, a); err != nil {
			return err
		}
	}
	for _, g := range m.Grants {
		if err := t.addGrant(f, g); err != nil {
			return err
		}
	}
	for _, k := range m.Keys {
		if err := t.putKey(f, k); err != nil {
			return err
		}
	}
	for _, st := range m.Settings {
		if err := t.putSetting(f, st); err != nil {
			return err
		}
	}
	for _, e := range m.Audit {
		if err := t.addAudit(e); err != nil {
			return err
		}
	}
	return nil
}

// write inserts a record of version 0 or updates one of another version. Both
// statements take the id as ?1 and the version that the change is based on as
// ?2; value names what is stored under a column that must be unique.
func (t *tx) write(kind keys.Kind, insert, update, exists string, value func(column string) string, id string, version int64, rest ...any) error {
	args := append([]any{id, version}, rest...)
	if version == 0 {
		return refused(t.exec(insert, args...), string(kind), id, value)
	}
	result, err := t.change(update, args...)
	if err != nil {
		return refused(err, string(kind), id, value)
	}
	return t.changedOne(result, string(kind), exists, id)
}

// changedOne tells a record that is gone from one with another version.
func (t *tx) changedOne(result sql.Result, kind, exists, id string) error {
	n, err := result.RowsAffected()
	if err != nil || n == 1 {
		return err
	}
	var stored int64
	switch err := t.read(exists, []any{id}, &stored); {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s %s: %w", kind, id, keys.ErrNotFound)
	case err != nil:
		return err
	}
	return fmt.Errorf("%s %s (stored version %d): %w", kind, id, stored, keys.ErrConflict)
}

func (t *tx) putOrganization(f *feed, o keys.Organization) error {
	value := func(column string) string {
		if column == "slug" {
			return o.Slug
		}
		return o.ID
	}
	err := t.write(keys.KindOrganization,
		`INSERT INTO organizations (id, version, slug, name, plan, overrides, created_at, updated_at) VALUES (?1, ?2+1, ?3, ?4, ?5, ?6, ?7, ?8)`,
		`UPDATE organizations SET version=?2+1, slug=?3, name=?4, plan=?5, overrides=?6, created_at=?7, updated_at=?8 WHERE id=?1 AND version=?2`,
		`SELECT version FROM organizations WHERE id=?`, value,
		o.ID, o.Version, o.Slug, o.Name, o.Plan, string(o.Overrides), micros(o.CreatedAt), micros(o.UpdatedAt))
	if err != nil {
		return err
	}
	return f.add(keys.KindOrganization, o.ID, o.ID, o.Version+1)
}

func (t *tx) putSpace(f *feed, s keys.Space) error {
	value := func(column string) string {
		if column == "slug" {
			return s.Slug
		}
		return s.ID
	}
	err := t.write(keys.KindSpace,
		`INSERT INTO spaces (id, version, organization, slug, name, created_at, updated_at) VALUES (?1, ?2+1, ?3, ?4, ?5, ?6, ?7)`,
		`UPDATE spaces SET version=?2+1, organization=?3, slug=?4, name=?5, created_at=?6, updated_at=?7 WHERE id=?1 AND version=?2`,
		`SELECT version FROM spaces WHERE id=?`, value,
		s.ID, s.Version, s.Organization, s.Slug, s.Name, micros(s.CreatedAt), micros(s.UpdatedAt))
	if err != nil {
		return err
	}
	return f.add(keys.KindSpace, s.ID, s.Organization, s.Version+1)
}

func (t *tx) putAccount(f *feed, a keys.Account) error {
	err := t.write(keys.KindAccount,
		`INSERT INTO accounts (id, version, organization, name, email, subject, created_at, updated_at) VALUES (?1, ?2+1, ?3, ?4, ?5, ?6, ?7, ?8)`,
		`UPDATE accounts SET version=?2+1, organization=?3, name=?4, email=?5, subject=?6, created_at=?7, updated_at=?8 WHERE id=?1 AND version=?2`,
		`SELECT version FROM accounts WHERE id=?`, only(a.ID),
		a.ID, a.Version, reference(a.Organization), a.Name, a.Email, a.Subject, micros(a.CreatedAt), micros(a.UpdatedAt))
	if err != nil {
		return err
	}
	return f.add(keys.KindAccount, a.ID, a.Organization, a.Version+1)
}

// addGrant stores a grant. In the feed it is a change of its account, at the
// account's version, which a grant does not raise.
func (t *tx) addGrant(f *feed, g keys.Grant) error {
	if g.Space != "" && g.Organization == "" {
		return fmt.Errorf("space %s of grant %s, which names no organization: %w", g.Space, g.ID, keys.ErrNotFound)
	}
	err := t.exec(`INSERT INTO grants (id, account, organization, space, role, permission, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		g.ID, g.Account, reference(g.Organization), reference(g.Space), g.Role, g.Permission, micros(g.CreatedAt))
	if err != nil {
		return refused(err, "grant", g.ID, only(g.ID))
	}
	return t.grantsChanged(f, g.Account)
}

func (t *tx) putSetting(f *feed, s keys.Setting) error {
	err := t.write(keys.KindSetting,
		`INSERT INTO settings (name, version, value) VALUES (?1, ?2+1, ?3)`,
		`UPDATE settings SET version=?2+1, value=?3 WHERE name=?1 AND version=?2`,
		`SELECT version FROM settings WHERE name=?`, only(s.Name),
		s.Name, s.Version, s.Value)
	if err != nil {
		return err
	}
	return f.add(keys.KindSetting, s.Name, "", s.Version+1)
}

func (t *tx) addAudit(e keys.AuditEntry) error {
	err := t.exec(`INSERT INTO audit (id, at, action, actor, actor_account, address, request_id, kind, target, organization, before, after)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.ID, micros(e.At), e.Action, e.Actor, e.ActorAccount, e.Address, e.RequestID, string(e.Kind), e.Target, e.Organization, blob(e.Before), blob(e.After))
	return refused(err, "audit entry", e.ID, only(e.ID))
}

// checkMaxKeys counts through two ranges of one index and never beyond the
// number in question: an expiry of 0 is none, and one at this instant is over.
func (t *tx) checkMaxKeys(m keys.MaxKeys, at int64) error {
	var slug string
	err := t.read(`SELECT slug FROM organizations WHERE id=?`, []any{m.Organization}, &slug)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("organization %s: %w", m.Organization, keys.ErrNotFound)
	}
	if err != nil || m.Max < 0 { // keys.Unlimited
		return err
	}
	var n int
	err = t.read(countQuery, []any{m.Organization, at, m.Max + 1}, &n)
	if err != nil {
		return err
	}
	if n > m.Max {
		return &keys.TooManyKeysError{Organization: slug, Max: m.Max}
	}
	return nil
}

const countQuery = `SELECT count(*) FROM (
	SELECT 1 FROM keys WHERE organization=?1 AND revoked_at=0 AND expires_at=0
	UNION ALL
	SELECT 1 FROM keys WHERE organization=?1 AND revoked_at=0 AND expires_at>?2
	LIMIT ?3)`

// only answers for a record whose one unique column is v's.
func only(v string) func(column string) string { return func(string) string { return v } }

// blob keeps an empty value from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
