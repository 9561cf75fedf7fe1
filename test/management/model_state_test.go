package management

import (
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
