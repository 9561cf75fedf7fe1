package keys

import (
	"encoding/json"
	"time"
)

// Organization is a customer of the API: plan, number of keys and shared
// budgets belong to it.
type Organization struct {
	ID   string
	Slug string // unique in the instance
	Name string
	// Plan names one of the policy's plans.
	Plan string
	// Overrides holds limits negotiated for this organization, set by operators.
	Overrides json.RawMessage
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Space is a part of one organization.
type Space struct {
	ID           string
	Organization string // id
	Slug         string // unique in the organization
	Name         string
	Version      int64
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Account is a person or a service user; it owns keys.
type Account struct {
	ID string
	// Organization is the one that manages the account; empty for the
	// operators of the instance.
	Organization string
	Name         string
	Email        string
	// Subject identifies the person at the login provider.
	Subject   string
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Grant gives an account a role or a single permission at an organization, at
// one of its spaces, or (Organization empty) at the instance. Grants are
// immutable: a change is a removal and a new grant.
type Grant struct {
	ID           string
	Account      string
	Organization string
	Space        string
	Role         string // exactly one of Role and Permission
	Permission   string
	CreatedAt    time.Time
}

const (
	maxName        = 100
	maxDescription = 500
	maxSlug        = 63
	maxEmail       = 254 // RFC 5321, section 4.5.3.1, as it bounds a path
)

// Validate reports every wrong field.
func (o Organization) Validate() error {
	var c check
	c.slug("slug", o.Slug)
	c.name("name", o.Name)
	return c.err()
}

// Validate reports every wrong field.
func (s Space) Validate() error {
	var c check
	c.slug("slug", s.Slug)
	c.name("name", s.Name)
	return c.err()
}

// Validate reports every wrong field.
func (a Account) Validate() error {
	var c check
	c.name("name", a.Name)
	c.text("email", a.Email, maxEmail, "")
	return c.err()
}
