package management

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	compare "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keygate/internal/keys"
)

// lists wants all of a list, in pages of any size, from any replica.
func (m *machine) lists(t *rapid.T, by *secret, target string, status func(modelActor) (int, []object)) (got, want []object) {
	t.Helper()
	code, _ := m.admit(by)
	if code == 0 {
		k, _ := m.holder(by.text)
		code, want = status(m.actor(k))
	}
	replica := rapid.IntRange(0, 1).Draw(t, "replica")
	if code != 0 {
		if a := m.w.send(t, request{replica: replica, key: by.text, method: "GET", target: target}); a.status != code {
			t.Fatalf("GET %s by %s: %d %s, the model says %d", target, m.describe(by), a.status, a.raw, code)
		}
		return nil, nil
	}
	m.seen["listed"]++
	return m.w.pages(t, by.text, target, pick(t, "limit", 1, 2, 3, 7, 200)), want
}

func (m *machine) matches(t *rapid.T, by *secret, target string, status func(modelActor) (int, []object)) {
	t.Helper()
	got, want := m.lists(t, by, target, status)
	if diff := compare.Diff(asJSON(append([]object{}, want...)), asJSON(append([]object{}, got...))); diff != "" {
		t.Fatalf("GET %s by %s (-model +real):\n%s", target, m.describe(by), diff)
	}
}

// listKeys lists keys by any filters.
func (m *machine) listKeys(t *rapid.T, by *secret) {
	q := url.Values{}
	draw := func(name string, n int, value func() string) {
		if odds(t, name+"?", n) {
			q.Set(name, value())
		}
	}
	draw("organization", 3, func() string { return m.organizationRef(t, by) })
	draw("space", 4, func() string { return m.spaceRef(t, by) })
	draw("account", 4, func() string { return m.accountID(t, by) })
	draw("name", 4, func() string { return pick(t, "name", "deploy", "Deploy", "owner") })
	draw("q", 4, func() string { return pick(t, "q", "DEPLOY", "ü", "e", "nothing") })
	draw("status", 3, func() string { return pick(t, "status", "active", "paused", "expired", "revoked") })
	unused, expires := 0, 0
	draw("unused_days", 5, func() string { unused = pick(t, "days", 1, 9); return fmt.Sprint(unused) })
	draw("expires_days", 5, func() string { expires = pick(t, "days", 1, 31); return fmt.Sprint(expires) })
	target := "/v1/keys?" + q.Encode()
	got, want := m.lists(t, by, target, func(a modelActor) (int, []object) {
		organization, space := "", ""
		if ref := a.own(q.Get("organization")); ref != "" {
			o := a.seen(ref)
			if o == nil {
				return 404, nil
			}
			organization = o.id
		}
		if ref := cmp.Or(q.Get("space"), a.space); ref != "" {
			s := a.seenSpace(organization, ref)
			if s == nil {
				return 404, nil
			}
			space = s.id
		}
		if organization == "" && !a.operator {
			return 403, nil
		}
		if status := a.may(organization, space, "keygate:keys-read", "keygate:keys-write"); status != 0 && organization != "" {
			return status, nil
		}
		now := m.now()
		var found []object
		for _, k := range slices.Backward(m.keys) {
			has := func(name, value string) bool { return !q.Has(name) || q.Get(name) == value }
			last := cmp.Or(k.used, k.created)
			if (organization == "" || k.organization == organization) && (space == "" || k.space == space) && has("account", k.account) && has("name", k.name) &&
				contains(k.name, q.Get("q")) && has("status", k.status(now)) &&
				(unused == 0 || !last.After(now.AddDate(0, 0, -unused))) &&
				(expires == 0 || k.revoked.IsZero() && k.expires.After(now) && !k.expires.After(now.AddDate(0, 0, expires))) {
				found = append(found, k.show(now))
			}
		}
		return 0, found
	})
	byText := func(field string) func(a, b object) int {
		return func(a, b object) int { return strings.Compare(text(a, field), text(b, field)) }
	}
	got, want = asObjects(got), asObjects(want)
	switch {
	case q.Has("q") || unused > 0 && expires > 0: // in an order of the store's own
	case unused > 0 && !slices.IsSortedFunc(got, func(a, b object) int { return lastUse(a).Compare(lastUse(b)) }):
		t.Fatalf("GET %s is not in the order of use: %v", target, got)
	case expires > 0 && !slices.IsSortedFunc(got, func(a, b object) int { return instantOf(a, "expires_at").Compare(instantOf(b, "expires_at")) }):
		t.Fatalf("GET %s is not in the order of expiry: %v", target, got)
	}
	if q.Has("q") || unused > 0 || expires > 0 {
		slices.SortFunc(got, byText("id"))
		slices.SortFunc(want, byText("id"))
	}
	if diff := compare.Diff(want, got); diff != "" {
		t.Fatalf("GET %s by %s (-model +real):\n%s", target, m.describe(by), diff)
	}
}

func instantOf(o object, field string) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, text(o, field)) // zero where it is not set
	return at
}

func lastUse(o object) time.Time {
	return cmp.Or(instantOf(o, "last_used_at"), instantOf(o, "created_at"))
}

// listOthers lists everything else.
func (m *machine) listOthers(t *rapid.T, by *secret) {
	query, ref := "", ""
	if odds(t, "an organization", 2) {
		ref = m.organizationRef(t, by)
		query = "?organization=" + url.QueryEscape(ref)
	}
	switch rapid.IntRange(0, 4).Draw(t, "list") {
	case 0:
		m.matches(t, by, "/v1/organizations", func(a modelActor) (int, []object) {
			var all []object
			for _, o := range slices.Backward(m.organizations) {
				if a.sees(o.id) {
					all = append(all, o.show())
				}
			}
			return 0, all
		})
	case 1:
		m.matches(t, by, "/v1/spaces"+query, func(a modelActor) (int, []object) {
			if a.operator && ref == "" {
				return 422, nil
			}
			o := a.seen(a.own(ref))
			if o == nil {
				return 404, nil
			}
			var all []object
			for _, s := range slices.Backward(m.spaces) {
				if s.organization == o.id && (a.space == "" || a.space == s.id) {
					all = append(all, s.show())
				}
			}
			return 0, all
		})
	case 2:
		m.matches(t, by, "/v1/accounts"+query, func(a modelActor) (int, []object) { return m.accountsOf(a, ref) })
	case 3:
		m.listAudit(t, by, ref)
	default:
		m.matches(t, by, "/v1/keys/export"+query, func(a modelActor) (int, []object) { return m.exportOf(a, ref) })
	}
}

func (m *machine) accountsOf(a modelActor, ref string) (int, []object) {
	id := ""
	if ref = a.own(ref); ref != "" || !a.operator {
		o := a.seen(ref)
		if o == nil {
			return 404, nil
		}
		id = o.id
	}
	if status := a.may(id, "", "keygate:members", "keygate:keys-read", "keygate:keys-write"); status != 0 {
		return status, nil
	}
	var all []object
	for _, acc := range slices.Backward(m.accounts) {
		if acc.organization == id {
			all = append(all, acc.show(a))
		}
	}
	return 0, all
}

// exportOf is keys in the form of an import, for operators.
func (m *machine) exportOf(a modelActor, ref string) (int, []object) {
	if !a.operator {
		return 403, nil
	}
	asked := m.organization(ref)
	if ref != "" && asked == nil {
		return 404, nil
	}
	var all []object
	for _, k := range slices.Backward(m.keys) {
		o := m.organization(k.organization)
		if o == nil || ref != "" && o != asked {
			continue
		}
		status := k.status(m.now())
		shown := object{
			"name": k.name, "status": status, "organization": o.slug, "created_at": k.created,
			"hash": keys.HashText(keys.HashSecret(k.secrets[0].text)), "prefix": k.secrets[0].prefix, "last_four": k.secrets[0].lastFour,
		}
		put(shown, "description", k.description)
		if sp := m.space(o.id, k.space); sp != nil {
			shown["space"] = sp.slug
		}
		put(shown, "account", m.exportedOwner(k))
		put(shown, "plan", k.plan)
		if status == "expired" && !k.paused.IsZero() {
			shown["paused"] = true
		}
		if !k.expires.IsZero() && k.lifetime > 0 {
			shown["lifetime"] = k.lifetime.String()
		}
		put(shown, "permissions", k.permissions)
		put(shown, "allowed_cidrs", k.cidrs)
		put(shown, "overrides", k.terms.shown())
		put(shown, "expires", k.expires)
		all = append(all, shown)
	}
	return 0, all
}

// exportedOwner is how an export names who owns a key: not at all, by a name that
// is the only one, or by its id.
func (m *machine) exportedOwner(k *modelKey) string {
	if k.account == keys.DefaultAccount(k.organization) {
		return ""
	}
	named, owner := map[string]int{}, ""
	for _, a := range m.accounts {
		if a.organization != k.organization {
			continue
		}
		if named[a.name]++; a.id == k.account {
			owner = a.name
		}
	}
	if owner != "" && named[owner] == 1 {
		return owner
	}
	return k.account
}

// listAudit lists the audit log by any filters.
func (m *machine) listAudit(t *rapid.T, by *secret, ref string) {
	q := url.Values{}
	if ref != "" {
		q.Set("organization", ref)
	}
	e := rapid.SampledFrom(m.log).Draw(t, "entry")
	for _, f := range [][2]string{{"target", e.target}, {"actor", e.actor}, {"action", e.action}} {
		if odds(t, f[0], 4) {
			q.Set(f[0], f[1])
		}
	}
	if e.account != "" && odds(t, "account", 6) {
		q.Set("actor", e.account)
	}
	if odds(t, "since", 4) {
		q.Set("since", e.at.Format(time.RFC3339Nano))
	}
	if odds(t, "until", 4) {
		q.Set("until", e.at.Format(time.RFC3339Nano))
	}
	target := "/v1/audit?" + q.Encode()
	got, want := m.lists(t, by, target, func(a modelActor) (int, []object) {
		organization := ""
		if ref := a.own(ref); ref != "" {
			o := a.seen(ref)
			if o == nil {
				return 404, nil
			}
			organization = o.id
		}
		if organization == "" && !a.operator {
			return 403, nil
		}
		if status := a.may(organization, "", "keygate:audit"); status != 0 && organization != "" {
			return status, nil
		}
		var all []object
		for _, x := range slices.Backward(m.log) {
			has := func(name string, values ...string) bool { return !q.Has(name) || slices.Contains(values, q.Get(name)) }
			if (organization == "" || x.organization == organization) && has("target", x.target) && has("actor", x.actor, x.account) && has("action", x.action) &&
				(!q.Has("since") || !x.at.Before(e.at)) && (!q.Has("until") || x.at.Before(e.at)) {
				all = append(all, x.show())
			}
		}
		return 0, all
	})
	for i := range got {
		got[i] = bare(got[i])
	}
	if diff := compare.Diff(asObjects(want), asObjects(got)); diff != "" {
		t.Fatalf("GET %s by %s (-model +real):\n%s", target, m.describe(by), diff)
	}
}
