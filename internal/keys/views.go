package keys

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// The audit log's own form of the records: stable names, no secrets, nothing
// that is not set.

type auditOrganization struct {
	ID   string `json:"id"`
	Slug string `json:"slug"`
	Name string `json:"name"`
	Plan string `json:"plan"`
	// Overrides are as they are stored.
	Overrides json.RawMessage `json:"overrides,omitempty"`
}

func organizationView(o Organization) auditOrganization {
	return auditOrganization{ID: o.ID, Slug: o.Slug, Name: o.Name, Plan: o.Plan, Overrides: o.Overrides}
}

type auditSpace struct {
	ID           string `json:"id"`
	Organization string `json:"organization"`
	Slug         string `json:"slug"`
	Name         string `json:"name"`
}

func spaceView(s Space) auditSpace {
	return auditSpace{ID: s.ID, Organization: s.Organization, Slug: s.Slug, Name: s.Name}
}

type auditAccount struct {
	ID           string       `json:"id"`
	Organization string       `json:"organization,omitempty"`
	Name         string       `json:"name"`
	Email        string       `json:"email,omitempty"`
	Grants       []auditGrant `json:"grants,omitempty"`
}

func accountView(a Account, grants ...Grant) auditAccount {
	v := auditAccount{ID: a.ID, Organization: a.Organization, Name: a.Name, Email: a.Email}
	for _, g := range grants {
		v.Grants = append(v.Grants, grantView(g))
	}
	return v
}

type auditGrant struct {
	ID           string `json:"id"`
	Organization string `json:"organization,omitempty"`
	Space        string `json:"space,omitempty"`
	Role         string `json:"role,omitempty"`
	Permission   string `json:"permission,omitempty"`
}

func grantView(g Grant) auditGrant {
	return auditGrant{ID: g.ID, Organization: g.Organization, Space: g.Space, Role: g.Role, Permission: g.Permission}
}

type auditKey struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	Organization string          `json:"organization,omitempty"`
	Space        string          `json:"space,omitempty"`
	Account      string          `json:"account"`
	Permissions  []string        `json:"permissions,omitempty"`
	AllowedCIDRs []string        `json:"allowed_cidrs,omitempty"`
	Plan         string          `json:"plan,omitempty"`
	Overrides    json.RawMessage `json:"overrides,omitempty"`
	Prefix       string          `json:"prefix"`
	LastFour     string          `json:"last_four"`
	ExpiresAt    time.Time       `json:"expires_at,omitzero"`
	PausedAt     time.Time       `json:"paused_at,omitzero"`
	RevokedAt    time.Time       `json:"revoked_at,omitzero"`
	RotatedAt    time.Time       `json:"rotated_at,omitzero"`
	// FormerEndsAt is when the secret before the present one ends, or ended.
	FormerEndsAt time.Time `json:"former_secret_ends_at,omitzero"`
}

func keyView(k Key) auditKey {
	v := auditKey{
		ID: k.ID, Name: k.Name, Description: k.Description, Organization: k.Organization, Space: k.Space,
		Account: k.Account, Permissions: k.Permissions, Plan: k.Plan, Overrides: k.Overrides,
		Prefix: k.Secrets[0].Prefix, LastFour: k.Secrets[0].LastFour,
		ExpiresAt: k.ExpiresAt, PausedAt: k.PausedAt, RevokedAt: k.RevokedAt, RotatedAt: k.RotatedAt,
	}
	if len(k.Secrets) > 1 {
		v.FormerEndsAt = k.Secrets[1].EndsAt
	}
	for _, p := range k.AllowedCIDRs {
		v.AllowedCIDRs = append(v.AllowedCIDRs, p.String())
	}
	return v
}

// exposureView says of a key that others may know it what it is called, and where it
// was seen.
type exposureView struct {
	Name  string `json:"name"`
	Where string `json:"where"`
}

// list names the keys of a map for an error message.
func list[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}
