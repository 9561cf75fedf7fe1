package management

import (
	"net/url"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

func (m *machine) changeOrganizations(t *rapid.T) {
	by := m.caller(t)
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		body := object{"slug": pick(t, "slug", modelSlugs...)}
		if odds(t, "a plan", 2) {
			body["plan"] = pick(t, "plan", "wide", "none", "huge", "")
		}
		m.createOrganization(t, by, body)
	case 1:
		m.deleteOrganization(t, by, m.organizationRef(t, by))
	default:
		body := object{}
		if odds(t, "a name", 2) {
			body["name"] = pick(t, "name", modelNames...)
		}
		if odds(t, "a slug", 4) {
			body["slug"] = pick(t, "slug", modelSlugs...)
		}
		if odds(t, "a plan", 4) {
			body["plan"] = pick(t, "plan", "wide", "small", "none", "huge", "")
		}
		if odds(t, "overrides", 3) {
			body["overrides"] = pick(t, "overrides", object{}, object{"max_keys": 6}, object{"max_keys": -2}, object{"limits": []object{{"name": "minute", "requests": 5, "per": "1m"}}, "max_keys": 9})
		}
		m.editOrganization(t, by, m.organizationRef(t, by), body)
	}
}

// take takes over from a body what an organization is called and what holds for
// it, and says what of it is wrong.
func (o *modelOrganization) take(body object) (wrong []string) {
	if slug, ok := body["slug"].(string); ok {
		o.slug = slug
	}
	if name, ok := body["name"].(string); ok {
		o.name = name
	}
	if plan, ok := body["plan"].(string); ok {
		if o.plan = plan; !slices.Contains([]string{"small", "wide", "none"}, plan) {
			wrong = append(wrong, "#/plan")
		}
	}
	if overrides, ok := body["overrides"].(object); ok {
		if o.terms = termsOf(overrides); o.terms.maxKeys != nil && *o.terms.maxKeys < -1 {
			wrong = append(wrong, "#/overrides/max_keys")
		}
	}
	if !modelSlug.MatchString(o.slug) {
		wrong = append(wrong, "#/slug")
	}
	if !goodName(o.name) {
		wrong = append(wrong, "#/name")
	}
	return wrong
}

func (m *machine) createOrganization(t *rapid.T, by *secret, body object) {
	m.perform(t, by, request{method: "POST", target: "/v1/organizations", body: body}, func(a modelActor) forecast {
		if !a.operator {
			return refused(403)
		}
		if body["plan"] == "" {
			delete(body, "plan")
		}
		o := &modelOrganization{name: text(body, "slug"), plan: "small", version: 1, created: m.now(), updated: m.now()}
		if wrong := o.take(body); len(wrong) > 0 {
			return refused(422, wrong...)
		}
		if m.organization(o.slug) != nil {
			return refused(409)
		}
		return forecast{status: 201, happens: func(got object) (object, int64) {
			o.id = text(got, "id")
			m.organizations = append(m.organizations, o)
			m.adoptDefault(t, o)
			m.entry("organization.create", "organization", o.id, o.id, nil, o.view())
			return o.show(), 1
		}}
	})
}

func (m *machine) editOrganization(t *rapid.T, by *secret, ref string, body object) {
	m.perform(t, by, request{method: "PATCH", target: "/v1/organizations/" + ref, body: body}, func(a modelActor) forecast {
		o := a.seen(ref)
		if o == nil {
			return early(404)
		}
		if status := a.may(o.id, "", "keygate:members"); status != 0 {
			return early(status)
		}
		next := *o
		wrong := next.take(body)
		switch {
		case !a.operator && (body["slug"] != nil || body["plan"] != nil || body["overrides"] != nil):
			return early(403)
		case len(wrong) > 0:
			return forecast{status: 422, wrong: wrong, version: o.version}
		case next.slug != o.slug && (o.slug == "default" || m.organization(next.slug) != nil):
			return forecast{status: 409, version: o.version}
		}
		f := forecast{status: 200, version: o.version}
		before := o.view()
		if same(before, next.view()) {
			f.shows = func() (object, int64) { return o.show(), o.version }
			return f
		}
		f.happens = func(object) (object, int64) {
			next.version, next.updated = o.version+1, m.now()
			*o = next
			m.entry("organization.edit", "organization", o.id, o.id, before, o.view())
			return o.show(), o.version
		}
		return f
	})
}

func (m *machine) deleteOrganization(t *rapid.T, by *secret, ref string) {
	m.perform(t, by, request{method: "DELETE", target: "/v1/organizations/" + ref}, func(a modelActor) forecast {
		o := a.seen(ref)
		if o == nil {
			return early(404)
		}
		if !a.operator {
			return early(403)
		}
		standard := "acc_" + strings.TrimPrefix(o.id, "org_")
		inUse := slices.ContainsFunc(m.keys, func(k *modelKey) bool { return k.organization == o.id || k.account == standard }) ||
			slices.ContainsFunc(m.spaces, func(s *modelSpace) bool { return s.organization == o.id }) ||
			slices.ContainsFunc(m.accounts, func(acc *modelAccount) bool {
				return acc.id != standard && (acc.organization == o.id || slices.ContainsFunc(acc.grants, func(g modelGrant) bool { return g.organization == o.id }))
			})
		if inUse || o.slug == "default" {
			return forecast{status: 409, version: o.version}
		}
		return forecast{status: 204, version: o.version, happens: func(object) (object, int64) {
			m.organizations = remove(m.organizations, o)
			m.accounts = remove(m.accounts, m.account(standard))
			m.gone["organization"] = append(m.gone["organization"], o.id)
			m.entry("organization.delete", "organization", o.id, o.id, o.view(), nil)
			return nil, 0
		}}
	})
}

func (m *machine) changeSpaces(t *rapid.T) {
	by, organization := m.caller(t), ""
	if by == m.admin || odds(t, "an organization", 3) {
		organization = m.organizationRef(t, by)
	}
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		body := object{"slug": pick(t, "slug", modelSlugs...)}
		put(body, "organization", organization)
		m.createSpace(t, by, body)
	case 1:
		m.changeSpace(t, by, organization, m.spaceRef(t, by), nil)
	default:
		body := object{}
		if odds(t, "a slug", 2) {
			body["slug"] = pick(t, "slug", modelSlugs...)
		}
		if odds(t, "a name", 2) {
			body["name"] = pick(t, "name", modelNames...)
		}
		m.changeSpace(t, by, organization, m.spaceRef(t, by), body)
	}
}

func (s *modelSpace) take(body object) (wrong []string) {
	if slug, ok := body["slug"].(string); ok {
		s.slug = slug
	}
	if name, ok := body["name"].(string); ok {
		s.name = name
	}
	if !modelSlug.MatchString(s.slug) {
		wrong = append(wrong, "#/slug")
	}
	if !goodName(s.name) {
		wrong = append(wrong, "#/name")
	}
	return wrong
}

func (m *machine) createSpace(t *rapid.T, by *secret, body object) {
	m.perform(t, by, request{method: "POST", target: "/v1/spaces", body: body}, func(a modelActor) forecast {
		o := a.seen(a.own(text(body, "organization")))
		if o == nil {
			return refused(422, "#/organization")
		}
		if status := a.may(o.id, "", "keygate:members"); status != 0 {
			return refused(status)
		}
		s := &modelSpace{organization: o.id, name: text(body, "slug"), version: 1, created: m.now(), updated: m.now()}
		if wrong := s.take(body); len(wrong) > 0 {
			return refused(422, wrong...)
		}
		if m.space(o.id, s.slug) != nil {
			return refused(409)
		}
		return forecast{status: 201, happens: func(got object) (object, int64) {
			s.id = text(got, "id")
			m.spaces = append(m.spaces, s)
			m.entry("space.create", "space", s.id, o.id, nil, s.view())
			return s.show(), 1
		}}
	})
}

// changeSpace edits a space or, without a body, deletes it.
func (m *machine) changeSpace(t *rapid.T, by *secret, organization, ref string, body object) {
	q := request{method: "PATCH", target: "/v1/spaces/" + ref, body: body}
	if body == nil {
		q.method, q.body = "DELETE", nil
	}
	if organization != "" {
		q.target += "?organization=" + url.QueryEscape(organization)
	}
	m.perform(t, by, q, func(a modelActor) forecast {
		s := a.seenSpace(organization, ref)
		if s == nil {
			return early(404)
		}
		if status := a.may(s.organization, "", "keygate:members"); status != 0 {
			return early(status)
		}
		if body == nil {
			return m.dropSpace(s)
		}
		next := *s
		if wrong := next.take(body); len(wrong) > 0 {
			return forecast{status: 422, wrong: wrong, version: s.version}
		}
		if next.slug != s.slug && m.space(s.organization, next.slug) != nil {
			return forecast{status: 409, version: s.version}
		}
		f := forecast{status: 200, version: s.version}
		before := s.view()
		if next == *s {
			f.shows = func() (object, int64) { return s.show(), s.version }
			return f
		}
		f.happens = func(object) (object, int64) {
			next.version, next.updated = s.version+1, m.now()
			*s = next
			m.entry("space.edit", "space", s.id, s.organization, before, s.view())
			return s.show(), s.version
		}
		return f
	})
}

func (m *machine) dropSpace(s *modelSpace) forecast {
	if slices.ContainsFunc(m.keys, func(k *modelKey) bool { return k.space == s.id }) ||
		slices.ContainsFunc(m.accounts, func(a *modelAccount) bool {
			return slices.ContainsFunc(a.grants, func(g modelGrant) bool { return g.space == s.id })
		}) {
		return forecast{status: 409, version: s.version}
	}
	return forecast{status: 204, version: s.version, happens: func(object) (object, int64) {
		m.spaces = remove(m.spaces, s)
		m.gone["space"] = append(m.gone["space"], s.id)
		m.entry("space.delete", "space", s.id, s.organization, s.view(), nil)
		return nil, 0
	}}
}
