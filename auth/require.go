package auth

import (
	"net/netip"

	"keygate/internal/keys"
)

// managing are the permissions with which the management API can be used at all.
var managing = []string{
	keys.PermissionOperator, keys.PermissionKeysRead, keys.PermissionKeysWrite,
	keys.PermissionMembers, keys.PermissionUsage, keys.PermissionAudit,
}

// Manages decides whether the principal may come near the management API: from
// this address, and holding something for it anywhere. What it may do there is
// decided with each request (keys.Authority). A refusal names needed, the
// permission of what is asked for; where that is "", any valid key may ask.
func (p *Principal) Manages(client netip.Addr, needed string) *Refusal {
	if refusal := p.allowsAddress(client); refusal != nil || needed == "" {
		return refusal
	}
	for _, name := range managing {
		i, ok := p.policy.Catalogue.Index(name)
		if !ok {
			continue
		}
		if p.reach.set.Has(i) {
			return nil
		}
		for _, access := range p.inSpace {
			if access.set.Has(i) {
				return nil
			}
		}
	}
	refusal := refuse(Scope, "")
	refusal.Required = []string{needed}
	refusal.Granted = p.Granted()
	return refusal
}
