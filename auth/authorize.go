package auth

import (
	"context"
	"net/http"
	"net/netip"

	"keygate/internal/keys"
	"keygate/proxy/route"
)

// Authorize decides whether the principal may make the request that the rule
// covers: first the client's address, then organization and space, then the
// permissions.
func (a *Authenticator) Authorize(ctx context.Context, p *Principal, r *http.Request, rule *route.Rule, client netip.Addr) (Access, *Refusal) {
	if refusal := p.allowsAddress(client); refusal != nil {
		return Access{}, refusal
	}
	if refusal := p.inOrganization(r, rule); refusal != nil {
		return Access{}, refusal
	}
	access, refusal := a.atSpace(ctx, p, r, rule)
	if refusal != nil {
		return Access{}, refusal
	}
	if refusal := p.holds(rule, access); refusal != nil {
		return Access{}, refusal
	}
	return access, nil
}

func (p *Principal) allowsAddress(client netip.Addr) *Refusal {
	allowed := p.Key.AllowedCIDRs
	if len(allowed) == 0 {
		return nil
	}
	for _, cidr := range allowed {
		if cidr.Contains(client) {
			return nil
		}
	}
	return refuse(Address, "This API key may not be used from the address %s.", client)
}

func (p *Principal) inOrganization(r *http.Request, rule *route.Rule) *Refusal {
	if rule.Organization == nil {
		return nil
	}
	value, refusal := boundValue(r, rule, rule.Organization, "organization")
	if refusal != nil {
		return refusal
	}
	if p.Organization == nil {
		return refuse(Tenant, "This API key belongs to no organization and the request is about one.")
	}
	if value != p.Organization.ID && value != p.Organization.Slug {
		return refuse(Tenant, "This API key belongs to another organization than the one the request is about.")
	}
	return nil
}

// atSpace resolves the space that the request is about and what the principal
// may do there.
func (a *Authenticator) atSpace(ctx context.Context, p *Principal, r *http.Request, rule *route.Rule) (Access, *Refusal) {
	if rule.Space == nil {
		if p.space != nil {
			return Access{}, refuse(Tenant, "This API key is restricted to the space %q and this route is not about a space.", p.space.Slug)
		}
		return *p.reach, nil
	}
	value, refusal := boundValue(r, rule, rule.Space, "space")
	if refusal != nil {
		return Access{}, refusal
	}
	if p.Organization == nil {
		return Access{}, refuse(Tenant, "This API key belongs to no organization and the request is about a space of one.")
	}
	space := p.space
	if space == nil {
		found, err := a.cache.space(ctx, p.Organization.ID, value)
		if err != nil {
			refusal := refuse(Unavailable, "The space could not be checked at the moment. Try again shortly.")
			refusal.Err = err
			return Access{}, refusal
		}
		if found == nil {
			return Access{}, refuse(Tenant, "The organization of this API key has no such space.")
		}
		space = found
	} else if value != space.ID && value != space.Slug {
		return Access{}, refuse(Tenant, "This API key is restricted to the space %q and the request is about another.", space.Slug)
	}
	there, ok := p.inSpace[space.ID]
	if !ok {
		there = p.reach
	}
	access := *there
	access.Space = space
	return access, nil
}

// holds checks the permissions that the rule needs.
func (p *Principal) holds(rule *route.Rule, access Access) *Refusal {
	if rule.Any {
		return nil
	}
	for _, i := range rule.Need {
		if !access.set.Has(i) {
			refusal := refuse(Scope, "")
			refusal.Required = rule.Permissions
			refusal.Granted = p.policy.Catalogue.Names(access.set)
			return refusal
		}
	}
	return nil
}

// Granted lists what the principal may do where no space is bound, sorted.
func (p *Principal) Granted() []string { return p.policy.Catalogue.Names(p.reach.set) }

// Can reports whether the principal holds a permission where no space is bound.
func (p *Principal) Can(permission string) bool {
	i, ok := p.policy.Catalogue.Index(permission)
	return ok && p.reach.set.Has(i)
}

var _ Lookups = keys.Store(nil)
