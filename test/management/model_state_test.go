package management

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"keygate/internal/keys"
)

// The model's records. Lists of them are oldest first.
type (
	modelOrganization struct {
		id, slug, name, plan string
		terms                modelTerms
		version              int64
		created, updated     time.Time
	}
	modelSpace struct {
		id, organization, slug, name string
		version                      int64
		created, updated             time.Time
	}
	modelAccount struct {
		id, organization, name, email string
		grants                        []modelGrant
		version                       int64
		created, updated              time.Time
	}
	modelGrant struct {
		id, organization, space, role, permission string
		created                                   time.Time
	}
	modelKey struct {
		id, name, description, organization, space, account, plan string
		permissions, cidrs                                        []string
		terms                                                     modelTerms
		secrets                                                   []modelSecret // the present one first; at most 4 are known
		version                                                   int64
		created, updated, expires, paused, revoked, used, rotated time.Time
		lifetime                                                  time.Duration
	}
	modelSecret struct {
		text, prefix, lastFour string
		created, ends, used    time.Time
		imported               bool
	}
	// modelTerms are overrides, of one limit: so many a minute.
	modelTerms struct {
		requests int64 // 0: none
		maxKeys  *int
	}
	modelEntry struct {
		action, actor, account, kind, target, organization string
		at                                                 time.Time
		before, after                                      object
	}
)

// instance is what keygate's control plane should hold.
type instance struct {
	clock         *clock
	organizations []*modelOrganization
	spaces        []*modelSpace
	accounts      []*modelAccount
	keys          []*modelKey
	log           []modelEntry
}

func (in *instance) now() time.Time { return in.clock.now().UTC() }

func (in *instance) organization(ref string) *modelOrganization {
	for _, o := range in.organizations {
		if ref != "" && (o.id == ref || o.slug == ref) {
			return o
		}
	}
	return nil
}

func (in *instance) space(organization, ref string) *modelSpace {
	for _, s := range in.spaces {
		if ref != "" && s.organization == organization && (s.id == ref || s.slug == ref) {
			return s
		}
	}
	return nil
}

func (in *instance) account(id string) *modelAccount {
	for _, a := range in.accounts {
		if a.id == id {
			return a
		}
	}
	return nil
}

func (in *instance) key(id string) *modelKey {
	for _, k := range in.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

// holder finds the key that a secret belongs to, and which of its secrets it is.
func (in *instance) holder(secret string) (*modelKey, *modelSecret) {
	for _, k := range in.keys {
		for i := range k.secrets {
			if k.secrets[i].text == secret {
				return k, &k.secrets[i]
			}
		}
	}
	return nil, nil
}

func remove[T comparable](from []T, what T) []T {
	return slices.DeleteFunc(from, func(x T) bool { return x == what })
}

// status: what is revoked is not called expired, nor what has expired paused.
func (k *modelKey) status(now time.Time) string {
	switch {
	case !k.revoked.IsZero():
		return "revoked"
	case !k.expires.IsZero() && !now.Before(k.expires):
		return "expired"
	case !k.paused.IsZero():
		return "paused"
	}
	return "active"
}

// refusal is the error with which a secret is refused now; "" if it is not.
func (in *instance) refusal(secret string) string {
	k, s := in.holder(secret)
	if k == nil {
		return "API key is invalid"
	}
	switch k.status(in.now()) {
	case "revoked":
		return "API key has been revoked"
	case "expired":
		return "API key has expired"
	case "paused":
		return "API key is paused"
	}
	if !s.ends.IsZero() && !in.now().Before(s.ends) {
		return "API key has been revoked"
	}
	return ""
}

// counted are the keys of an organization that its plan counts.
func (in *instance) counted(organization string) int {
	n := 0
	for _, k := range in.keys {
		if status := k.status(in.now()); k.organization == organization && (status == "active" || status == "paused") {
			n++
		}
	}
	return n
}

// room reports whether the plan has room for so many keys more.
func (in *instance) room(organization string, more int) bool {
	o := in.organization(organization)
	if o == nil {
		return true // the instance's own
	}
	most := map[string]int{"small": 4, "wide": keys.Unlimited, "none": 0}[o.plan]
	if o.terms.maxKeys != nil {
		most = *o.terms.maxKeys
	}
	return most == keys.Unlimited || in.counted(organization)+more <= most
}

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

// shown is how answers write terms, stored how the audit log does.
func (m modelTerms) shown() object  { return m.as("1m") }
func (m modelTerms) stored() object { return m.as("1m0s") }

func (m modelTerms) as(minute string) object {
	if m.requests == 0 && m.maxKeys == nil {
		return nil
	}
	o := object{}
	if m.requests > 0 {
		o["limits"] = []object{{"name": "minute", "requests": m.requests, "per": minute}}
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
	put(out, "overrides", o.terms.stored())
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
	put(o, "overrides", k.terms.stored())
	put(o, "expires_at", k.expires)
	put(o, "paused_at", k.paused)
	put(o, "revoked_at", k.revoked)
	put(o, "rotated_at", k.rotated)
	if len(k.secrets) > 1 {
		o["former_secret_ends_at"] = k.secrets[1].ends
	}
	return o
}

// clone is a copy that shares nothing with the key.
func (k *modelKey) clone() *modelKey {
	c := *k
	c.permissions, c.cidrs, c.secrets = slices.Clone(k.permissions), slices.Clone(k.cidrs), slices.Clone(k.secrets)
	return &c
}

// contains is a part of a name in any letter case.
func contains(name, part string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(part))
}
