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
	// Failures is the budget that each client address has for failed requests;
	// nil: there is none.
	Failures *ratelimit.Buckets
	Now      func() time.Time
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
	// failures is nil where addresses have no budget.
	failures *ratelimit.Buckets
}

// New returns an Authenticator with an empty cache.
func New(o Options) *Authenticator {
	if o.LookupTimeout == 0 {
		o.LookupTimeout = DefaultLookupTimeout
	}
	c := newCache(o)
	return &Authenticator{format: o.Format, now: o.Now, cache: c, acted: o.Acted, uses: newUses(&c.stats.UsesDropped), failures: o.Failures}
}

// Stats counts what the key cache did, and the uses that were not recorded.
func (a *Authenticator) Stats() *Stats { return &a.cache.stats }

// CachedKeys is how many keys are remembered at the moment.
func (a *Authenticator) CachedKeys() int { return a.cache.found.EstimatedSize() }

// Principal is an active key with all that decisions about it need, computed
// once for a policy. It is shared between requests and must not be changed.
type Principal struct {
	Key *Key
	// Secret is the one of the key that was presented.
	Secret *Secret
	// Organization is nil for keys of the instance's operators.
	Organization *keys.Organization
	// Plan is the one that applies, overrides included, its limits held by this
	// key or by its organization; PlanKnown is false where the policy no longer has
	// the one that was stored and the default stands in. Calendar quotas are
	// without their periods: see Limits.
	Plan      keys.Plan
	PlanKnown bool
	// LimitPolicy is the value of RateLimit-Policy: a header map may hold it,
	// nobody may write to it. Nil where nothing is limited.
	LimitPolicy []string
	// InFlight is the limit on the key's requests in flight; nil where there is none.
	InFlight []ratelimit.Limit
	// Handle leads to what this replica may spend for the key.
	Handle ratelimit.Handle

	// limits are the plan's with the periods of the time when they were last asked
	// for; nil where none is a calendar quota.
	limits *atomic.Pointer[[]ratelimit.Limit]

	stamp    *stamp // of what is remembered of the key
	policy   *keys.Policy
	space    *keys.Space                // the one that the key is restricted to
	identity [len(identityNames)]string // "": the header is left out
	// reach is what the key can do where a route binds no space; inSpace has
	// the spaces where the owner's grants add something.
	reach   *Access
	inSpace map[string]*Access
}

// identityNames are the headers that tell the upstream who calls, in canonical
// form.
var identityNames = [...]string{
	"X-Keygate-Key-Id", "X-Keygate-Account", "X-Keygate-Organization", "X-Keygate-Organization-Slug", "X-Keygate-Plan",
}

// Identify sets the headers that tell the upstream who calls. Their values are
// shared: a header map may hold them, nobody may write to them.
func (p *Principal) Identify(h http.Header) {
	for i, name := range identityNames {
		if p.identity[i] != "" {
			h[name] = p.identity[i : i+1 : i+1]
		}
	}
}

// AnnouncedBefore is how long before a key or a secret ends its answers say so.
const AnnouncedBefore = 7 * 24 * time.Hour

// Announce sets the headers that say when the key, or the secret that was
// presented, ends, if that is near.
func (p *Principal) Announce(h http.Header, now time.Time) {
	announce(h, "X-Keygate-Key-Expires", p.Key.expires, now)
	announce(h, "X-Keygate-Secret-Expires", p.Secret.ends, now)
}

func announce(h http.Header, name string, at moment, now time.Time) {
	if at != 0 && at.time().Sub(now) <= AnnouncedBefore {
		h[name] = []string{at.time().Format(time.RFC3339)}
	}
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
	h := keys.HashSecret(token)
	e, refusal := a.find(ctx, token, h, client, policy)
	if refusal != nil && refusal.Reason == Invalid {
		if tooMany := a.Failed(client); tooMany != nil {
			return nil, tooMany
		}
	}
	if refusal != nil {
		return nil, refusal
	}
	now := a.now()
	if refusal := stateAt(&e.record, now); refusal != nil {
		return nil, refusal
	}
	p, refusal := a.under(e, policy)
	if refusal == nil {
		a.uses.note(e, h, now)
	}
	return p, refusal
}

// find finds the key that a token is, in force or not. What has neither our own
// format nor a declared one is nobody's key and costs no lookup. A declared form
// has no checksum, so that anybody can make up any number of such tokens: while
// the budget of the client's address is used up, only those in memory are served.
func (a *Authenticator) find(ctx context.Context, token string, h keys.Hash, client netip.Addr, policy *keys.Policy) (*entry, *Refusal) {
	looked, err := a.LooksFor(ctx, token)
	if err != nil {
		return nil, unavailable(err)
	}
	if !looked {
		return nil, unknownKey()
	}
	if !a.format.Valid(token) && !a.cache.remembers(h) {
		if tooMany := a.exhausted(client); tooMany != nil {
			return nil, tooMany
		}
	}
	return a.entry(ctx, h, policy)
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
func (a *Authenticator) under(e *entry, policy *keys.Policy) (*Principal, *Refusal) {
	p := e.principal.Load()
	if p != nil && p.policy == policy {
		return p, nil
	}
	p, err := a.cache.shared.principal(&e.record, policy)
	if err != nil {
		return nil, unavailable(err)
	}
	p.stamp = &e.stamp
	e.principal.Store(p)
	return p, nil
}

// servesWithoutStore reports whether a remembered key may be used while the
// store cannot be asked: its plan says so, and for how long.
func (a *Authenticator) servesWithoutStore(e *entry, policy *keys.Policy) bool {
	if e == nil {
		return false
	}
	p, refusal := a.under(e, policy)
	return refusal == nil && p.Organization != nil && a.cache.age(e) <= p.Plan.Outage.Keys
}

// stateAt reports why the key cannot be used at this instant, or nil.
func stateAt(r *record, now time.Time) *Refusal {
	no := func(reason Reason, detail string, args ...any) *Refusal {
		refusal := refuse(reason, detail, args...)
		refusal.Key = r.key.ID
		return refusal
	}
	switch keys.StatusAt(now, r.key.RevokedAt(), r.key.ExpiresAt(), r.key.PausedAt()) {
	case keys.Revoked:
		return no(KeyRevoked, "This API key has been revoked. Create a new one.")
	case keys.Expired:
		return no(KeyExpired, "This API key expired on %s.", r.key.ExpiresAt().Format(time.RFC3339))
	case keys.Paused:
		return no(KeyPaused, "This API key is paused. Resume it to use it again.")
	}
	if ends := r.secret.EndsAt(); !ends.IsZero() && !now.Before(ends) {
		return no(KeyRevoked, "This API key was rotated and its former secret has ended. Use the new one.")
	}
	return nil
}

// principal computes what a key amounts to under a policy.
func (s *shared) principal(r *record, policy *keys.Policy) (*Principal, error) {
	p := &Principal{Key: &r.key, Secret: &r.secret, Organization: r.organization, PlanKnown: true, policy: policy, space: r.space}
	organization := ""
	// Keys of the instance's operators belong to no organization, so no plan
	// counts them.
	if p.Organization != nil {
		organization = p.Organization.ID
		if err := s.setTerms(p); err != nil {
			return nil, err
		}
	}
	own, roles := p.own(), policy.Granted(*r.grants, organization, "")
	p.reach = s.accessOf(policy, own, roles)
	for _, g := range *r.grants {
		if g.Space == "" || g.Organization != organization {
			continue
		}
		if p.inSpace == nil {
			p.inSpace = make(map[string]*Access)
		}
		p.inSpace[g.Space] = s.accessOf(policy, own, roles.Or(policy.Granted(*r.grants, g.Organization, g.Space)))
	}
	p.identity[0], p.identity[1], p.identity[4] = p.Key.ID, p.Key.Account, p.Plan.Name
	if p.Organization != nil {
		p.identity[2], p.identity[3] = p.Organization.ID, p.Organization.Slug
	}
	return p, nil
}

// own is what the key was given.
func (p *Principal) own() keys.Set { return p.policy.Catalogue.Expand(*p.Key.permissions) }

// setTerms sets the plan and its limits.
func (s *shared) setTerms(p *Principal) (err error) {
	if p.Plan, p.PlanKnown, err = p.policy.TermsOf(p.Organization, p.Key.ID, p.Key.Plan, p.Key.overrides); err != nil {
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
		text := string(ratelimit.AppendPolicy(nil, p.Plan.Limits))
		p.LimitPolicy = s.limits.of(text, &[1]string{text})[:]
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

// accessOf caps what a key was given by what its owner holds.
func (s *shared) accessOf(policy *keys.Policy, own, owner keys.Set) *Access {
	set := own.And(owner)
	scopes := joinScopes(policy.Catalogue.Names(set))
	return s.access.of(scopes, &Access{set: set, Scopes: []string{scopes}})
}

func joinScopes(names []string) string {
	s := strings.Join(names, " ")
	if len(s) <= MaxScopesHeader {
		return s
	}
	return s[:strings.LastIndexByte(s[:MaxScopesHeader+1], ' ')]
}
