package management

import (
	"encoding/json"
	"slices"
	"time"

	compare "github.com/google/go-cmp/cmp"
)

// put adds a field to an object unless it is not set.
func put(o object, name string, value any) {
	switch v := value.(type) {
	case string:
		if v != "" {
			o[name] = v
		}
	case time.Time:
		if !v.IsZero() {
			o[name] = v
		}
	case []string:
		if len(v) > 0 {
			o[name] = v
		}
	case object:
		if v != nil {
			o[name] = v
		}
	}
}

// asJSON is a value as JSON has it.
func asJSON(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers, times, lists and objects always marshal
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

func asObjects(list []object) []object {
	out := []object{}
	for _, o := range list {
		out = append(out, asJSON(o).(object))
	}
	return out
}

// same compares what JSON makes of two values.
func same(a, b any) bool { return compare.Equal(asJSON(a), asJSON(b)) }

// shown is how answers and the audit log write terms.
func (m modelTerms) shown() object {
	if m.requests == 0 && m.maxKeys == nil {
		return nil
	}
	o := object{}
	if m.requests > 0 {
		o["limits"] = []object{{"name": "minute", "requests": m.requests, "per": "1m"}}
	}
	if m.maxKeys != nil {
		o["max_keys"] = *m.maxKeys
	}
	return o
}

func (o *modelOrganization) show() object {
	out := object{"id": o.id, "slug": o.slug, "name": o.name, "plan": o.plan, "created_at": o.created, "updated_at": o.updated}
	put(out, "overrides", o.terms.shown())
	return out
}

func (o *modelOrganization) view() object {
	out := object{"id": o.id, "slug": o.slug, "name": o.name, "plan": o.plan}
	put(out, "overrides", o.terms.shown())
	return out
}

func (s *modelSpace) show() object {
	return object{"id": s.id, "organization": s.organization, "slug": s.slug, "name": s.name, "created_at": s.created, "updated_at": s.updated}
}

func (s *modelSpace) view() object {
	return object{"id": s.id, "organization": s.organization, "slug": s.slug, "name": s.name}
}

func (g *modelGrant) view() object {
	o := object{"id": g.id}
	put(o, "organization", g.organization)
	put(o, "space", g.space)
	put(o, "role", g.role)
	put(o, "permission", g.permission)
	return o
}

func (g *modelGrant) show() object {
	o := g.view()
	o["created_at"] = g.created
	return o
}

// show has the grants that an actor sees.
func (a *modelAccount) show(by modelActor) object {
	o := object{"id": a.id, "name": a.name, "created_at": a.created, "updated_at": a.updated}
	put(o, "organization", a.organization)
	put(o, "email", a.email)
	grants := []object{}
	for _, g := range a.seen(by) {
		grants = append(grants, g.show())
	}
	o["grants"] = grants
	return o
}

func (a *modelAccount) seen(by modelActor) []modelGrant {
	return slices.DeleteFunc(slices.Clone(a.grants), func(g modelGrant) bool { return !by.sees(g.organization) })
}

func (a *modelAccount) view(grants ...modelGrant) object {
	o := object{"id": a.id, "name": a.name}
	put(o, "organization", a.organization)
	put(o, "email", a.email)
	var views []object
	for _, g := range grants {
		views = append(views, g.view())
	}
	if views != nil {
		o["grants"] = views
	}
	return o
}

func (k *modelKey) show(now time.Time) object {
	o := object{
		"id": k.id, "name": k.name, "description": k.description, "status": k.status(now), "account": k.account,
		"prefix": k.secrets[0].prefix, "last_four": k.secrets[0].lastFour,
		"permissions": append([]string{}, k.permissions...), "allowed_cidrs": append([]string{}, k.cidrs...),
		"created_at": k.created, "updated_at": k.updated,
	}
	put(o, "organization", k.organization)
	put(o, "space", k.space)
	put(o, "plan", k.plan)
	put(o, "overrides", k.terms.shown())
	put(o, "expires_at", k.expires)
	put(o, "paused_at", k.paused)
	put(o, "revoked_at", k.revoked)
	put(o, "last_used_at", k.used)
	put(o, "rotated_at", k.rotated)
	if k.secrets[0].imported {
		o["imported"] = true
	}
	if len(k.secrets) > 1 {
		s := k.secrets[1]
		former := object{"prefix": s.prefix, "last_four": s.lastFour, "created_at": s.created, "ends_at": s.ends}
		put(former, "last_used_at", s.used)
		o["former_secret"] = former
	}
	return o
}

func (k *modelKey) view() object {
	o := object{"id": k.id, "name": k.name, "account": k.account, "prefix": k.secrets[0].prefix, "last_four": k.secrets[0].lastFour}
	put(o, "description", k.description)
	put(o, "organization", k.organization)
	put(o, "space", k.space)
	put(o, "permissions", k.permissions)
	put(o, "allowed_cidrs", k.cidrs)
	put(o, "plan", k.plan)
	put(o, "overrides", k.terms.shown())
	put(o, "expires_at", k.expires)
	put(o, "paused_at", k.paused)
	put(o, "revoked_at", k.revoked)
	put(o, "rotated_at", k.rotated)
	if len(k.secrets) > 1 {
		o["former_secret_ends_at"] = k.secrets[1].ends
	}
	return o
}
