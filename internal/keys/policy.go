package keys

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"keygate/ratelimit"
)

// Policy is the part of the configuration that keys depend on: which
// permissions exist, what roles hold, what plans allow. Immutable once built;
// a reload builds another.
type Policy struct {
	// Rules is the number that the store gave this policy (RegisterPolicy).
	Rules       int64
	Catalogue   *Catalogue
	Roles       map[string][]string
	Plans       map[string]Plan
	DefaultPlan string
}

// Plan says how much a key may do and how many keys an organization may have.
type Plan struct {
	Name string
	// Limits hold together: a request must fit all. None: unlimited.
	Limits []ratelimit.Limit
	// Concurrent is how many requests of one key may be in flight; 0: any number.
	Concurrent int64
	// MaxKeys is the number of active keys; Unlimited if the policy says none.
	MaxKeys int
	Outage  Outage
}

// Outage says what a plan's keys may do while the shared store or ledger is out
// of reach. The zero value is the default: strict.
type Outage struct {
	// Open admits up to the plan's limits on each replica alone; otherwise
	// limited requests are refused (503).
	Open bool
	// Keys is how long a key that this replica knows may serve without the
	// store; 0: not at all.
	Keys time.Duration
}

const (
	// Unlimited is a plan's MaxKeys where it sets no bound.
	Unlimited = -1
	// MaxLimits bounds the limits of one plan.
	MaxLimits = 8

	// RoleOwner holds PermissionAdmin unless the policy says otherwise.
	RoleOwner = "owner"
	// PlanFree is the plan of organizations for which nobody chose another.
	PlanFree = "free"
)

// BuiltinPlans are there unless the policy replaces them by name.
func BuiltinPlans() map[string]Plan {
	perMinute := func(name string, requests int64, maxKeys int) Plan {
		return Plan{Name: name, MaxKeys: maxKeys, Limits: []ratelimit.Limit{{Name: "minute", Quota: requests, Per: time.Minute}}}
	}
	return map[string]Plan{
		PlanFree:     perMinute(PlanFree, 100, 5),
		"starter":    perMinute("starter", 500, 10),
		"pro":        perMinute("pro", 2000, 50),
		"enterprise": {Name: "enterprise", MaxKeys: Unlimited},
	}
}

// BuiltinRoles are there unless the policy replaces them by name.
func BuiltinRoles() map[string][]string {
	return map[string][]string{RoleOwner: {PermissionAdmin}}
}

// LimitsOf returns the plan's limits with their holder: the key, or where a limit
// is shared its organization.
func (p Plan) LimitsOf(organization, key string) []ratelimit.Limit {
	limits := slices.Clone(p.Limits)
	for i := range limits {
		limits[i].Holder = key
		if limits[i].Shared {
			limits[i].Holder = organization
		}
	}
	return limits
}

// Validate reports the first thing that is wrong with a plan.
func (p Plan) Validate() error {
	if len(p.Limits) > MaxLimits {
		return fmt.Errorf("has %d limits; at most %d are allowed", len(p.Limits), MaxLimits)
	}
	if p.MaxKeys < Unlimited {
		return fmt.Errorf("max_keys is %d; allowed are 0 and above, or no max_keys for unlimited", p.MaxKeys)
	}
	if p.Concurrent < 0 {
		return fmt.Errorf("concurrent is %d; allowed are 1 and above, or no concurrent for any number", p.Concurrent)
	}
	for i, l := range p.Limits {
		if err := l.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(p.Limits[:i], func(o ratelimit.Limit) bool { return o.Name == l.Name }) {
			return fmt.Errorf("has two limits named %q", l.Name)
		}
	}
	return nil
}

// CheckRole reports why a role cannot hold what it names, or nil.
func (p *Policy) CheckRole(grant string) error {
	if grant == PermissionOperator {
		return errors.New(PermissionOperator + " is granted at the instance only and cannot be part of a role")
	}
	return p.Catalogue.Check(grant)
}

// PlanOf returns the plan of a key: its own if an operator set one, else its
// organization's. A plan that the policy no longer has is replaced by the
// default one, and known is false.
func (p *Policy) PlanOf(organization, key string) (plan Plan, known bool) {
	name := organization
	if key != "" {
		name = key
	}
	if plan, known = p.Plans[name]; known {
		return plan, true
	}
	return p.Plans[p.DefaultPlan], false
}

// Granted returns what an account's grants add up to at an organization, or,
// with a space, what they add there. Unknown roles and permissions grant nothing.
func (p *Policy) Granted(grants []Grant, organization, space string) Set {
	s := p.Catalogue.newSet()
	for _, g := range grants {
		if g.Organization != organization || g.Space != space {
			continue
		}
		if g.Role != "" {
			s.or(p.Catalogue.Expand(p.Roles[g.Role]))
		} else {
			s.or(p.Catalogue.Expand([]string{g.Permission}))
		}
	}
	if organization != "" {
		s.remove(p.Catalogue.index[PermissionOperator])
	}
	return s
}
