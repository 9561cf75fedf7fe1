package redis

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keygate/internal/keys"
)

// Records are JSON with short names, which takes half the memory that long ones
// would. The scripts read v (version), o, sp and a (organization, space and
// account), s (slug, or a key's secrets), h (hash), n and f (name, and in lower
// case), c, x, z, r and w (creation, expiry, pause, revocation, last use), and of
// an audit entry what its filter compares. Ids stand in the names of the records' Redis keys. Times are
// microseconds since 1970, left out where there is none.

type organizationRecord struct {
	Version   int64  `json:"v"`
	Slug      string `json:"s"`
	Name      string `json:"n,omitempty"`
	Plan      string `json:"p,omitempty"`
	Overrides string `json:"l,omitempty"`
	Created   int64  `json:"c,omitempty"`
	Updated   int64  `json:"u,omitempty"`
}

type spaceRecord struct {
	Version      int64  `json:"v"`
	Organization string `json:"o"`
	Slug         string `json:"s"`
	Name         string `json:"n,omitempty"`
	Created      int64  `json:"c,omitempty"`
	Updated      int64  `json:"u,omitempty"`
}

type accountRecord struct {
	Version      int64  `json:"v"`
	Organization string `json:"o,omitempty"`
	Name         string `json:"n,omitempty"`
	Email        string `json:"e,omitempty"`
	Subject      string `json:"i,omitempty"`
	Created      int64  `json:"c,omitempty"`
	Updated      int64  `json:"u,omitempty"`
}

type grantRecord struct {
	Account      string `json:"a"`
	Organization string `json:"o,omitempty"`
	Space        string `json:"sp,omitempty"`
	Role         string `json:"r,omitempty"`
	Permission   string `json:"p,omitempty"`
	Created      int64  `json:"c,omitempty"`
}

type keyRecord struct {
	Version      int64          `json:"v"`
	Name         string         `json:"n"`
	Folded       string         `json:"f,omitempty"` // the name in lower case, if that is another
	Description  string         `json:"d,omitempty"`
	Organization string         `json:"o,omitempty"`
	Space        string         `json:"sp,omitempty"`
	Account      string         `json:"a"`
	Permissions  []string       `json:"p,omitempty"`
	AllowedCIDRs []netip.Prefix `json:"ip,omitempty"`
	Plan         string         `json:"pl,omitempty"`
	Overrides    string         `json:"l,omitempty"`
	Created      int64          `json:"c,omitempty"`
	Updated      int64          `json:"u,omitempty"`
	Expires      int64          `json:"x,omitempty"`
	Paused       int64          `json:"z,omitempty"`
	Revoked      int64          `json:"r,omitempty"`
	LastUsed     int64          `json:"w,omitempty"`
	Rotated      int64          `json:"t,omitempty"`
	Lifetime     int64          `json:"lt,omitempty"`
	Secrets      []secretRecord `json:"s,omitempty"`
}

type secretRecord struct {
	Hash     string `json:"h"` // see hashText
	Prefix   string `json:"f,omitempty"`
	LastFour string `json:"e,omitempty"`
	Created  int64  `json:"c,omitempty"`
	Ends     int64  `json:"x,omitempty"`
	LastUsed int64  `json:"w,omitempty"`
	Imported bool   `json:"m,omitempty"`
}

type settingRecord struct {
	Version int64  `json:"v"`
	Value   string `json:"s"`
}

type rememberedRecord struct {
	Digest string `json:"d,omitempty"`
	Answer []byte `json:"a,omitempty"`
	Until  int64  `json:"u"`
}

type auditRecord struct {
	At           int64  `json:"at,omitempty"`
	Action       string `json:"do,omitempty"`
	Actor        string `json:"by,omitempty"`
	ActorAccount string `json:"a,omitempty"`
	Address      string `json:"ip,omitempty"`
	RequestID    string `json:"id,omitempty"`
	Kind         string `json:"k,omitempty"`
	Target       string `json:"t,omitempty"`
	Organization string `json:"o,omitempty"`
	Before       string `json:"from,omitempty"`
	After        string `json:"to,omitempty"`
}

// micros is how a time is stored; 0 stands for no time.
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

// optional gives back nil for what was nothing.
func optional(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// hashText is a secret's hash in 43 characters.
func hashText(h keys.Hash) string { return base64.RawURLEncoding.EncodeToString(h[:]) }

func parseHash(text string) (h keys.Hash, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("a hash of %d characters", len(text))
	}
	return keys.Hash(b), nil
}

// decode reads a record that a script or a command returned.
func decode[R any](kind, id, text string) (r R, err error) {
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("the record of %s %s in Redis is not readable: %w", kind, id, err)
	}
	return r, nil
}

func decodeOrganization(id, text string) (keys.Organization, error) {
	r, err := decode[organizationRecord]("organization", id, text)
	return keys.Organization{
		ID: id, Slug: r.Slug, Name: r.Name, Plan: r.Plan, Overrides: optional(r.Overrides), Version: r.Version,
		CreatedAt: instant(r.Created), UpdatedAt: instant(r.Updated),
	}, err
}

func decodeSpace(id, text string) (keys.Space, error) {
	r, err := decode[spaceRecord]("space", id, text)
	return keys.Space{
		ID: id, Organization: r.Organization, Slug: r.Slug, Name: r.Name, Version: r.Version,
		CreatedAt: instant(r.Created), UpdatedAt: instant(r.Updated),
	}, err
}

func decodeAccount(id, text string) (keys.Account, error) {
	r, err := decode[accountRecord]("account", id, text)
	return keys.Account{
		ID: id, Organization: r.Organization, Name: r.Name, Email: r.Email, Subject: r.Subject, Version: r.Version,
		CreatedAt: instant(r.Created), UpdatedAt: instant(r.Updated),
	}, err
}

// decodeGrants reads an account's grants, a line of id and record for each,
// and puts them in the order of their ids.
func decodeGrants(lines string) ([]keys.Grant, error) {
	var grants []keys.Grant
	for line := range strings.Lines(lines) {
		id, text, _ := strings.Cut(line, " ")
		r, err := decode[grantRecord]("grant", id, text)
		if err != nil {
			return nil, err
		}
		grants = append(grants, keys.Grant{
			ID: id, Account: r.Account, Organization: r.Organization, Space: r.Space,
			Role: r.Role, Permission: r.Permission, CreatedAt: instant(r.Created),
		})
	}
	slices.SortFunc(grants, func(a, b keys.Grant) int { return strings.Compare(a.ID, b.ID) })
	return grants, nil
}

// decodeKey puts together a key's record and its last uses.
func decodeKey(id, text, active, uses string) (keys.Key, error) {
	r, err := decode[keyRecord]("key", id, text)
	if err != nil {
		return keys.Key{}, err
	}
	k := keys.Key{
		ID: id, Name: r.Name, Description: r.Description, Organization: r.Organization, Space: r.Space, Account: r.Account,
		Permissions: r.Permissions, AllowedCIDRs: r.AllowedCIDRs, Plan: r.Plan, Overrides: optional(r.Overrides), Version: r.Version,
		CreatedAt: instant(r.Created), UpdatedAt: instant(r.Updated), ExpiresAt: instant(r.Expires), PausedAt: instant(r.Paused),
		RevokedAt: instant(r.Revoked), LastUsedAt: instant(r.LastUsed), RotatedAt: instant(r.Rotated), Lifetime: time.Duration(r.Lifetime) * time.Microsecond,
		Secrets: make([]keys.Secret, len(r.Secrets)),
	}
	for i, s := range r.Secrets {
		hash, err := parseHash(s.Hash)
		if err != nil {
			return k, fmt.Errorf("secret %d of key %s: %w", i+1, id, err)
		}
		k.Secrets[i] = keys.Secret{
			Hash: hash, Prefix: s.Prefix, LastFour: s.LastFour, CreatedAt: instant(s.Created),
			EndsAt: instant(s.Ends), LastUsedAt: instant(s.LastUsed), Imported: s.Imported,
		}
	}
	if err := addUses(&k, active, uses); err != nil {
		return k, fmt.Errorf("last use of key %s in Redis: %w", id, err)
	}
	return k, nil
}

func decodeAudit(id, text string) (keys.AuditEntry, error) {
	r, err := decode[auditRecord]("audit entry", id, text)
	return keys.AuditEntry{
		ID: id, At: instant(r.At), Action: r.Action, Actor: r.Actor, ActorAccount: r.ActorAccount, Address: r.Address, RequestID: r.RequestID,
		Kind: keys.Kind(r.Kind), Target: r.Target, Organization: r.Organization, Before: optional(r.Before), After: optional(r.After),
	}, err
}
