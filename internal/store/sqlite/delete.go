package sqlite

import (
	"database/sql"
	"errors"
	"fmt"

	"keygate/internal/keys"
)

// removal is how a kind of record is deleted.
type removal struct {
	kind keys.Kind
	// find reads the organization and the version of the one with an id.
	find string
	// users, in the order in which they are named, refer to it.
	users []user
	// remove has the id as its only argument.
	remove []string
}

// user is a kind of record that may refer to another; query asks whether one
// refers to an id.
type user struct{ by, query string }

var (
	keyRemoval = removal{
		kind:   keys.KindKey,
		find:   `SELECT coalesce(organization, ''), version FROM keys WHERE id=?`,
		remove: []string{`DELETE FROM keys WHERE id=?`},
	}
	accountRemoval = removal{
		kind:   keys.KindAccount,
		find:   `SELECT coalesce(organization, ''), version FROM accounts WHERE id=?`,
		users:  []user{{"keys", `SELECT EXISTS (SELECT 1 FROM keys WHERE account=?)`}},
		remove: []string{`DELETE FROM grants WHERE account=?`, `DELETE FROM accounts WHERE id=?`},
	}
	spaceRemoval = removal{
		kind: keys.KindSpace,
		find: `SELECT organization, version FROM spaces WHERE id=?`,
		users: []user{
			{"keys", `SELECT EXISTS (SELECT 1 FROM keys WHERE organization=(SELECT organization FROM spaces WHERE id=?1) AND space=?1)`},
			{"grants", `SELECT EXISTS (SELECT 1 FROM grants WHERE organization=(SELECT organization FROM spaces WHERE id=?1) AND space=?1)`},
		},
		remove: []string{`DELETE FROM spaces WHERE id=?`},
	}
	organizationRemoval = removal{
		kind: keys.KindOrganization,
		find: `SELECT id, version FROM organizations WHERE id=?`,
		users: []user{
			{"keys", `SELECT EXISTS (SELECT 1 FROM keys WHERE organization=?)`},
			{"spaces", `SELECT EXISTS (SELECT 1 FROM spaces WHERE organization=?)`},
			{"accounts", `SELECT EXISTS (SELECT 1 FROM accounts WHERE organization=?)`},
			{"grants", `SELECT EXISTS (SELECT 1 FROM grants WHERE organization=?)`},
		},
		remove: []string{`DELETE FROM organizations WHERE id=?`},
	}
)

// deleteAll deletes what a mutation deletes, those that refer first.
func (t *tx) deleteAll(f *feed, m keys.Mutation) error {
	for _, k := range m.DeleteKeys {
		if err := t.delete(f, keyRemoval, k.ID, k.Version); err != nil {
			return err
		}
	}
	for _, g := range m.DeleteGrants {
		if err := t.deleteGrant(f, g.ID); err != nil {
			return err
		}
	}
	for _, a := range m.DeleteAccounts {
		if err := t.delete(f, accountRemoval, a.ID, a.Version); err != nil {
			return err
		}
	}
	for _, s := range m.DeleteSpaces {
		if err := t.delete(f, spaceRemoval, s.ID, s.Version); err != nil {
			return err
		}
	}
	for _, o := range m.DeleteOrganizations {
		if err := t.delete(f, organizationRemoval, o.ID, o.Version); err != nil {
			return err
		}
	}
	return nil
}

// delete removes one record. Foreign keys would refuse it too, but do not say
// who refers.
func (t *tx) delete(f *feed, r removal, id string, version int64) error {
	var organization string
	var stored int64
	switch err := t.read(r.find, []any{id}, &organization, &stored); {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s %s: %w", r.kind, id, keys.ErrNotFound)
	case err != nil:
		return err
	case stored != version:
		return fmt.Errorf("%s %s (stored version %d): %w", r.kind, id, stored, keys.ErrConflict)
	}
	for _, u := range r.users {
		var used bool
		if err := t.read(u.query, []any{id}, &used); err != nil {
			return err
		}
		if used {
			return &keys.InUseError{Kind: string(r.kind), ID: id, By: u.by}
		}
	}
	for _, statement := range r.remove {
		if err := t.exec(statement, id); err != nil {
			return err
		}
	}
	return f.add(r.kind, id, organization, 0)
}

func (t *tx) deleteGrant(f *feed, id string) error {
	var account string
	err := t.read(`SELECT account FROM grants WHERE id=?`, []any{id}, &account)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("grant %s: %w", id, keys.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if err := t.exec(`DELETE FROM grants WHERE id=?`, id); err != nil {
		return err
	}
	return t.grantsChanged(f, account)
}

// grantsChanged tells the feed of an account whose grants changed, at the
// account's version, which they do not raise.
func (t *tx) grantsChanged(f *feed, account string) error {
	var organization string
	var version int64
	if err := t.read(accountRemoval.find, []any{account}, &organization, &version); err != nil {
		return err
	}
	return f.add(keys.KindAccount, account, organization, version)
}
