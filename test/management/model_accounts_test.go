package management

import (
	"slices"
	"strings"

	"pgregory.net/rapid"
)

func (m *machine) changeAccounts(t *rapid.T) {
	by := m.caller(t)
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0, 1:
		body := m.drawGrant(t, by)
		body["name"] = pick(t, "name", modelNames...)
		m.createAccount(t, by, body)
	case 2:
		m.deleteAccount(t, by, m.accountID(t, by))
	default:
		body := object{}
		if odds(t, "a name", 2) {
			body["name"] = pick(t, "name", modelNames...)
		}
		if odds(t, "an address", 2) {
			body["email"] = pick(t, "email", "ada@example.com", "", "a\tb")
		}
		m.editAccount(t, by, m.accountID(t, by), body)
	}
}

// grant is a new one as a body describes it, at an organization that is known to
// be there ("" for the instance), or why there can be none.
func (m *machine) grant(a modelActor, organization string, body object) (modelGrant, forecast) {
	g := modelGrant{organization: organization, role: text(body, "role"), permission: text(body, "permission"), created: m.now()}
	if status := a.may(organization, "", "keygate:members"); status != 0 {
		return g, refused(status)
	}
	wrong := []string{}
	if ref := text(body, "space"); ref != "" {
		if s := a.within(organization, ref); s == nil {
			wrong = append(wrong, "#/space")
		} else {
			g.space = s.id
		}
	}
	switch {
	case g.role == "" && g.permission == "":
		wrong = append(wrong, "#/role")
	case g.role != "" && g.permission != "":
		wrong = append(wrong, "#/permission")
	case g.role != "" && m.w.policy.Roles[g.role] == nil:
		wrong = append(wrong, "#/role")
	case g.role == "" && (!grantable(g.permission) || g.permission == "keygate:operator" && organization != ""):
		wrong = append(wrong, "#/permission")
	}
	if len(wrong) > 0 {
		return g, refused(422, wrong...)
	}
	return g, m.mayMove(a, g)
}

// mayMove refuses who lacks what a grant gives.
func (m *machine) mayMove(a modelActor, g modelGrant) forecast {
	if status := a.may(g.organization, "", "keygate:members"); status != 0 {
		return refused(status)
	}
	if a.covers(g.gives(m.w.policy.Roles), g.space) {
		return forecast{}
	}
	if g.role != "" {
		return refused(403, "#/role")
	}
	return refused(403, "#/permission")
}

func (m *machine) createAccount(t *rapid.T, by *secret, body object) {
	m.perform(t, by, request{method: "POST", target: "/v1/accounts", body: body}, func(a modelActor) forecast {
		ref := a.own(text(body, "organization"))
		acc := &modelAccount{name: text(body, "name"), version: 1, created: m.now(), updated: m.now()}
		if instance := a.operator && ref == "" && body["permission"] == "keygate:operator"; !instance {
			o := a.seen(ref)
			if o == nil {
				return refused(422, "#/organization")
			}
			acc.organization = o.id
		}
		g, f := m.grant(a, acc.organization, body)
		if !goodName(acc.name) && (f.status == 0 || f.status == 422 || len(f.wrong) > 0) {
			if f.status == 403 {
				f.wrong = nil // what goes too far is looked at when the rest is right
			}
			f.status, f.wrong = 422, append(f.wrong, "#/name")
		}
		if f.status != 0 {
			return f
		}
		return forecast{status: 201, happens: func(got object) (object, int64) {
			acc.id = text(got, "id")
			g.id = text(got["grants"].([]any)[0].(object), "id")
			acc.grants = []modelGrant{g}
			m.accounts = append(m.accounts, acc)
			m.entry("account.create", "account", acc.id, acc.organization, nil, acc.view(g))
			return acc.show(a), 1
		}}
	})
}

// managed is an account that the actor may change, or why it may not.
func (m *machine) managed(a modelActor, id string) (*modelAccount, int) {
	acc, status := a.seenAccount(id)
	if status != 0 {
		return nil, status
	}
	if !a.sees(acc.organization) {
		return nil, 403 // a guest from elsewhere
	}
	return acc, a.may(acc.organization, "", "keygate:members")
}

func (m *machine) editAccount(t *rapid.T, by *secret, id string, body object) {
	m.perform(t, by, request{method: "PATCH", target: "/v1/accounts/" + id, body: body}, func(a modelActor) forecast {
		acc, status := m.managed(a, id)
		if status != 0 {
			return early(status)
		}
		next, wrong := *acc, []string{}
		if name, ok := body["name"].(string); ok {
			if next.name = name; !goodName(name) {
				wrong = append(wrong, "#/name")
			}
		}
		if email, ok := body["email"].(string); ok {
			if next.email = email; strings.Contains(email, "\t") {
				wrong = append(wrong, "#/email")
			}
		}
		f := forecast{status: 200, version: acc.version}
		before := acc.view()
		switch {
		case len(wrong) > 0:
			f.status, f.wrong = 422, wrong
		case same(before, next.view()):
			f.shows = func() (object, int64) { return acc.show(a), acc.version }
		default:
			f.happens = func(object) (object, int64) {
				next.version, next.updated = acc.version+1, m.now()
				*acc = next
				m.entry("account.edit", "account", acc.id, acc.organization, before, acc.view())
				return acc.show(a), acc.version
			}
		}
		return f
	})
}

func (m *machine) deleteAccount(t *rapid.T, by *secret, id string) {
	m.perform(t, by, request{method: "DELETE", target: "/v1/accounts/" + id}, func(a modelActor) forecast {
		acc, status := m.managed(a, id)
		if status != 0 {
			return early(status)
		}
		if acc.organization != "" && id == "acc_"+strings.TrimPrefix(acc.organization, "org_") {
			return forecast{status: 409, version: acc.version}
		}
		seen := acc.seen(a)
		for _, g := range seen {
			if f := m.mayMove(a, g); f.status != 0 {
				f.version = acc.version
				return f
			}
		}
		if len(seen) < len(acc.grants) || slices.ContainsFunc(m.keys, func(k *modelKey) bool { return k.account == id }) {
			return forecast{status: 409, version: acc.version}
		}
		return forecast{status: 204, version: acc.version, happens: func(object) (object, int64) {
			m.accounts = remove(m.accounts, acc)
			m.gone["account"] = append(m.gone["account"], id)
			own := slices.Clone(seen)
			for _, g := range seen {
				if g.organization != acc.organization {
					own = remove(own, g)
					m.entry("grant.remove", "account", id, g.organization, g.view(), nil)
				}
			}
			m.entry("account.delete", "account", id, acc.organization, acc.view(own...), nil)
			return nil, 0
		}}
	})
}

func (m *machine) changeGrants(t *rapid.T) {
	by := m.caller(t)
	account := m.accountID(t, by)
	if odds(t, "take", 2) {
		ids := []string{}
		if acc := m.account(account); acc != nil {
			for _, g := range acc.grants {
				ids = append(ids, g.id)
			}
		}
		m.removeGrant(t, by, account, m.either(t, "grant", ids, ids))
		return
	}
	m.addGrant(t, by, account, m.drawGrant(t, by))
}

func (m *machine) addGrant(t *rapid.T, by *secret, account string, body object) {
	m.perform(t, by, request{method: "POST", target: "/v1/accounts/" + account + "/grants", body: body}, func(a modelActor) forecast {
		acc, status := a.seenAccount(account)
		if status != 0 {
			return early(status)
		}
		ref := text(body, "organization")
		if ref == "" {
			ref = acc.organization
		}
		organization := ""
		if ref != "" {
			o := a.seen(ref)
			if o == nil {
				return forecast{status: 422, wrong: []string{"#/organization"}, version: acc.version}
			}
			organization = o.id
		}
		g, f := m.grant(a, organization, body)
		f.version = acc.version
		if f.status != 0 {
			return f
		}
		if slices.ContainsFunc(acc.grants, func(o modelGrant) bool {
			return o.organization == g.organization && o.space == g.space && o.role == g.role && o.permission == g.permission
		}) {
			f.status = 409
			return f
		}
		f.status = 201
		f.happens = func(got object) (object, int64) {
			g.id = text(got, "id")
			acc.grants = append(acc.grants, g)
			acc.version, acc.updated = acc.version+1, m.now()
			m.entry("grant.add", "account", account, g.organization, nil, g.view())
			return g.show(), 0
		}
		return f
	})
}

func (m *machine) removeGrant(t *rapid.T, by *secret, account, grant string) {
	m.perform(t, by, request{method: "DELETE", target: "/v1/accounts/" + account + "/grants/" + grant}, func(a modelActor) forecast {
		acc, status := a.seenAccount(account)
		if status != 0 {
			return early(status)
		}
		seen := acc.seen(a)
		i := slices.IndexFunc(seen, func(g modelGrant) bool { return g.id == grant })
		if i < 0 {
			return forecast{status: 404, version: acc.version}
		}
		g := seen[i]
		f := m.mayMove(a, g)
		f.version = acc.version
		if f.status != 0 {
			return f
		}
		f.status = 204
		f.happens = func(object) (object, int64) {
			acc.grants = remove(acc.grants, g)
			acc.version, acc.updated = acc.version+1, m.now()
			m.gone["grant"] = append(m.gone["grant"], grant)
			m.entry("grant.remove", "account", account, g.organization, g.view(), nil)
			return nil, 0
		}
		return f
	})
}
