package sqlite

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"keygate/internal/keys"
)

// micros is how a time is stored: microseconds since 1970, 0 for no time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func instant(µs int64) time.Time {
	if µs == 0 {
		return time.Time{}
	}
	return time.UnixMicro(µs).UTC()
}

// reference is how an optional id is stored.
func reference(id string) any {
	if id == "" {
		return nil
	}
	return id
}

// list is how permissions and prefixes are stored: a JSON array.
func list[T any](entries []T) (string, error) {
	if len(entries) == 0 {
		return "[]", nil
	}
	text, err := json.Marshal(entries)
	return string(text), err
}

func parseList[T any](text string) ([]T, error) {
	if text == "[]" {
		return nil, nil
	}
	var entries []T
	err := json.Unmarshal([]byte(text), &entries)
	return entries, err
}

// optional gives back nil for what was nothing.
func optional(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// Each record's columns in one place, in the order in which its scan reads
// them. A key brings its secrets, so that any number of keys is one query.
const (
	organizationColumns = `o.id, o.slug, o.name, o.plan, o.overrides, o.version, o.created_at, o.updated_at`
	spaceColumns        = `s.id, s.organization, s.slug, s.name, s.version, s.created_at, s.updated_at`
	accountColumns      = `a.id, coalesce(a.organization, ''), a.name, a.email, a.subject, a.version, a.created_at, a.updated_at`
	keyColumns          = `k.id, k.name, k.description, coalesce(k.organization, ''), coalesce(k.space, ''), k.account,
	k.permissions, k.allowed_cidrs, k.plan, k.overrides, k.version, k.created_at, k.updated_at,
	k.expires_at, k.paused_at, k.revoked_at, k.last_used_at, k.rotated_at, k.lifetime,
	(SELECT json_group_array(json_object('hash', hex(hash), 'prefix', prefix, 'last_four', last_four, 'created_at', created_at,
		'ends_at', ends_at, 'last_used_at', last_used_at, 'imported', imported) ORDER BY position) FROM secrets WHERE key = k.id)`
	grantColumns = `g.id, g.account, coalesce(g.organization, ''), coalesce(g.space, ''), g.role, g.permission, g.created_at`
	// grantsOf is completed by the account and a closing parenthesis.
	grantsOf = `(SELECT json_group_array(json_object('id', id, 'account', account, 'organization', coalesce(organization, ''),
		'space', coalesce(space, ''), 'role', role, 'permission', permission, 'created_at', created_at) ORDER BY id) FROM grants WHERE account = `
	auditColumns = `a.id, a.at, a.action, a.actor, a.actor_account, a.address, a.request_id, a.kind, a.target, a.organization, a.before, a.after`
)

// scanner is *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func scanOrganization(row scanner) (o keys.Organization, err error) {
	var overrides string
	var created, updated int64
	err = row.Scan(&o.ID, &o.Slug, &o.Name, &o.Plan, &overrides, &o.Version, &created, &updated)
	o.Overrides, o.CreatedAt, o.UpdatedAt = optional(overrides), instant(created), instant(updated)
	return o, err
}

func scanSpace(row scanner) (s keys.Space, err error) {
	var created, updated int64
	err = row.Scan(&s.ID, &s.Organization, &s.Slug, &s.Name, &s.Version, &created, &updated)
	s.CreatedAt, s.UpdatedAt = instant(created), instant(updated)
	return s, err
}

func scanAccount(row scanner) (a keys.Account, err error) {
	var created, updated int64
	err = row.Scan(&a.ID, &a.Organization, &a.Name, &a.Email, &a.Subject, &a.Version, &created, &updated)
	a.CreatedAt, a.UpdatedAt = instant(created), instant(updated)
	return a, err
}

func scanGrant(row scanner) (g keys.Grant, err error) {
	var created int64
	err = row.Scan(&g.ID, &g.Account, &g.Organization, &g.Space, &g.Role, &g.Permission, &created)
	g.CreatedAt = instant(created)
	return g, err
}

func scanAudit(row scanner) (e keys.AuditEntry, err error) {
	var at int64
	err = row.Scan(&e.ID, &at, &e.Action, &e.Actor, &e.ActorAccount, &e.Address, &e.RequestID, &e.Kind, &e.Target, &e.Organization, &e.Before, &e.After)
	e.At = instant(at)
	if len(e.Before) == 0 {
		e.Before = nil
	}
	if len(e.After) == 0 {
		e.After = nil
	}
	return e, err
}

func scanKey(row scanner) (keys.Key, error) {
	var c keyRow
	if err := row.Scan(c.into()...); err != nil {
		return keys.Key{}, err
	}
	return c.key()
}

// keyRow is a key as keyColumns deliver it.
type keyRow struct {
	k                                                      keys.Key
	permissions, cidrs, overrides, secrets                 string
	created, updated, expires, paused, revoked, used, turn int64
	lifetime                                               int64 // microseconds
}

func (c *keyRow) into() []any {
	return []any{
		&c.k.ID, &c.k.Name, &c.k.Description, &c.k.Organization, &c.k.Space, &c.k.Account,
		&c.permissions, &c.cidrs, &c.k.Plan, &c.overrides, &c.k.Version, &c.created, &c.updated,
		&c.expires, &c.paused, &c.revoked, &c.used, &c.turn, &c.lifetime, &c.secrets,
	}
}

func (c *keyRow) key() (k keys.Key, err error) {
	k = c.k
	if k.Permissions, err = parseList[string](c.permissions); err != nil {
		return k, fmt.Errorf("permissions of key %s: %w", k.ID, err)
	}
	if k.AllowedCIDRs, err = parseList[netip.Prefix](c.cidrs); err != nil {
		return k, fmt.Errorf("allowed addresses of key %s: %w", k.ID, err)
	}
	if k.Secrets, err = parseSecrets(c.secrets); err != nil {
		return k, fmt.Errorf("secrets of key %s: %w", k.ID, err)
	}
	k.Overrides = optional(c.overrides)
	k.CreatedAt, k.UpdatedAt, k.ExpiresAt = instant(c.created), instant(c.updated), instant(c.expires)
	k.PausedAt, k.RevokedAt, k.LastUsedAt, k.RotatedAt = instant(c.paused), instant(c.revoked), instant(c.used), instant(c.turn)
	k.Lifetime = time.Duration(c.lifetime) * time.Microsecond
	return k, nil
}

func parseSecrets(text string) ([]keys.Secret, error) {
	rows, err := parseList[struct {
		Hash       string `json:"hash"`
		Prefix     string `json:"prefix"`
		LastFour   string `json:"last_four"`
		CreatedAt  int64  `json:"created_at"`
		EndsAt     int64  `json:"ends_at"`
		LastUsedAt int64  `json:"last_used_at"`
		Imported   int    `json:"imported"`
	}](text)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	secrets := make([]keys.Secret, len(rows))
	for i, r := range rows {
		hash, err := hex.DecodeString(r.Hash)
		if err != nil || len(hash) != len(keys.Hash{}) {
			return nil, fmt.Errorf("a hash of %d digits", len(r.Hash))
		}
		secrets[i] = keys.Secret{
			Hash: keys.Hash(hash), Prefix: r.Prefix, LastFour: r.LastFour, CreatedAt: instant(r.CreatedAt),
			EndsAt: instant(r.EndsAt), LastUsedAt: instant(r.LastUsedAt), Imported: r.Imported != 0,
		}
	}
	return secrets, nil
}

func parseGrants(text string) ([]keys.Grant, error) {
	rows, err := parseList[struct {
		ID           string `json:"id"`
		Account      string `json:"account"`
		Organization string `json:"organization"`
		Space        string `json:"space"`
		Role         string `json:"role"`
		Permission   string `json:"permission"`
		CreatedAt    int64  `json:"created_at"`
	}](text)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	grants := make([]keys.Grant, len(rows))
	for i, r := range rows {
		grants[i] = keys.Grant{
			ID: r.ID, Account: r.Account, Organization: r.Organization, Space: r.Space,
			Role: r.Role, Permission: r.Permission, CreatedAt: instant(r.CreatedAt),
		}
	}
	return grants, nil
}
