package management

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// Draws of a key's fields; some are wrong.
var (
	modelNames       = []string{"deploy", "Deploy bot", "ci", "billing", "ÜBER", ""}
	modelPermissions = []string{
		"orders:read", "orders:write", "reports:read", "orders:*", "*:read", "*", "admin", "read:all", "keygate:keys-read", "keygate:keys-write",
		"keygate:members", "keygate:audit", "keygate:*", "keygate:operator", "orders:delete", "nothing:*", "*:*",
	}
	// networks are written in their shortest form; "" for what is none.
	modelNetworks = map[string]string{
		"127.0.0.0/8": "127.0.0.0/8", "127.0.0.1": "127.0.0.1/32", "::1": "::1/128", "10.1.2.3/8": "10.0.0.0/8", "::ffff:192.0.2.7": "192.0.2.7/32",
		"localhost": "", "::ffff:192.0.2.0/120": "",
	}
)

func goodName(s string) bool {
	return strings.TrimSpace(s) != "" && len([]rune(s)) <= 100 && !strings.ContainsAny(s, "\t\u202e")
}

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

func (m *machine) drawExpiry(t *rapid.T) string {
	now := m.now()
	return pick(t, "expires", "never", "30d", "1y", now.Add(time.Hour).Format(time.RFC3339), now.Add(1500*time.Millisecond).Format(time.RFC3339Nano),
		now.AddDate(0, 0, 3).Format(time.DateOnly), "", "0d", "soon", now.Format(time.RFC3339), now.AddDate(0, 0, -1).Format(time.DateOnly))
}

// drawTerms are a key's own plan and overrides.
func drawTerms(t *rapid.T, body object) {
	if odds(t, "a plan", 8) {
		body["plan"] = pick(t, "plan", "wide", "none", "small", "huge", "")
	}
	if odds(t, "overrides", 8) {
		body["overrides"] = pick(t, "overrides", object{}, object{"limits": []object{{"name": "minute", "requests": 5, "per": "1m"}}}, object{"max_keys": 3})
	}
}

func (m *machine) drawEdit(t *rapid.T) object {
	body := object{}
	if odds(t, "a name", 2) {
		body["name"] = pick(t, "name", modelNames...)
	}
	if odds(t, "a description", 4) {
		body["description"] = pick(t, "description", "for\nmachines", "", "an\u202eevil one", strings.Repeat("d", 501))
	}
	if odds(t, "permissions", 2) {
		body["permissions"] = append([]string{}, rapid.SliceOfN(rapid.SampledFrom(modelPermissions), 0, 3).Draw(t, "permissions")...)
	}
	if odds(t, "addresses", 6) {
		networks := []string{"127.0.0.0/8", "::1", "10.1.2.3/8", "127.0.0.1", "::ffff:192.0.2.7", "localhost", "::ffff:192.0.2.0/120"}
		body["allowed_cidrs"] = append([]string{}, rapid.SliceOfN(rapid.SampledFrom(networks), 0, 3).Draw(t, "addresses")...)
	}
	if odds(t, "an expiry", 3) {
		body["expires"] = m.drawExpiry(t)
	}
	drawTerms(t, body)
	return body
}

func (m *machine) drawKey(t *rapid.T, by *secret) object {
	body := m.drawEdit(t)
	if body["name"] == nil {
		body["name"] = "made"
	}
	if odds(t, "an organization", 2) {
		body["organization"] = m.organizationRef(t, by)
	}
	if odds(t, "an account", 2) {
		body["account"] = m.accountID(t, by)
	}
	if odds(t, "a space", 3) {
		body["space"] = m.spaceRef(t, by)
	}
	return body
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
	if beyond := beyondCaller(by, k, nil); beyond != nil {
		return k, refused(403, beyond...)
	}
	return k, forecast{}
}

func (m *machine) createKey(t *rapid.T, by *secret, body object) {
	m.perform(t, by, request{method: "POST", target: "/v1/keys", body: body}, func(a modelActor) forecast {
		k, f := m.draft(a, body)
		ends, ok := expiry(text(body, "expires"), m.now())
		k.expires = ends
		if k.lifetime = 0; !ends.IsZero() {
			k.lifetime = ends.Sub(m.now())
		}
		if !ok && f.status != 403 && f.status != 404 {
			f.status, f.wrong = 422, append(f.wrong, "#/expires")
		}
		if f.status != 0 {
			return f
		}
		if !m.room(k.organization, 1) {
			return refused(409)
		}
		return forecast{status: 201, happens: func(got object) (object, int64) {
			k.id = text(got, "id")
			m.give(k, text(got, "secret"))
			m.keys = append(m.keys, k)
			m.entry("key.create", "key", k.id, k.organization, nil, k.view())
			return k.show(m.now()), 1
		}}
	})
}

// give puts a new secret before those that a key has.
func (m *machine) give(k *modelKey, text string) {
	k.secrets = slices.Insert(k.secrets, 0, m.newSecret(text, ""))
	k.secrets = k.secrets[:min(4, len(k.secrets))]
	m.shown = append(m.shown, &secret{text, k.id})
}

// changed foretells a change of a key that the actor may change. edit changes a
// copy; it returns "" where there is nothing to change.
func (m *machine) changed(a modelActor, id, action string, edit func(k *modelKey) (changed bool, f forecast)) forecast {
	k := m.key(id)
	if k == nil {
		return early(404)
	}
	if status := a.may(k.organization, k.space, "keygate:keys-write"); status != 0 {
		return early(status)
	}
	next := k.clone()
	changed, f := edit(next)
	f.version = k.version
	if f.status != 0 {
		return f
	}
	f.status = 200
	if !changed {
		f.shows = func() (object, int64) { return k.show(m.now()), k.version }
		return f
	}
	was, is := k.status(m.now()), next.status(m.now())
	comes := 0 // a paused key counts already
	if was == "expired" {
		comes = 1
	}
	if (was == "expired" || is == "active" && was != "active") && !m.room(k.organization, comes) {
		return forecast{status: 409, version: k.version}
	}
	f.happens = func(got object) (object, int64) {
		before := k.view()
		if s := text(got, "secret"); s != "" {
			m.give(next, s)
		}
		next.version, next.updated = k.version+1, m.now()
		*k = *next
		m.entry(action, "key", k.id, k.organization, before, k.view())
		return k.show(m.now()), k.version
	}
	return f
}

func (m *machine) editKey(t *rapid.T, by *secret, id string, body object) {
	m.perform(t, by, request{method: "PATCH", target: "/v1/keys/" + id, body: body}, func(a modelActor) forecast {
		return m.changed(a, id, "key.edit", func(k *modelKey) (bool, forecast) {
			before, now := k.clone(), m.now()
			expires, ending := body["expires"].(string)
			if status := k.status(now); status == "revoked" || status == "expired" && ending {
				return false, refused(409)
			}
			wrong := k.describe(body)
			if ending {
				at, ok := expiry(expires, now)
				if !ok {
					wrong = append(wrong, "#/expires")
				}
				if k.expires, k.lifetime = at, 0; !at.IsZero() {
					k.lifetime = at.Sub(now)
				}
			}
			more, status := k.take(a, body)
			if status != 0 {
				return false, refused(status)
			}
			wrong = append(wrong, more...)
			if permissions, ok := words(body, "permissions"); ok {
				k.permissions = permissions
				wrong = append(wrong, m.beyondOwner(k)...)
			}
			if len(wrong) > 0 {
				return false, refused(422, wrong...)
			}
			if beyond := beyondCaller(a, k, before.permissions); beyond != nil {
				return false, refused(403, beyond...)
			}
			return fmt.Sprint(before.view()) != fmt.Sprint(k.view()), forecast{}
		})
	})
}

func (m *machine) transition(t *rapid.T, by *secret, id, verb string) {
	m.perform(t, by, request{method: "POST", target: "/v1/keys/" + id + "/" + verb}, func(a modelActor) forecast {
		return m.changed(a, id, "key."+verb, func(k *modelKey) (bool, forecast) {
			now := m.now()
			status := k.status(now)
			switch {
			case verb == "revoke" && status == "revoked", verb == "pause" && status == "paused", verb == "resume" && status == "active":
				return false, forecast{}
			case verb == "revoke":
				k.revoked = now
			case status == "revoked" || status == "expired":
				return false, refused(409)
			case verb == "pause":
				k.paused = now
			case verb == "resume":
				k.paused = time.Time{}
			}
			return true, forecast{}
		})
	})
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
		body["expires"] = m.drawExpiry(t)
	}
	return body
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

func (m *machine) rotateKey(t *rapid.T, by *secret, id string, asked any) {
	body, _ := asked.(object)
	m.perform(t, by, request{method: "POST", target: "/v1/keys/" + id + "/rotate", body: asked}, func(a modelActor) forecast {
		overlap, readable := overlapOf(body)
		if !readable {
			return early(422, "#/overlap")
		}
		return m.changed(a, id, "key.rotate", func(k *modelKey) (bool, forecast) {
			now := m.now()
			status := k.status(now)
			if status == "revoked" {
				return false, refused(409)
			}
			if k.id != a.key.id && !a.covers(k.permissions, k.space) {
				return false, refused(403)
			}
			wrong := []string{}
			if overlap < 0 || overlap > 30*24*time.Hour || overlap > 0 && status == "expired" {
				wrong = append(wrong, "#/overlap")
			}
			switch ends := text(body, "expires"); {
			case ends != "":
				at, ok := expiry(ends, now)
				if !ok {
					wrong = append(wrong, "#/expires")
				}
				if k.expires, k.lifetime = at, 0; !at.IsZero() {
					k.lifetime = at.Sub(now)
				}
			case status == "expired" && k.lifetime == 0:
				wrong = append(wrong, "#/expires") // nobody knows how long it was to live
			case status == "expired":
				k.expires = now.Add(k.lifetime)
			}
			if len(wrong) > 0 {
				return false, refused(422, wrong...)
			}
			for i := range k.secrets { // the older one ends now
				s, ends := &k.secrets[i], now
				if i == 0 {
					ends = now.Add(overlap)
					if k.used.After(s.used) {
						s.used = k.used
					}
				}
				if s.ends.IsZero() || ends.Before(s.ends) {
					s.ends = ends
				}
			}
			k.rotated = now
			return true, forecast{}
		})
	})
}

func (m *machine) deleteKey(t *rapid.T, by *secret, id string) {
	m.perform(t, by, request{method: "DELETE", target: "/v1/keys/" + id}, func(a modelActor) forecast {
		f := m.changed(a, id, "", func(*modelKey) (bool, forecast) { return false, forecast{} })
		if f.status != 200 {
			return f
		}
		return forecast{status: 204, version: f.version, happens: func(object) (object, int64) {
			k := m.key(id)
			m.keys = remove(m.keys, k)
			m.gone["key"] = append(m.gone["key"], id)
			m.entry("key.delete", "key", id, k.organization, k.view(), nil)
			return nil, 0
		}}
	})
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
		item["secret"] = m.w.format.Generate() // is not sent
		if len(m.shown) > 0 && odds(t, "known", 6) {
			item["secret"] = rapid.SampledFrom(m.shown).Draw(t, "secret").text
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
	return items
}

func (m *machine) importKeys(t *rapid.T, by *secret, items []object) {
	sent := []object{}
	for i, item := range items {
		s := object{"prefix": "kg_live", "last_four": text(item, "secret")[len(text(item, "secret"))-4:]}
		for name, value := range item {
			if name != "secret" {
				s[name] = value
			}
		}
		sum := sha256.Sum256([]byte(text(item, "secret")))
		s["hash"] = pick(t, fmt.Sprint("form ", i), hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sum[:]))
		sent = append(sent, s)
	}
	m.perform(t, by, request{method: "POST", target: "/v1/keys/import", body: object{"keys": sent}}, func(a modelActor) forecast {
		if !a.operator {
			return refused(403)
		}
		return forecast{status: 200, happens: func(got object) (object, int64) {
			imported, answers := 0, got["items"].([]any)
			for i, item := range items {
				answer := answers[i].(object)
				delete(answer, "detail")
				delete(answer, "errors")
				if m.importKey(a, item, text(answer, "id")) {
					imported++
					answers[i] = object{}
				}
			}
			shown := make([]object, len(items))
			for i := range shown {
				shown[i] = object{}
			}
			return object{"imported": imported, "failed": len(items) - imported, "items": shown}, 0
		}}
	})
}

// importKey takes over one key under the id that it got; false if none is made.
func (m *machine) importKey(a modelActor, item object, id string) bool {
	k, f := m.draft(a, item)
	if f.status != 0 || k.organization == "" {
		return false
	}
	now := m.now()
	ends, ok := expiry(text(item, "expires"), now)
	if created, has := item["created_at"].(time.Time); has {
		k.created = created
	}
	switch text(item, "status") {
	case "paused":
		k.paused = now
	case "revoked":
		k.revoked = now
	case "expired":
		at, err := time.Parse(time.RFC3339, text(item, "expires"))
		ends, ok = at, err == nil
	}
	if k.expires = ends; !ends.IsZero() {
		k.lifetime = ends.Sub(now)
		if item["status"] == "expired" {
			k.lifetime = max(ends.Sub(k.created), 0)
		}
	}
	counts := 0
	if status := k.status(now); status == "active" || status == "paused" {
		counts = 1
	}
	held, _ := m.holder(text(item, "secret"))
	if !ok || held != nil || !m.room(k.organization, counts) {
		return false
	}
	s := m.newSecret(text(item, "secret"), "kg_live")
	s.imported, s.created = true, k.created
	k.id, k.secrets = id, []modelSecret{s}
	m.keys = append(m.keys, k)
	m.shown = append(m.shown, &secret{s.text, id})
	m.entry("key.import", "key", id, k.organization, nil, k.view())
	return true
}

// askKey reads a key and asks what it can do.
func (m *machine) askKey(t *rapid.T, by *secret, id string) {
	m.perform(t, by, request{method: "GET", target: "/v1/keys/" + id}, func(a modelActor) forecast {
		k, status := a.seenKey(id)
		if status != 0 {
			return refused(status)
		}
		return forecast{status: 200, shows: func() (object, int64) { return k.show(m.now()), k.version }}
	})
	permission := pick(t, "permission", "orders:read", "keygate:members", "admin", "orders:*")
	body := object{"permission": permission}
	if odds(t, "a place", 2) {
		body["space"] = m.spaceRef(t, by)
	}
	m.perform(t, by, request{method: "POST", target: "/v1/keys/" + id + "/test", body: body}, func(a modelActor) forecast {
		k, status := a.seenKey(id)
		if status != 0 {
			return refused(status)
		}
		if permission == "orders:*" {
			return refused(422, "#/permission")
		}
		place := k.space
		if ref := text(body, "space"); ref != "" {
			s := a.seenSpace(k.organization, ref)
			if s == nil {
				return refused(404)
			}
			place = s.id
		}
		works, scopes := m.refusal(k.secrets[0].text) == "", []string{}
		if works {
			scopes = m.held(k, k.space).names()
		}
		held := object{"name": permission, "held": works && m.held(k, place)[permission]}
		return forecast{status: 200, happens: func(got object) (object, int64) {
			delete(got, "detail")
			delete(got["permission"].(object), "detail")
			return object{"id": k.id, "name": k.name, "status": k.status(m.now()), "works": works, "scopes": scopes, "permission": held}, 0
		}}
	})
}

// seenKey is a key that the actor may look at, or why it may not.
func (a modelActor) seenKey(id string) (*modelKey, int) {
	k := a.m.key(id)
	if k == nil {
		return nil, 404
	}
	if k == a.key {
		return k, 0
	}
	return k, a.may(k.organization, k.space, "keygate:keys-read", "keygate:keys-write")
}

// explain asks what would become of a request with a key, named by its id or by a
// secret, or without one.
func (m *machine) explain(t *rapid.T, by *secret, id string) {
	body, presented := object{"method": "GET", "path": "/"}, ""
	switch rapid.IntRange(0, 2).Draw(t, "asked about") {
	case 0:
		body["key_id"] = id
		if k := m.key(id); k != nil {
			presented = k.secrets[0].text
		}
	case 1:
		presented = rapid.SampledFrom(m.shown).Draw(t, "secret").text
		body["key"] = presented
	}
	m.perform(t, by, request{method: "POST", target: "/v1/explain", body: body}, func(a modelActor) forecast {
		k, _ := m.holder(presented)
		status := a.may(a.organization, a.space, "keygate:keys-read", "keygate:keys-write")
		switch {
		case body["key_id"] != nil:
			k, status = a.seenKey(id)
		case body["key"] != nil && k == nil:
			status = 0
		case body["key"] != nil:
			if k, status = a.seenKey(k.id); status == 404 { // is answered like one that is not there
				k, status = nil, 0
			}
		}
		if status != 0 {
			return refused(status)
		}
		return forecast{status: 200, happens: func(got object) (object, int64) {
			if k == nil || m.refusal(presented) != "" {
				delete(got, "detail")
				shown := object{"allowed": false, "status": 401, "checks": []object{}}
				if k != nil {
					shown["key"] = k.id
				}
				return shown, 0
			}
			delete(got, "plan")
			return object{"allowed": true, "checks": []object{}, "key": k.id, "detail": "works as " + k.name + " of " + k.account}, 0
		}}
	})
}

// use notes the use of a secret, as a replica that saw it does.
func (m *machine) use(t *rapid.T) {
	s := rapid.SampledFrom(m.shown).Draw(t, "used")
	k, presented := m.holder(s.text)
	if k == nil {
		return
	}
	m.noteUse(t, k, presented)
}
