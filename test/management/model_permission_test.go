package management

import (
	"maps"
	"slices"
	"strings"
)

// modelCatalogue has what each permission implies: testPolicy's entries and the
// built-in ones. A question mark stands for names that a later policy may have:
// who holds a wildcard holds them, who holds all that it matches today does not.
var modelCatalogue = map[string][]string{
	"orders:read": nil, "orders:write": nil, "reports:read": nil,
	"read:all": {"*:read"}, "write:all": {"*:write", "*:create", "*:update"}, "admin": {"*", "keygate:*"},
	"keygate:keys-read": nil, "keygate:keys-write": nil, "keygate:members": nil, "keygate:usage": nil, "keygate:audit": nil, "keygate:operator": nil,
	"?:?": nil, "orders:?": nil, "reports:?": nil, "read:?": nil, "write:?": nil, "keygate:?": nil,
	"?:read": nil, "?:write": nil, "?:all": nil,
}

type permissions map[string]bool

// names are those that exist today, sorted.
func (p permissions) names() []string {
	out := []string{}
	for name := range p {
		if !strings.Contains(name, "?") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (p permissions) and(q permissions) permissions {
	out := permissions{}
	for name := range p {
		if q[name] {
			out[name] = true
		}
	}
	return out
}

// without is what of p is not in q.
func (p permissions) without(q permissions) permissions {
	out := maps.Clone(p)
	maps.DeleteFunc(out, func(name string, _ bool) bool { return q[name] })
	return out
}

func matched(grant, name string) bool {
	resource, action, _ := strings.Cut(name, ":")
	wantResource, wantAction, _ := strings.Cut(grant, ":")
	switch {
	case grant == name:
		return true
	case grant == "*":
		return resource != "keygate" && name != "admin"
	case grant == "keygate:*":
		return resource == "keygate" && name != "keygate:operator"
	case name == "admin" || resource == "keygate" || modelCatalogue[name] != nil:
		return false
	}
	return wantResource == "*" && wantAction == action || wantAction == "*" && wantResource == resource
}

// expand is everything that grants stand for, with all that is implied.
func expand(grants []string) permissions {
	out := permissions{}
	for _, g := range grants {
		for name := range modelCatalogue {
			if matched(g, name) && !out[name] {
				out[name] = true
				maps.Copy(out, expand(modelCatalogue[name]))
			}
		}
	}
	return out
}

// grantable: an entry of the catalogue, or a wildcard for a whole segment that
// matches one.
func grantable(grant string) bool {
	return !strings.Contains(grant, "?") && len(expand([]string{grant}).names()) > 0
}

func (g *modelGrant) gives(roles map[string][]string) []string {
	if g.role != "" {
		return roles[g.role]
	}
	return []string{g.permission}
}

// granted is what an account holds at an organization and, with a space, there.
func (m *machine) granted(account, organization, space string) permissions {
	out := permissions{}
	a := m.account(account)
	if a == nil {
		return out
	}
	for _, g := range a.grants {
		if g.organization == organization && (g.space == "" || g.space == space) {
			maps.Copy(out, expand(g.gives(m.w.policy.Roles)))
		}
	}
	if organization != "" {
		delete(out, "keygate:operator")
	}
	return out
}

// reach is what a key can do at a place: what it was given, as far as its owner
// holds it there.
func (m *machine) reach(k *modelKey, space string) permissions {
	return expand(k.permissions).and(m.granted(k.account, k.organization, space))
}

// held is reach within the space that the key is restricted to.
func (m *machine) held(k *modelKey, space string) permissions {
	if k.space != "" && space != k.space {
		return permissions{}
	}
	return m.reach(k, space)
}

// modelActor is who asks.
type modelActor struct {
	m                   *machine
	key                 *modelKey
	operator            bool
	organization, space string
}

func (m *machine) actor(k *modelKey) modelActor {
	if k.organization == "" {
		return modelActor{m: m, key: k, operator: m.reach(k, "")["keygate:operator"]}
	}
	return modelActor{m: m, key: k, organization: k.organization, space: k.space}
}

func (a modelActor) sees(organization string) bool {
	return a.operator || organization != "" && organization == a.organization
}

func (a modelActor) holds(permission, space string) bool {
	return a.operator || (a.space == "" || a.space == space) && a.m.held(a.key, space)[permission]
}

// may answers 404 about what the actor does not see, 403 about what it may not
// touch, 0 else.
func (a modelActor) may(organization, space string, anyOf ...string) int {
	if !a.sees(organization) && (organization != "" || a.organization != "") {
		return 404
	}
	if slices.ContainsFunc(anyOf, func(p string) bool { return a.holds(p, space) }) {
		return 0
	}
	if a.space != "" && space != "" && space != a.space {
		return 404
	}
	return 403
}

// covers reports whether the actor holds all that it would hand on at a place.
func (a modelActor) covers(grants []string, space string) bool {
	return a.operator || len(expand(grants).without(a.m.held(a.key, space))) == 0
}

// mayBe: whoever gets the secret of another account's key passes for that account.
func (a modelActor) mayBe(k *modelKey) bool {
	return a.operator || k.account == a.key.account || a.holds("keygate:members", k.space)
}

// own is the organization that an actor means who names none.
func (a modelActor) own(ref string) string {
	if ref == "" {
		return a.organization
	}
	return ref
}

// seen is an organization that exists for the actor, or nil.
func (a modelActor) seen(ref string) *modelOrganization {
	if o := a.m.organization(ref); o != nil && a.sees(o.id) {
		return o
	}
	return nil
}

// seenSpace is a space that exists for the actor, or nil.
func (a modelActor) seenSpace(organization, ref string) *modelSpace {
	o := a.seen(a.own(organization))
	if o == nil {
		return nil
	}
	return a.within(o.id, ref)
}

func (a modelActor) within(organization, ref string) *modelSpace {
	s := a.m.space(organization, ref)
	if s == nil || a.space != "" && s.id != a.space {
		return nil
	}
	return s
}

// seenAccount is an account that the actor sees, or why it does not.
func (a modelActor) seenAccount(id string) (*modelAccount, int) {
	acc := a.m.account(id)
	if acc == nil || !a.sees(acc.organization) && len(acc.seen(a)) == 0 {
		return nil, 404
	}
	at := acc.organization
	if !a.sees(at) {
		at = a.organization
	}
	if id != a.key.account {
		if status := a.may(at, "", "keygate:members", "keygate:keys-read", "keygate:keys-write"); status != 0 {
			return nil, status
		}
	}
	return acc, 0
}
