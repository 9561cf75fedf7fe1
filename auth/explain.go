package auth

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"keygate/internal/keys"
	"keygate/proxy/route"
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
	// Name is "https" (only where it is required), "path", "route", "method", "key",
	// "address", "organization", "space", "scope", "limit" or "upstream" (only where
	// the request would go to one).
	Name string
	// Result is "pass", "fail", or "skip" where it does not apply or cannot be told.
	Result string
	Detail string
}

// ExplainedLimit is a limit of the key as it stands.
type ExplainedLimit struct {
	Name  string
	Quota int64
	// Per is a duration such as 1m, or day or month, in a time zone.
	Per, Timezone string
	// Shared says that all keys of the organization draw on it.
	Shared    bool
	Remaining int64
	// Reset is how long until Remaining grows; 0 if nothing was spent.
	Reset time.Duration
}

// ByHash returns the principal behind the hash of a secret, or why Authenticate
// would return none for the secret itself. Where the key is known but not in
// force, both are returned, so that what it could do otherwise can be told: only
// a principal without a refusal may be let in.
func (a *Authenticator) ByHash(ctx context.Context, h keys.Hash, policy *keys.Policy) (*Principal, *Refusal) {
	e, refusal := a.entry(ctx, h, policy)
	if refusal != nil {
		return nil, refusal
	}
	state := stateAt(&e.record, a.now())
	switch s := &e.secret; {
	case !s.Imported && s.Prefix != a.format.Prefix():
		state = unknownKey() // made under a former prefix: the secret is refused before it is looked up
	case s.Imported:
		looked, err := a.looksForImported(ctx, s.Prefix)
		if err != nil {
			return nil, unavailable(err)
		}
		if !looked {
			state = undeclared()
		}
	}
	p, refusal := a.under(e, policy)
	if state != nil {
		return p, state
	}
	return p, refusal
}

func undeclared() *Refusal {
	return refuse(Invalid, "The API key was imported and does not look like those of this instance: its form must be declared, or the gate does not look for it.")
}

// Judgement is what Authorize looks at, each check by itself: nil is a pass.
type Judgement struct {
	Address, Organization, Space, Scope *Refusal
	// Granted is what the principal may do there. It is nil, and Scope is not
	// judged, if Space is refused.
	Granted []string
	// Unowned are those of the missing permissions that the key was given and
	// that its owner does not hold there.
	Unowned []string
}

// Judge makes all the checks of Authorize, also those after the first that
// refuses. Without a rule only the address is judged.
func (a *Authenticator) Judge(ctx context.Context, p *Principal, r *http.Request, rule *route.Rule, client netip.Addr) Judgement {
	j := Judgement{Address: p.allowsAddress(client)}
	if rule == nil {
		return j
	}
	j.Organization = p.inOrganization(r, rule)
	var access Access
	if access, j.Space = a.atSpace(ctx, p, r, rule); j.Space != nil {
		return j
	}
	j.Granted = p.policy.Catalogue.Names(access.set)
	if j.Scope = p.holds(rule, access); j.Scope != nil {
		given := p.policy.Catalogue.Names(p.own())
		for _, name := range j.Scope.Missing() {
			if slices.Contains(given, name) {
				j.Unowned = append(j.Unowned, name)
			}
		}
	}
	return j
}
