// Package auth turns the bearer credential of a request into a Principal, and
// decides whether that principal may do what a route asks for.
package auth

import (
	"fmt"
	"strings"
)

// Reason says why a request was refused. Each surface maps it to its answer in
// one place.
type Reason uint8

// The reasons, in the order in which they are checked.
const (
	// Missing: no bearer credential in the Authorization header.
	Missing Reason = iota + 1
	// Ambiguous: more than one credential.
	Ambiguous
	// Invalid: malformed, unknown or deleted; never told apart.
	Invalid
	// KeyRevoked, KeyExpired, KeyPaused: the secret is right, the key is not active.
	KeyRevoked
	KeyExpired
	KeyPaused
	// TooManyFailures: what Invalid would have said, once more than the budget of
	// the client's address allows.
	TooManyFailures
	// Unavailable: the store could not be asked.
	Unavailable
	// Address: the key may not be used from the client's address.
	Address
	// BadBinding: the request names its organization or space in a way that
	// can be read in more than one way.
	BadBinding
	// Tenant: another organization or space than the key's.
	Tenant
	// Scope: the key lacks a permission.
	Scope
)

// Refusal explains a Reason to the client. It never holds a secret.
type Refusal struct {
	Reason Reason
	Detail string
	// Required and Granted are set for Scope.
	Required, Granted []string
	// Key is the id of a key that is known but revoked, expired or paused.
	Key string
	// RetryAfter is set for TooManyFailures, in seconds.
	RetryAfter int64
	// Err is the cause for the operator's log, set for Unavailable.
	Err error
}

// Words say why, for the operator: the detail, but for Scope, whose answer names the
// path, what is missing.
func (r *Refusal) Words() string {
	if r.Reason == Scope {
		return "The API key lacks " + strings.Join(r.Missing(), ", ") + "."
	}
	return r.Detail
}

func refuse(reason Reason, detail string, args ...any) *Refusal {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Refusal{Reason: reason, Detail: detail}
}
