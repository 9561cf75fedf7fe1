package management

import (
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"
)

func pick[T any](t *rapid.T, what string, of ...T) T { return rapid.SampledFrom(of).Draw(t, what) }

// odds is true once in so many times.
func odds(t *rapid.T, what string, n int) bool { return rapid.IntRange(0, n-1).Draw(t, what) == n-1 }

// caller is mostly one that can do something.
func (m *machine) caller(t *rapid.T) *secret {
	switch rapid.IntRange(0, 9).Draw(t, "caller") {
	case 0, 1, 2, 3:
		return m.admin
	case 9:
		return rapid.SampledFrom(m.shown).Draw(t, "any")
	}
	able := []*secret{}
	for _, s := range m.shown {
		if status, _ := m.admit(s); status == 0 {
			able = append(able, s)
		}
	}
	return rapid.SampledFrom(able).Draw(t, "able")
}

// either is one of these ids, mostly one of mine, or now and then of one that is
// no more.
func (m *machine) either(t *rapid.T, kind string, mine, all []string) string {
	if len(all) == 0 || odds(t, kind+" gone", 12) {
		return rapid.SampledFrom(append(slices.Clone(m.gone[kind]), kind[:3]+"_"+strings.Repeat("0", 32))).Draw(t, kind)
	}
	if len(mine) == 0 || odds(t, "any "+kind, 6) {
		mine = all
	}
	return rapid.SampledFrom(mine).Draw(t, kind)
}

// home is the organization of which a caller speaks mostly.
func (m *machine) home(by *secret) string {
	if k := m.key(by.key); k != nil && k.organization != "" {
		return k.organization
	}
	return m.organizations[min(1, len(m.organizations)-1)].id
}

func (m *machine) keyID(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, k := range m.keys[1:] { // the administrator's stays
		if all = append(all, k.id); k.organization == m.home(by) {
			mine = append(mine, k.id)
		}
	}
	return m.either(t, "key", mine, all)
}

func (m *machine) organizationRef(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, o := range m.organizations {
		if all = append(all, o.id, o.slug); o.id == m.home(by) {
			mine = []string{o.id, o.slug}
		}
	}
	return m.either(t, "organization", mine, all)
}

func (m *machine) spaceRef(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, s := range m.spaces {
		if all = append(all, s.id, s.slug); s.organization == m.home(by) {
			mine = append(mine, s.id, s.slug)
		}
	}
	return m.either(t, "space", mine, all)
}

func (m *machine) accountID(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, a := range m.accounts {
		if a.id == m.key(m.admin.key).account { // the administrator stays one
			continue
		}
		if all = append(all, a.id); a.organization == m.home(by) {
			mine = append(mine, a.id)
		}
	}
	return m.either(t, "account", mine, all)
}

// Draws of a key's fields; some are wrong.
var (
	modelNames       = []string{"deploy", "Deploy bot", "ci", "billing", "ÜBER", ""}
	goodPermissions  = []string{"orders:read", "orders:write", "reports:read", "orders:*", "*:read", "*", "admin", "read:all", "keygate:keys-read", "keygate:keys-write", "keygate:members", "keygate:audit", "keygate:*"}
	modelPermissions = append([]string{"keygate:operator", "orders:delete", "nothing:*", "*:*"}, goodPermissions...)
	// networks are written in their shortest form; "" for what is none.
	modelNetworks = map[string]string{
		"127.0.0.0/8": "127.0.0.0/8", "127.0.0.1": "127.0.0.1/32", "::1": "::1/128", "10.1.2.3/8": "10.0.0.0/8", "::ffff:192.0.2.7": "192.0.2.7/32",
		"localhost": "", "::ffff:192.0.2.0/120": "",
	}
)

func (m *machine) drawExpiry(t *rapid.T, wrong bool) string {
	now := m.now()
	all := []string{
		"never", "30d", "1y", now.Add(time.Hour).Format(time.RFC3339), now.Add(1500 * time.Millisecond).Format(time.RFC3339Nano), now.AddDate(0, 0, 3).Format(time.DateOnly), "",
		"0d", "soon", now.Format(time.RFC3339), now.AddDate(0, 0, -1).Format(time.DateOnly),
	}
	if !wrong {
		all = all[:7]
	}
	return pick(t, "expires", all...)
}

// drawTerms are a key's own plan and overrides.
func drawTerms(t *rapid.T, body object) {
	if odds(t, "a plan", 12) {
		body["plan"] = pick(t, "plan", "wide", "none", "small", "huge", "")
	}
	if odds(t, "overrides", 12) {
		body["overrides"] = pick(t, "overrides", object{}, object{"limits": []object{{"name": "minute", "requests": 5, "per": "1m"}}}, object{"max_keys": 3})
	}
}

func (m *machine) drawEdit(t *rapid.T) object {
	body, wrong := object{}, odds(t, "something wrong", 4)
	names, grants, networks := modelNames[:5], goodPermissions, []string{"127.0.0.0/8", "::1", "10.1.2.3/8", "127.0.0.1", "::ffff:192.0.2.7"}
	if wrong {
		names, grants, networks = modelNames, modelPermissions, append(networks, "localhost", "::ffff:192.0.2.0/120")
	}
	if odds(t, "a name", 2) {
		body["name"] = pick(t, "name", names...)
	}
	if odds(t, "a description", 4) {
		body["description"] = pick(t, "description", "for\nmachines", "")
		if wrong {
			body["description"] = pick(t, "wrong description", "an\u202eevil one", strings.Repeat("d", 501))
		}
	}
	if odds(t, "permissions", 2) {
		body["permissions"] = append([]string{}, rapid.SliceOfN(rapid.SampledFrom(grants), 0, 2).Draw(t, "permissions")...)
	}
	if odds(t, "addresses", 6) {
		body["allowed_cidrs"] = append([]string{}, rapid.SliceOfN(rapid.SampledFrom(networks), 0, 3).Draw(t, "addresses")...)
	}
	if odds(t, "an expiry", 3) {
		body["expires"] = m.drawExpiry(t, wrong)
	}
	drawTerms(t, body)
	return body
}

func (m *machine) drawKey(t *rapid.T, by *secret) object {
	body := m.drawEdit(t)
	if body["name"] == nil {
		body["name"] = "made"
	}
	if by == m.admin || odds(t, "an organization", 3) {
		body["organization"] = m.organizationRef(t, by)
	}
	if odds(t, "an account", 3) {
		body["account"] = m.accountID(t, by)
	}
	if odds(t, "a space", 3) {
		body["space"] = m.spaceRef(t, by)
	}
	return body
}

func (m *machine) drawRotation(t *rapid.T) any {
	if odds(t, "without a body", 3) {
		return nil
	}
	body := object{}
	if odds(t, "overlap", 2) {
		body["overlap"] = pick(t, "overlap", "24h", "7d", "1s", "30d", "0", "31d", "-1h", "long")
	}
	if odds(t, "an expiry", 3) {
		body["expires"] = m.drawExpiry(t, odds(t, "something wrong", 4))
	}
	return body
}

// drawImport is keys that were made elsewhere, in this instance's form.
func (m *machine) drawImport(t *rapid.T, by *secret) []object {
	var items []object
	for range rapid.IntRange(1, 3).Draw(t, "keys") {
		item := m.drawKey(t, by)
		if item["name"] == "" {
			item["name"] = "imported"
		}
		delete(item, "overrides")
		if odds(t, "known", 6) {
			item["secret"] = rapid.SampledFrom(m.shown).Draw(t, "secret").text // is not sent
		} else {
			item["secret"] = m.w.format.Generate()
			m.shown = append(m.shown, &secret{text: text(item, "secret")})
		}
		if odds(t, "a status", 2) {
			item["status"] = pick(t, "status", "active", "paused", "revoked", "expired")
		}
		if item["status"] == "expired" {
			item["expires"] = pick(t, "expired", m.now().Add(-time.Hour), m.now()).Format(time.RFC3339Nano)
		}
		if odds(t, "made before", 2) {
			item["created_at"] = m.now().AddDate(0, -1, 0)
		}
		items = append(items, item)
	}
	m.settle(t) // all replicas remember that they know no such keys
	return items
}

var modelSlugs = []string{"acme", "globex", "initech", "north", "south", "west", "", "-x", "Upper"}

func (m *machine) drawGrant(t *rapid.T, by *secret) object {
	body := object{}
	if odds(t, "an organization", 2) {
		body["organization"] = m.organizationRef(t, by)
	}
	if odds(t, "a space", 3) {
		body["space"] = m.spaceRef(t, by)
	}
	if !odds(t, "a permission", 3) {
		body["role"] = pick(t, "role", "owner", "keeper", "people", "auditor", "viewer", "nobody")
	}
	if body["role"] == nil || odds(t, "both", 12) {
		body["permission"] = pick(t, "permission", append(slices.Clone(modelPermissions), "")...)
	}
	return body
}
