package management

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"pgregory.net/rapid"
)

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
	k.secrets = k.secrets[:min(12, len(k.secrets))]
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
	if was == "expired" && (is == "active" || is == "paused") {
		comes = 1
	}
	if (comes > 0 || is == "active" && was != "active") && !m.room(k.organization, comes) {
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
				if !ok || expires == "" {
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
			if loosened := loosened(a, before, k); loosened != nil {
				return false, refused(403, loosened...)
			}
			return fmt.Sprint(before.view()) != fmt.Sprint(k.view()), forecast{}
		})
	})
}

// loosened are the bounds of its own that a key would undo.
func loosened(a modelActor, before, k *modelKey) (fields []string) {
	if a.operator || a.key.id != k.id {
		return nil
	}
	if !before.expires.IsZero() && (k.expires.IsZero() || k.expires.After(before.expires)) {
		fields = append(fields, "#/expires")
	}
	wider := len(k.cidrs) == 0
	for _, text := range k.cidrs {
		n, inside := netip.MustParsePrefix(text), false
		for _, old := range before.cidrs {
			o := netip.MustParsePrefix(old)
			inside = inside || o.Contains(n.Addr()) && o.Bits() <= n.Bits()
		}
		wider = wider || !inside
	}
	if len(before.cidrs) > 0 && wider {
		fields = append(fields, "#/allowed_cidrs")
	}
	return fields
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

func (m *machine) rotateKey(t *rapid.T, by *secret, id string, asked any) {
	body, _ := asked.(object)
	m.perform(t, by, request{method: "POST", target: "/v1/keys/" + id + "/rotate", body: asked}, func(a modelActor) forecast {
		overlap, readable := overlapOf(body)
		if !readable {
			return early(422, "#/overlap")
		}
		return m.changed(a, id, "key.rotate", func(k *modelKey) (bool, forecast) {
			before, now := k.clone(), m.now()
			status := k.status(now)
			if status == "revoked" {
				return false, refused(409)
			}
			if k.id != a.key.id && !(a.mayBe(k) && a.covers(k.permissions, k.space)) {
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
			if loosened := loosened(a, before, k); loosened != nil {
				return false, refused(403, loosened...)
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

// rotateAgain rotates a key that has expired or has a secret in its overlap, if
// there is one.
func (m *machine) rotateAgain(t *rapid.T) {
	var ids []string
	for _, k := range m.keys[1:] {
		if k.status(m.now()) == "expired" || slices.ContainsFunc(ends(k), m.now().Before) {
			ids = append(ids, k.id)
		}
	}
	body := object{}
	put(body, "overlap", pick(t, "overlap", "", "1h", "7d", "0"))
	if len(ids) == 0 {
		m.rotateKey(t, m.admin, m.keyID(t, m.admin), body)
		return
	}
	m.rotateKey(t, m.admin, rapid.SampledFrom(ids).Draw(t, "ending"), body)
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
		k.lifetime = max(ends.Sub(k.created), 0)
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
	for _, shown := range m.shown {
		if shown.text == s.text {
			shown.key = id
		}
	}
	m.entry("key.import", "key", id, k.organization, nil, k.view())
	return true
}
