package auth

import "keygate/internal/keys"

// Authority is what the principal may do through the management API.
func (p *Principal) Authority() keys.Authority {
	a := keys.Authority{Held: p.held, Policy: p.policy}
	if p.Organization == nil {
		a.Operator = p.Can(keys.PermissionOperator)
		return a
	}
	a.Organization = p.Organization.ID
	if p.space != nil {
		a.Space = p.space.ID
	}
	return a
}

// held is what the key holds at its organization or, with the id of a space,
// there: nothing outside the space that it is restricted to.
func (p *Principal) held(space string) keys.Set {
	if p.space != nil && p.space.ID != space {
		return nil
	}
	if access, ok := p.inSpace[space]; ok {
		return access.set
	}
	return p.reach.set
}
