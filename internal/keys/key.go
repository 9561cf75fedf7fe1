// Package keys is the domain: organizations, spaces, accounts and their grants,
// keys, plans and permissions, the Service that changes them and the Store that
// keeps them. It knows neither HTTP nor SQL.
package keys

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Status is what a key is at an instant.
type Status string

// The states of a key. Where several apply the earlier in this list is named.
const (
	Revoked Status = "revoked"
	Expired Status = "expired"
	Paused  Status = "paused"
	Active  Status = "active"
)

// Key is an API key without its secret: one owner, one organization, at most
// one space, and permissions that never reach beyond the owner's.
type Key struct {
	ID          string
	Name        string
	Description string
	// Organization is empty only for keys of the instance's operators.
	Organization string
	// Space restricts the key to one space of its organization.
	Space string
	// Account owns the key.
	Account string
	// Permissions as they were written, wildcards included; expanded at use.
	Permissions []string
	// AllowedCIDRs are the client addresses that may use the key; empty: all.
	AllowedCIDRs []netip.Prefix
	// Plan overrides the organization's plan for this key, set by operators.
	Plan string
	// Overrides holds limits negotiated for this key, set by operators.
	Overrides json.RawMessage
	// Secrets has the present secret first, then those rotated out.
	Secrets   []Secret
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
	// The zero time means: never expires, not paused, not revoked, not used,
	// not rotated.
	ExpiresAt  time.Time
	PausedAt   time.Time
	RevokedAt  time.Time
	LastUsedAt time.Time
	RotatedAt  time.Time
	// Lifetime is how long ExpiresAt was set for; what a rotation brings back to
	// life gets it again.
	Lifetime time.Duration
}

// Secret is one secret of a key, known by its hash only.
type Secret struct {
	Hash Hash
	// Prefix and LastFour are what may be shown of it.
	Prefix    string
	LastFour  string
	CreatedAt time.Time
	// EndsAt is when a rotation's overlap ends; zero for the present secret.
	EndsAt     time.Time
	LastUsedAt time.Time
	// Imported secrets were made elsewhere and may have any form.
	Imported bool
}

// NewSecret describes a secret that was just generated.
func NewSecret(f Format, secret string, now time.Time) Secret {
	return Secret{
		Hash:      HashSecret(secret),
		Prefix:    f.Prefix(),
		LastFour:  secret[len(secret)-lastFourChars:],
		CreatedAt: now,
	}
}

// Status is the key's state at now. An expiry counts from its very instant.
func (k *Key) Status(now time.Time) Status {
	return StatusAt(now, k.RevokedAt, k.ExpiresAt, k.PausedAt)
}

// StatusAt is the state at now of a key with these instants; zero means never.
func StatusAt(now, revoked, expires, paused time.Time) Status {
	switch {
	case !revoked.IsZero():
		return Revoked
	case !expires.IsZero() && !now.Before(expires):
		return Expired
	case !paused.IsZero():
		return Paused
	}
	return Active
}

const (
	maxPermissions = 200
	maxCIDRs       = 100
)

// Validate reports every wrong field that can be judged from the key alone.
func (k *Key) Validate() error {
	var c check
	c.name("name", k.Name)
	c.text("description", k.Description, maxDescription, "\n\t")
	if len(k.Permissions) > maxPermissions {
		c.add("permissions", "", "has %d entries; at most %d are allowed", len(k.Permissions), maxPermissions)
	}
	if len(k.AllowedCIDRs) > maxCIDRs {
		c.add("allowed_cidrs", "", "has %d entries; at most %d are allowed", len(k.AllowedCIDRs), maxCIDRs)
	}
	return c.err()
}
