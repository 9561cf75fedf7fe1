package auth

import (
	"net/http"
	"strings"
)

// Answer is what a client is told about a Refusal, on every surface alike.
type Answer struct {
	Status int
	// Error is the fixed text that client libraries look for.
	Error string
	// Challenge is the value of WWW-Authenticate (RFC 6750, section 3), or "".
	Challenge string
	Detail    string
}

// answers has one row for each Reason.
var answers = [...]struct {
	status    int
	text      string
	challenge bool   // whether the answer carries a challenge
	code      string // the challenge's error code
}{
	Missing:         {http.StatusUnauthorized, "API key is missing", true, ""}, // RFC 6750, section 3.1: no code where no key was sent
	Ambiguous:       {http.StatusBadRequest, "Ambiguous credentials", true, "invalid_request"},
	Invalid:         {http.StatusUnauthorized, "API key is invalid", true, "invalid_token"},
	KeyRevoked:      {http.StatusUnauthorized, "API key has been revoked", true, "invalid_token"},
	KeyExpired:      {http.StatusUnauthorized, "API key has expired", true, "invalid_token"},
	KeyPaused:       {http.StatusUnauthorized, "API key is paused", true, "invalid_token"},
	TooManyFailures: {http.StatusTooManyRequests, "Rate limit exceeded", false, ""},
	Unavailable:     {http.StatusServiceUnavailable, "Temporarily unavailable", false, ""},
	Address:         {http.StatusForbidden, "Insufficient permissions", false, ""},
	BadBinding:      {http.StatusBadRequest, "Ambiguous request", false, ""},
	Tenant:          {http.StatusForbidden, "Insufficient permissions", false, ""},
	Scope:           {http.StatusForbidden, "Insufficient permissions", true, "insufficient_scope"},
}

// Answer phrases the refusal of an operation such as "GET /v1/query".
func (r *Refusal) Answer(realm, operation string) Answer {
	row := answers[r.Reason]
	a := Answer{Status: row.status, Error: row.text, Detail: r.Detail}
	if r.Reason == Scope {
		a.Detail = "Insufficient permissions for operation " + operation + ": the API key lacks " + strings.Join(r.Missing(), ", ") + "."
	}
	if !row.challenge {
		return a
	}
	// Realm and permission names were checked at load and hold no quotes.
	a.Challenge = `Bearer realm="` + realm + `"`
	if row.code != "" {
		a.Challenge += `, error="` + row.code + `"`
	}
	switch {
	case r.Reason == Scope:
		a.Challenge += `, scope="` + strings.Join(r.Required, " ") + `"`
	case row.code != "":
		a.Challenge += `, error_description="` + row.text + `"`
	}
	return a
}

// Missing lists the permissions that are required and not granted.
func (r *Refusal) Missing() []string {
	granted := make(map[string]bool, len(r.Granted))
	for _, g := range r.Granted {
		granted[g] = true
	}
	var missing []string
	for _, name := range r.Required {
		if !granted[name] {
			missing = append(missing, name)
		}
	}
	return missing
}
