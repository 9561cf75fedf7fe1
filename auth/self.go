package auth

import (
	"net/netip"

	"keygate/internal/keys"
)

// AcceptsAddress refuses a client whose address may not use the key. It is all
// that is asked of a request about nothing but the key itself.
func (p *Principal) AcceptsAddress(client netip.Addr) *Refusal { return p.allowsAddress(client) }

// Space is the one that the key is restricted to, or nil.
func (p *Principal) Space() *keys.Space { return p.space }

// Scopes lists what the principal may do: where no space is bound or, if the key
// is restricted to a space, there. inSpace has, by id, the spaces where a key
// without such a restriction may do something else.
func (p *Principal) Scopes() (scopes []string, inSpace map[string][]string) {
	names := p.policy.Catalogue.Names
	if p.space != nil {
		return names(p.held(p.space.ID)), nil
	}
	for id, access := range p.inSpace {
		if inSpace == nil {
			inSpace = make(map[string][]string, len(p.inSpace))
		}
		inSpace[id] = names(access.set)
	}
	return p.Granted(), inSpace
}
