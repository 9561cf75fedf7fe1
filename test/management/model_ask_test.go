package management

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"keygate/internal/keys"
)

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
		case body["key"] != nil && (k == nil || k != a.key && status != 0):
			k = nil
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

// noteUse writes that a secret was used, as the replicas do from time to time.
func (m *machine) noteUse(t *rapid.T, k *modelKey, s *modelSecret) {
	u := keys.Use{Key: k.id, At: m.now()}
	if len(k.secrets) > 1 {
		u.Secret = keys.HashSecret(s.text)
	}
	r := m.w.replicas[rapid.IntRange(0, 1).Draw(t, "replica")%len(m.w.replicas)]
	if err := r.store.Used(context.Background(), []keys.Use{u}); err != nil {
		t.Fatalf("Used: %v", err)
	}
	later := func(last time.Time) bool { return last.IsZero() || m.now().Sub(last) >= keys.UseEvery }
	if later(k.used) {
		k.used = m.now()
	}
	if len(k.secrets) > 1 && later(s.used) {
		s.used = m.now()
	}
}
