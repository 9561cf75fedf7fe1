package auth

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// Options of an Authenticator.
type Options struct {
	Store  Lookups
	Format keys.Format
	// CacheKeys bounds how many keys are remembered.
	CacheKeys int
	// FreshFor is how long what is remembered may be trusted after the change
	// feed was last read; 0 where this process makes all changes itself.
	FreshFor time.Duration
	// LookupTimeout bounds what a request waits for the store;
	// DefaultLookupTimeout if 0.
	LookupTimeout time.Duration
	// Acted, if not nil, is told of the number of the last change of the feed on
	// which this process has acted; it must not block.
	Acted func(number int64)
	Now   func() time.Time
}

// DefaultLookupTimeout suits a store on the same machine.
const DefaultLookupTimeout = 2 * time.Second

// Authenticator finds the Principal behind a credential.
type Authenticator struct {
	format keys.Format
	now    func() time.Time
	cache  *cache
	acted  func(number int64)
	uses   *uses
}

// New returns an Authenticator with an empty cache.
func New(o Options) *Authenticator {
	if o.LookupTimeout == 0 {
		o.LookupTimeout = DefaultLookupTimeout
	}
	c := newCache(o)
	return &Authenticator{format: o.Format, now: o.Now, cache: c, acted: o.Acted, uses: newUses(&c.stats.UsesDropped)}
}

// Stats counts what the key cache did, and the uses that were not recorded.
func (a *Authenticator) Stats() *Stats { return &a.cache.stats }

// CachedKeys is how many keys are remembered at the moment.
func (a *Authenticator) CachedKeys() int { return a.cache.found.EstimatedSize() }

// Principal is an active key with all that decisions about it need, computed
// once for a policy. It is shared between requests and must not be changed.
type Principal struct {
	Key *keys.Key
	// Secret is the one of the key that was presented.
	Secret       *keys.Secret
	Organization *keys.Organization
	// Plan is the one that applies, overrides included, its limits held by this
	// key or by its organization; PlanKnown is false where the policy no longer has
	// the one that was stored and the default stands in. Calendar quotas are
	// without their periods: see Limits.
	Plan      keys.Plan
	PlanKnown bool
	// LimitPolicy is the value of RateLimit-Policy, shared like Identity; nil
	// where nothing is limited.
	LimitPolicy []string
	// InFlight is the limit on the key's requests in flight; nil where there is none.
	InFlight []ratelimit.Limit
	// Identity are the headers that tell the upstream who calls. The slices
	// are shared: a header map may hold them, nobody may write to them.
	Identity []Header

	// limits are the plan's with the periods of the time when they were last asked
	// for; nil where none is a calendar quota.
	limits *atomic.Pointer[[]ratelimit.Limit]

	policy *keys.Policy
	space  *keys.Space // the one that the key is restricted to
	own    keys.Set    // what the key was given
	// reach is what the key can do where a route binds no space; inSpace has
	// the spaces where the owner's grants add something.
	reach   Access
	inSpace map[string]Access
}

// Header is one header field, ready to be set.
type Header struct {
	Name  string // canonical
	Value []string
}

// Access is what a principal may do at the place that a request is about.
type Access struct {
	// Space is set where the route binds one.
	Space *keys.Space
	// Scopes is the value of the scopes header for the upstream.
	Scopes []string
	set    keys.Set
}

// MaxScopesHeader bounds the list of scopes that is sent upstream, in bytes; a
// longer one ends with the last whole scope that fits.
const MaxScopesHeader = 4096

// Authenticate returns the principal behind a token that came from a client, or
// why there is none.
func (a *Authenticator) Authenticate(ctx context.Context, token string, client netip.Addr, policy *keys.Policy) (*Principal, *Refusal) {
	if !a.format.Valid(token) {
		return nil, unknownKey()
	}
	e, refusal := a.entry(ctx, keys.HashSecret(token), policy)
	if refusal != nil {
		return nil, refusal
	}
	now := a.now()
	if refusal := stateAt(&e.found, now); refusal != nil {
		return nil, refusal
	}
	p, refusal := e.under(policy)
	if refusal == nil {
		a.uses.note(e, now)
	}
	return p, refusal
}

// entry finds the key with a secret of this hash, in force or not.
func (a *Authenticator) entry(ctx context.Context, h keys.Hash, policy *keys.Policy) (*entry, *Refusal) {
	e, err := a.cache.key(ctx, h)
	if err != nil && a.servesWithoutStore(e, policy) {
		a.cache.stats.Outage.Add(1)
		err = nil
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if e == nil {
		return nil, unknownKey()
	}
	return e, nil
}

func unknownKey() *Refusal {
	return refuse(Invalid, "The API key is not valid: it is malformed or does not exist.")
}

// unavailable refuses what cannot be checked.
func unavailable(err error) *Refusal {
	r := refuse(Unavailable, "The API key could not be checked at the moment. Try again shortly.")
	r.Err = err
	return r
}

// under is what the key amounts to under a policy. Terms that cannot be read
// refuse it: the plan alone might grant what they take away.
func (e *entry) under(policy *keys.Policy) (*Principal, *Refusal) {
	p := e.principal.Load()
	if p != nil && p.policy == policy {
		return p, nil
	}
	p, err := newPrincipal(&e.found, policy)
	if err != nil {
		return nil, unavailable(err)
	}
	e.principal.Store(p)
	return p, nil
}

// servesWithoutStore reports whether a remembered key may be used while the
// store cannot be asked: its plan says so, and for how long.
func (a *Authenticator) servesWithoutStore(e *entry, policy *keys.Policy) bool {
	if e == nil {
		return false
	}
	p, refusal := e.under(policy)
	return refusal == nil && p.Organization != nil && a.cache.age(e) <= p.Plan.Outage.Keys
}

// state reports why the key cannot be used at this instant, or nil.
func (a *Authenticator) state(f *keys.Found) *Refusal { return stateAt(f, a.now()) }

func stateAt(f *keys.Found, now time.Time) *Refusal {
	no := func(reason Reason, detail string, args ...any) *Refusal {
		r := refuse(reason, detail, args...)
		r.Key = f.Key.ID
		return r
	}
	switch f.Key.Status(now) {
	case keys.Revoked:
		return no(KeyRevoked, "This API key has been revoked. Create a new one.")
	case keys.Expired:
		return no(KeyExpired, "This API key expired on %s.", f.Key.ExpiresAt.UTC().Format(time.RFC3339))
	case keys.Paused:
		return no(KeyPaused, "This API key is paused. Resume it to use it again.")
	}
	if ends := f.Key.Secrets[f.Secret].EndsAt; !ends.IsZero() && !now.Before(ends) {
		return no(KeyRevoked, "This API key was rotated and its former secret has ended. Use the new one.")
	}
	return nil
}

func newPrincipal(f *keys.Found, policy *keys.Policy) (*Principal, error) {
	p := &Principal{
		Key:       &f.Key,
		Secret:    &f.Key.Secrets[f.Secret],
		PlanKnown: true,
		policy:    policy,
		own:       policy.Catalogue.Expand(f.Key.Permissions),
	}
	// Keys of the instance's operators belong to no organization, so no plan
	// counts them.
	if f.Organization.ID != "" {
		p.Organization = &f.Organization
		if err := p.setTerms(); err != nil {
			return nil, err
		}
	}
	if f.Space.ID != "" {
		p.space = &f.Space
	}
	roles := policy.Granted(f.Grants, f.Key.Organization, "")
	p.reach = p.access(roles)
	for _, g := range f.Grants {
		if g.Space == "" || g.Organization != f.Key.Organization {
			continue
		}
		if p.inSpace == nil {
			p.inSpace = make(map[string]Access)
		}
		p.inSpace[g.Space] = p.access(roles.Or(policy.Granted(f.Grants, g.Organization, g.Space)))
	}
	p.Identity = p.identity()
	return p, nil
}

// setTerms sets the plan and its limits.
func (p *Principal) setTerms() (err error) {
	if p.Plan, p.PlanKnown, err = p.policy.Terms(*p.Organization, *p.Key); err != nil {
		return err
	}
	p.Plan.Limits = p.Plan.LimitsOf(p.Organization.ID, p.Key.ID)
	if slices.ContainsFunc(p.Plan.Limits, func(l ratelimit.Limit) bool { return l.Period != ratelimit.NoPeriod }) {
		p.limits = new(atomic.Pointer[[]ratelimit.Limit])
	}
	if n := p.Plan.Concurrent; n > 0 {
		p.InFlight = []ratelimit.Limit{{Name: ratelimit.ConcurrentName, Holder: p.Key.ID, Quota: n, Concurrent: true}}
	}
	if len(p.Plan.Limits) > 0 {
		p.LimitPolicy = []string{string(ratelimit.AppendPolicy(nil, p.Plan.Limits))}
	}
	return nil
}

// Limits are those of the plan, calendar quotas with the period that now is in.
// They are shared, and computed once for each period.
func (p *Principal) Limits(now time.Time) []ratelimit.Limit {
	if p.limits == nil {
		return p.Plan.Limits
	}
	if held := p.limits.Load(); held != nil && allContain(*held, now) {
		return *held
	}
	limits := slices.Clone(p.Plan.Limits)
	for i := range limits {
		limits[i] = limits[i].In(now)
	}
	p.limits.Store(&limits)
	return limits
}

func allContain(limits []ratelimit.Limit, now time.Time) bool {
	for i := range limits {
		if !limits[i].Contains(now) {
			return false
		}
	}
	return true
}

// access caps what the key was given by what its owner holds.
func (p *Principal) access(owner keys.Set) Access {
	set := p.own.And(owner)
	return Access{set: set, Scopes: []string{joinScopes(p.policy.Catalogue.Names(set))}}
}

func joinScopes(names []string) string {
	s := strings.Join(names, " ")
	if len(s) <= MaxScopesHeader {
		return s
	}
	return s[:strings.LastIndexByte(s[:MaxScopesHeader+1], ' ')]
}

func (p *Principal) identity() []Header {
	h := make([]Header, 0, 5)
	add := func(name, value string) {
		if value != "" {
			h = append(h, Header{Name: http.CanonicalHeaderKey(name), Value: []string{value}})
		}
	}
	add("X-Keygate-Key-Id", p.Key.ID)
	add("X-Keygate-Account", p.Key.Account)
	if p.Organization != nil {
		add("X-Keygate-Organization", p.Organization.ID)
		add("X-Keygate-Organization-Slug", p.Organization.Slug)
	}
	add("X-Keygate-Plan", p.Plan.Name)
	return h
}
