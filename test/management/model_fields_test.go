package management

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func goodName(s string) bool {
	return strings.TrimSpace(s) != "" && len([]rune(s)) <= 100 && !strings.ContainsAny(s, "\t\u202e")
}

var modelSlug = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// expiry is when a key ends that is to end so.
func expiry(s string, now time.Time) (at time.Time, ok bool) {
	count, unit := 0, ""
	if n, err := strconv.Atoi(strings.TrimRight(s, "dy")); err == nil {
		count, unit = n, strings.TrimLeft(s, "0123456789")
	}
	switch {
	case s == "" || s == "never":
		return time.Time{}, true
	case unit == "d":
		at = now.Add(time.Duration(count) * 24 * time.Hour)
	case unit == "y":
		at = now.AddDate(count, 0, 0)
	case len(s) == len("2006-01-02"):
		day, err := time.Parse("2006-01-02", s)
		if err != nil {
			return at, false
		}
		at = day.AddDate(0, 0, 1)
	default:
		instant, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return at, false
		}
		at = instant.UTC()
	}
	return at, at.After(now)
}

func overlapOf(body object) (d time.Duration, readable bool) {
	switch s := text(body, "overlap"); s {
	case "", "0":
		return 0, true
	case "7d", "30d", "31d":
		days, err := strconv.Atoi(strings.TrimSuffix(s, "d"))
		return time.Duration(days) * 24 * time.Hour, err == nil
	default:
		d, err := time.ParseDuration(s)
		return d, err == nil
	}
}

func text(body object, name string) string { s, _ := body[name].(string); return s }

// words is a list in a body; ok if it has one.
func words(body object, name string) (list []string, ok bool) {
	list, ok = body[name].([]string)
	return list, ok
}

func inList(field string, i int) string { return fmt.Sprint("#/", field, "/", i) }

// describe takes over from a body what a key is called and where it may be used
// from, and says what of it is wrong.
func (k *modelKey) describe(body object) (wrong []string) {
	if name, ok := body["name"].(string); ok {
		if k.name = name; !goodName(name) {
			wrong = append(wrong, "#/name")
		}
	}
	if d, ok := body["description"].(string); ok {
		if k.description = d; len(d) > 500 || strings.Contains(d, "\u202e") {
			wrong = append(wrong, "#/description")
		}
	}
	if list, ok := words(body, "allowed_cidrs"); ok {
		k.cidrs = nil
		for i, s := range list {
			if n := modelNetworks[s]; n == "" {
				wrong = append(wrong, inList("allowed_cidrs", i))
			} else if !slices.Contains(k.cidrs, n) {
				k.cidrs = append(k.cidrs, n)
			}
		}
	}
	return wrong
}

// take is describe for a key's own terms, which are the operators'.
func (k *modelKey) take(by modelActor, body object) (wrong []string, status int) {
	plan, planned := body["plan"].(string)
	overrides, negotiated := body["overrides"].(object)
	if planned {
		k.plan = plan
	}
	if negotiated {
		k.terms = termsOf(overrides)
	}
	switch {
	case !planned && !negotiated:
		return nil, 0
	case !by.operator:
		return nil, 403
	}
	if planned && plan != "" && !slices.Contains([]string{"small", "wide", "none"}, plan) {
		wrong = append(wrong, "#/plan")
	}
	if k.organization == "" && (k.plan != "" || k.terms.shown() != nil) {
		return append(wrong, "#/plan"), 0
	}
	if negotiated && k.terms.maxKeys != nil {
		wrong = append(wrong, "#/overrides/max_keys")
	}
	return wrong, 0
}

func termsOf(o object) (terms modelTerms) {
	if _, ok := o["limits"]; ok {
		terms.requests = 5
	}
	if n, ok := o["max_keys"].(int); ok {
		terms.maxKeys = &n
	}
	return terms
}

// beyondOwner is what of a key's permissions does not exist, stands twice or goes
// beyond what its owner holds wherever the key can be used.
func (m *machine) beyondOwner(k *modelKey) (wrong []string) {
	ceiling := m.granted(k.account, k.organization, "")
	for _, s := range m.spaces {
		if s.organization == k.organization && (k.space == "" || k.space == s.id) {
			for name := range m.granted(k.account, k.organization, s.id) {
				ceiling[name] = true
			}
		}
	}
	for i, p := range k.permissions {
		if !grantable(p) || slices.Contains(k.permissions[:i], p) || len(expand([]string{p}).without(ceiling).names()) > 0 {
			wrong = append(wrong, inList("permissions", i))
		}
	}
	return wrong
}

// beyondCaller is the first of the permissions that the caller would hand on
// without holding it.
func beyondCaller(by modelActor, k *modelKey, had []string) []string {
	for i, p := range k.permissions {
		if !slices.Contains(had, p) && !by.covers([]string{p}, k.space) {
			return []string{inList("permissions", i)}
		}
	}
	return nil
}

// owned finds who a new key belongs to. known: nobody is named who is not there.
func (m *machine) owned(by modelActor, k *modelKey, body object) (wrong []string, known bool) {
	account, ref, space := text(body, "account"), text(body, "organization"), text(body, "space")
	if own := by.seen(ref); account == "" && !by.operator && (ref == "" || own != nil && own.id == by.organization) {
		account = by.key.account
	}
	var owner *modelAccount
	if account != "" {
		owner = m.account(account)
		if owner == nil || !by.sees(owner.organization) && len(owner.seen(by)) == 0 {
			return []string{"#/account"}, false
		}
	}
	switch {
	case ref != "":
	case owner != nil && by.sees(owner.organization):
		ref = owner.organization
	case owner == nil && by.operator:
		ref = "default"
	default:
		ref = by.organization
	}
	if ref != "" {
		o := by.seen(ref)
		if o == nil {
			return []string{"#/organization"}, false
		}
		k.organization = o.id
	}
	if k.account = account; account == "" {
		k.account = "acc_" + strings.TrimPrefix(k.organization, "org_")
	}
	if space == "" {
		space = by.space
	}
	if space != "" {
		s := by.within(k.organization, space)
		if s == nil {
			return []string{"#/space"}, false
		}
		k.space = s.id
	}
	if owner != nil && k.organization != "" && !slices.ContainsFunc(owner.grants, func(g modelGrant) bool { return g.organization == k.organization }) {
		wrong = append(wrong, "#/account")
	}
	return wrong, true
}

// draft is a new key as a body describes it, or why there can be none.
func (m *machine) draft(by modelActor, body object) (*modelKey, forecast) {
	k := &modelKey{version: 1, created: m.now(), updated: m.now(), permissions: nil}
	wrong, known := m.owned(by, k, body)
	wrong = append(wrong, k.describe(body)...)
	k.permissions, _ = words(body, "permissions")
	if !known {
		return k, refused(422, wrong...)
	}
	if status := by.may(k.organization, k.space, "keygate:keys-write"); status != 0 {
		return k, refused(status)
	}
	if body["plan"] == "" {
		delete(body, "plan") // none is none
	}
	if o, ok := body["overrides"].(object); ok && len(o) == 0 {
		delete(body, "overrides")
	}
	more, status := k.take(by, body)
	if status != 0 {
		return k, refused(status)
	}
	wrong = append(wrong, more...)
	if wrong = append(wrong, m.beyondOwner(k)...); len(wrong) > 0 {
		return k, refused(422, wrong...)
	}
	if !by.mayBe(k) {
		return k, refused(403)
	}
	if beyond := beyondCaller(by, k, nil); beyond != nil {
		return k, refused(403, beyond...)
	}
	return k, forecast{}
}
