package auth

import (
	"net/http"
	"net/netip"
	"time"

	"keygate/internal/keys"
)

// Question is a request that somebody asks about: nothing is sent, nothing is spent.
type Question struct {
	Method string
	Host   string
	// Target is the path, with its query if it has one, as a client sends it.
	Target string
	// Header holds what bindings read.
	Header http.Header
	// Client is the address that the request would come from; zero: the key's
	// allowed addresses are not judged.
	Client netip.Addr
	// Key is the hash of the key's secret; zero: the request has none.
	Key keys.Hash
}

// Explanation says what would become of a request, and why.
type Explanation struct {
	// Status is what the gate would answer; 0 where the request would be forwarded.
	Status int
	// Error and Detail are those of the answer.
	Error, Detail string
	// Rule is the one that covers the request, nil if there is none.
	Rule *ExplainedRule
	// Checks are in the order in which the gate makes them. Those after the
	// first that fails are made too, as far as they can be.
	Checks []Check
	// Required are the rule's permissions, Granted what the key may do there.
	Required, Granted, Missing []string
	// Plan and its limits; Limits is empty where nothing is limited or the state
	// could not be asked for.
	Plan       string
	Limits     []ExplainedLimit
	RetryAfter time.Duration
}

// ExplainedRule is a rule of the policy in words of the policy file.
type ExplainedRule struct {
	Match, Upstream     string
	Permissions         []string
	Any                 bool
	Public              string
	Organization, Space string
}

// Check is one step of the decision.
type Check struct {
	// Name is "path", "route", "method", "key", "address", "organization",
	// "space", "scope" or "limit".
	Name string
	// Result is "pass", "fail", or "skip" where it does not apply or cannot be told.
	Result string
	Detail string
}

// ExplainedLimit is a limit of the key as it stands.
type ExplainedLimit struct {
	Name      string
	Quota     int64
	Per       time.Duration
	Remaining int64
	// Reset is how long until Remaining grows; 0 if nothing was spent.
	Reset time.Duration
}
