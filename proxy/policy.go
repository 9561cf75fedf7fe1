package proxy

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/proxy/route"
	"keygate/proxy/upstream"
	"keygate/ratelimit"
)

// Policy is a loaded policy, ready to serve: what a request needs is computed
// here, once.
type Policy struct {
	keys  *keys.Policy
	table *route.Table
	rules map[*route.Rule]*rule
	// upstreams by name. A reload keeps those that did not change.
	upstreams map[string]*upstream.Upstream

	mu      sync.Mutex
	unknown map[string]bool // plans that organizations refer to and the policy lacks
}

// rule is a route rule with what serving it takes.
type rule struct {
	*route.Rule
	name   string             // the pattern, for logs and metrics
	to     *upstream.Client   // where its requests go
	budget *ratelimit.Buckets // per client address, for public routes
	// Changes of headers, ready for use.
	requestHeaders, responseHeaders *headerChanges // nil: none
	cors                            *cors          // nil: what the upstream says of it holds
}

// maxUnknownPlans bounds how many missing plans are reported by name.
const maxUnknownPlans = 20

// NewPolicy compiles a policy whose rules forward to the named upstreams. Nothing
// of it acts before SetPolicy.
func NewPolicy(k *keys.Policy, table *route.Table, rules []*route.Rule, upstreams map[string]upstream.Options) (*Policy, error) {
	p := &Policy{
		keys: k, table: table, rules: make(map[*route.Rule]*rule, len(rules)),
		upstreams: make(map[string]*upstream.Upstream, len(upstreams)),
		unknown:   make(map[string]bool),
	}
	if err := p.makeUpstreams(rules, upstreams); err != nil {
		return nil, err
	}
	for _, r := range rules {
		if p.upstreams[r.Upstream] == nil {
			return nil, fmt.Errorf("route %q: there is no upstream %q", r.Pattern, r.Upstream)
		}
		compiled := &rule{
			Rule: r, name: r.Pattern.String(),
			requestHeaders: newHeaderChanges(&r.RequestHeaders), responseHeaders: newHeaderChanges(&r.ResponseHeaders),
			cors: newCORS(r.CORS),
		}
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

// makeUpstreams makes an upstream of each of the options, for the time-outs of
// the routes that go there.
func (p *Policy) makeUpstreams(rules []*route.Rule, of map[string]upstream.Options) error {
	timeouts := make(map[string][]route.Timeouts)
	for _, r := range rules {
		timeouts[r.Upstream] = append(timeouts[r.Upstream], r.Timeouts)
	}
	for name, options := range of {
		var err error
		if p.upstreams[name], err = upstream.New(options, timeouts[name]); err != nil {
			return err
		}
	}
	return nil
}

// begin makes the policy act, after a former one that may be nil: upstreams that
// did not change go on with their connections and all they have learnt. The log is
// told what becomes of the others.
func (p *Policy) begin(former *Policy, log *zap.Logger) {
	for name, u := range p.upstreams {
		if former != nil && former.upstreams[name] != nil && u.Same(former.upstreams[name]) {
			p.upstreams[name] = former.upstreams[name]
			continue
		}
		u.Start(log)
	}
	for _, r := range p.rules {
		r.to = p.upstreams[r.Upstream].Client(r.Timeouts)
	}
	if former != nil {
		p.inherit(former)
	}
}

// end ends the upstreams that the next policy, which may be nil, does not keep.
// Requests under way finish.
func (p *Policy) end(next *Policy) {
	for name, u := range p.upstreams {
		if next == nil || next.upstreams[name] != u {
			u.Close()
		}
	}
}

// inherit keeps what client addresses spent on public routes that did not
// change: a reload resets no budget.
func (p *Policy) inherit(former *Policy) {
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
