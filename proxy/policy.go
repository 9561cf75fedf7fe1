package proxy

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/proxy/route"
	"keygate/ratelimit"
)

// Policy is a loaded policy, ready to serve: what a request needs is computed
// here, once.
type Policy struct {
	keys  *keys.Policy
	table *route.Table
	rules map[*route.Rule]*rule

	mu      sync.Mutex
	unknown map[string]bool // plans that organizations refer to and the policy lacks
}

// rule is a route rule with what serving it takes.
type rule struct {
	*route.Rule
	name     string // the pattern, for logs and metrics
	upstream string
	target   *url.URL
	budget   *ratelimit.Buckets // per client address, for public routes
}

// maxUnknownPlans bounds how many missing plans are reported by name.
const maxUnknownPlans = 20

// NewPolicy compiles a policy whose rules forward to the named targets.
func NewPolicy(k *keys.Policy, table *route.Table, rules []*route.Rule, targets map[string]*url.URL) (*Policy, error) {
	p := &Policy{
		keys: k, table: table, rules: make(map[*route.Rule]*rule, len(rules)),
		unknown: make(map[string]bool),
	}
	for _, r := range rules {
		target := targets[r.Upstream]
		if target == nil {
			return nil, fmt.Errorf("route %q: there is no upstream %q", r.Pattern, r.Upstream)
		}
		compiled := &rule{Rule: r, name: r.Pattern.String(), upstream: r.Upstream, target: target}
		if r.Public != nil {
			budget, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: r.Public.Requests, Per: r.Public.Per})
			if err != nil {
				return nil, fmt.Errorf("route %q: %w", r.Pattern, err)
			}
			compiled.budget = budget
		}
		p.rules[r] = compiled
	}
	return p, nil
}

// inherit keeps what client addresses spent on public routes that did not
// change: a reload resets no budget.
func (p *Policy) inherit(former *Policy) {
	if former == nil {
		return
	}
	budgets := make(map[string]*rule)
	for _, r := range former.rules {
		if r.budget != nil {
			budgets[r.name] = r
		}
	}
	for _, r := range p.rules {
		if old := budgets[r.name]; old != nil && r.budget != nil && *old.Public == *r.Public {
			r.budget = old.budget
		}
	}
}

// usesUnknownPlan notes the plan of a key that is being used.
func (p *Policy) usesUnknownPlan(principal *auth.Principal) {
	name := principal.Key.Plan
	if name == "" {
		name = principal.Organization.Plan
	}
	p.unknownPlan(name)
}

func (p *Policy) unknownPlan(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unknown) < maxUnknownPlans {
		p.unknown[name] = true
	}
}

// UnknownPlan notes a plan that is referred to and that the policy in force
// does not have.
func (p *Proxy) UnknownPlan(name string) { p.policy.Load().unknownPlan(name) }

// UnknownPlans lists the plans that organizations, or keys in use, refer to and
// the policy in force does not have; the default plan stands in for them.
func (p *Proxy) UnknownPlans() []string {
	policy := p.policy.Load()
	policy.mu.Lock()
	defer policy.mu.Unlock()
	return slices.Sorted(maps.Keys(policy.unknown))
}

// AddressEvictions counts, over the public routes of the policy in force, how
// often an address took over the budget of another because more were in use than
// are told apart.
func (p *Proxy) AddressEvictions() (n uint64) {
	for _, r := range p.policy.Load().rules {
		if r.budget != nil {
			n += r.budget.Evictions()
		}
	}
	return n
}
