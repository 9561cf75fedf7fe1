package auth

import "net/netip"

// Require decides about a request that no rule covers, such as one to the
// management API: the client's address, then one permission where no space is
// bound.
func (p *Principal) Require(permission string, client netip.Addr) *Refusal {
	if refusal := p.allowsAddress(client); refusal != nil {
		return refusal
	}
	if p.Can(permission) {
		return nil
	}
	refusal := refuse(Scope, "")
	refusal.Required = []string{permission}
	refusal.Granted = p.Granted()
	return refusal
}
