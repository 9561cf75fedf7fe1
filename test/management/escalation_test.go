package management

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// escalation is a request that would give its caller, or who works with it, more
// than the caller may do.
type escalation struct {
	name           string
	by             string // which of the tenant's keys
	method, target string
	body           any
	status         int
	detail         string // a part of the answer
}

// escalations are what was thought of. op answers 403 naming keygate:operator.
func escalations(x *tenant, extra map[string]string) []escalation {
	op := func(name, by, method, target string, body any) escalation {
		return escalation{name, by, method, target, body, 403, `"required":["keygate:operator"]`}
	}
	key := func(permissions ...string) object { return object{"name": "x", "permissions": permissions} }
	grants := "/v1/accounts/" + x.weakAccount + "/grants"
	own := "/v1/accounts/" + x.account + "/grants"
	id := func(name string) string { return "/v1/keys/" + x.ids[name] }
	var all []escalation
	for _, by := range []string{"owner", "members", "writer"} {
		all = append(all,
			op("own plan", by, "PATCH", "/v1/organizations/"+x.slug, object{"plan": "wide"}),
			op("own overrides", by, "PATCH", "/v1/organizations/"+x.slug, object{"overrides": object{}}),
			op("own slug", by, "PATCH", "/v1/organizations/"+x.slug, object{"slug": "other"}),
			op("delete itself", by, "DELETE", "/v1/organizations/"+x.slug, nil),
			op("organizations", by, "POST", "/v1/organizations", object{"slug": "new"}),
			op("import", by, "POST", "/v1/keys/import", object{"keys": []object{}}),
			op("export", by, "GET", "/v1/keys/export", nil),
			op("replicas", by, "GET", "/v1/replicas", nil),
		)
	}
	// members may do what concerns the whole organization, but lack keys-write.
	all[2*8+0].detail, all[2*8+1].detail, all[2*8+2].detail = "keygate:members", "keygate:members", "keygate:members"
	for _, by := range []string{"owner", "writer", "restricted"} {
		all = append(all,
			op("key with a plan", by, "POST", "/v1/keys", object{"name": "x", "plan": "wide"}),
			op("key with overrides", by, "POST", "/v1/keys", object{"name": "x", "overrides": object{"limits": []object{{"name": "minute", "requests": 1000000, "per": "1m"}}}}),
			op("plan of a key", by, "PATCH", id("restricted"), object{"plan": "wide"}),
			op("plan of a key back", by, "PATCH", id("restricted"), object{"plan": ""}),
			op("overrides of a key", by, "PATCH", id("restricted"), object{"overrides": object{}}),
		)
	}
	return append(all,
		escalation{"operator in a key", "owner", "POST", "/v1/keys", key("keygate:operator"), 422, "lacks keygate:operator"},
		escalation{"operator into a key", "owner", "PATCH", id("owner"), object{"permissions": []string{"admin", "keygate:operator"}}, 422, "lacks keygate:operator"},
		escalation{"operator to an account", "owner", "POST", "/v1/accounts", object{"name": "x", "permission": "keygate:operator"}, 422, "at the instance only"},
		escalation{"operator by a grant", "owner", "POST", grants, object{"permission": "keygate:operator"}, 422, "at the instance only"},
		escalation{"operator to oneself", "owner", "POST", own, object{"permission": "keygate:operator"}, 422, "at the instance only"},

		escalation{"key beyond one's own", "writer", "POST", "/v1/keys", key("orders:write"), 403, "permissions[0]"},
		escalation{"key beyond one's own, second", "writer", "POST", "/v1/keys", key("orders:read", "admin"), 403, "permissions[1]"},
		escalation{"key with all", "writer", "POST", "/v1/keys", key("*"), 403, "permissions[0]"},
		escalation{"key with all of keygate", "writer", "POST", "/v1/keys", key("keygate:*"), 403, "permissions[0]"},
		escalation{"key with a wildcard that matches more", "writer", "POST", "/v1/keys", key("orders:*"), 403, "orders:write"},
		escalation{"key with a wildcard that would match more", "lister", "POST", "/v1/keys", key("orders:*"), 403, "it lacks orders:*"},
		escalation{"key with reading all there is today", "lister", "POST", "/v1/keys", key("*:read"), 403, "it lacks *:read"},
		escalation{"key for the owner", "writer", "POST", "/v1/keys", object{"name": "x", "account": x.account, "permissions": []string{"admin"}}, 403, "permissions[0]"},
		escalation{"key beyond its owner", "owner", "POST", "/v1/keys", object{"name": "x", "account": x.weakAccount, "permissions": []string{"orders:write"}}, 422, "lacks orders:write"},
		escalation{"edit beyond one's own", "writer", "PATCH", id("writer"), object{"permissions": []string{"orders:read", "orders:write"}}, 403, "permissions[1]"},
		escalation{"edit of another beyond one's own", "writer", "PATCH", "/v1/keys/" + x.key, object{"permissions": []string{"admin"}}, 403, "permissions[0]"},
		escalation{"edit to a wildcard", "lister", "PATCH", "/v1/keys/" + x.key, object{"permissions": []string{"orders:*"}}, 403, "it lacks orders:*"},
		escalation{"edit beyond its owner", "owner", "PATCH", "/v1/keys/" + extra["viewer"], object{"permissions": []string{"admin"}}, 422, "lacks admin"},
		escalation{"rotate a stronger key", "writer", "POST", id("owner") + "/rotate", nil, 403, "would do more"},
		escalation{"rotate a stronger key of the space", "writer", "POST", id("restricted") + "/rotate", nil, 403, "would do more"},
		escalation{"rotate a key with a wildcard", "lister", "POST", "/v1/keys/" + extra["wild"] + "/rotate", nil, 403, "orders:*"},
		escalation{"rotate without keys-write", "reader", "POST", id("reader") + "/rotate", nil, 403, "keygate:keys-write"},

		escalation{"create with keys-read", "reader", "POST", "/v1/keys", object{"name": "x"}, 403, "keygate:keys-write"},
		escalation{"edit with keys-read", "reader", "PATCH", "/v1/keys/" + x.key, object{"name": "x"}, 403, "keygate:keys-write"},
		escalation{"edit itself with keys-read", "reader", "PATCH", id("reader"), object{"permissions": []string{"admin"}}, 403, "keygate:keys-write"},
		escalation{"pause with keys-read", "reader", "POST", "/v1/keys/" + x.key + "/pause", nil, 403, "keygate:keys-write"},
		escalation{"revoke with keys-read", "reader", "POST", "/v1/keys/" + x.key + "/revoke", nil, 403, "keygate:keys-write"},
		escalation{"delete with keys-read", "reader", "DELETE", "/v1/keys/" + x.key, nil, 403, "keygate:keys-write"},
		escalation{"space with keys-read", "reader", "POST", "/v1/spaces", object{"slug": "x"}, 403, "keygate:members"},
		escalation{"account with keys-write", "writer", "POST", "/v1/accounts", object{"name": "x", "role": "viewer"}, 403, "keygate:members"},
		escalation{"grant with keys-write", "writer", "POST", grants, object{"permission": "orders:read"}, 403, "keygate:members"},
		escalation{"audit log with keys-write", "writer", "GET", "/v1/audit", nil, 403, "keygate:audit"},
		escalation{"audit log exported with keys-write", "writer", "GET", "/v1/audit/export", nil, 403, "keygate:audit"},
		escalation{"keys with audit", "auditor", "GET", "/v1/keys", nil, 403, "keygate:keys-read"},
		escalation{"question with audit", "auditor", "POST", "/v1/explain", object{"method": "GET", "path": "/"}, 403, "keygate:keys-read"},

		escalation{"role beyond one's own", "members", "POST", grants, object{"role": "owner"}, 403, "role"},
		escalation{"role of another kind", "members", "POST", grants, object{"role": "keeper"}, 403, "keygate:keys-read"},
		escalation{"owner to oneself", "members", "POST", own, object{"role": "owner"}, 403, "role"},
		escalation{"wildcard to oneself", "members", "POST", own, object{"permission": "*"}, 403, "permission"},
		escalation{"wildcard that would match more", "lister", "POST", own, object{"permission": "orders:*"}, 403, "it lacks orders:*"},
		escalation{"account with the role owner", "members", "POST", "/v1/accounts", object{"name": "x", "role": "owner"}, 403, "role"},
		escalation{"account with the role owner at a space", "members", "POST", "/v1/accounts", object{"name": "x", "role": "owner", "space": x.spaceSlug}, 403, "role"},
		escalation{"take the owner's role", "members", "DELETE", own + "/" + x.grant, nil, 403, "goes beyond"},
		escalation{"delete the owner", "members", "DELETE", "/v1/accounts/" + x.account, nil, 403, "goes beyond"},

		escalation{"key of another space", "restricted", "POST", "/v1/keys", object{"name": "x", "space": x.other}, 422, "no space with this id"},
		escalation{"key of another space by slug", "restricted", "POST", "/v1/keys", object{"name": "x", "space": x.otherSlug}, 422, "no space with this id"},
		escalation{"another space", "restricted", "GET", "/v1/spaces/" + x.other, nil, 404, "No space"},
		escalation{"keys of another space", "restricted", "GET", "/v1/keys?space=" + x.otherSlug, nil, 404, "No space"},
		escalation{"a key of another space", "restricted", "GET", "/v1/keys/" + x.elsewhere, nil, 404, "No key"},
		escalation{"edit in another space", "restricted", "PATCH", "/v1/keys/" + x.elsewhere, object{"name": "x"}, 404, "No key"},
		escalation{"rotate in another space", "restricted", "POST", "/v1/keys/" + x.elsewhere + "/rotate", nil, 404, "No key"},
		escalation{"a key of the whole organization", "restricted", "GET", "/v1/keys/" + x.key, nil, 403, "restricted to a space"},
		escalation{"edit of a key of the whole organization", "restricted", "PATCH", "/v1/keys/" + x.key, object{"name": "x"}, 403, "restricted to a space"},
		escalation{"rotate a key of the whole organization", "restricted", "POST", "/v1/keys/" + x.key + "/rotate", nil, 403, "restricted to a space"},
		escalation{"spaces from within one", "restricted", "POST", "/v1/spaces", object{"slug": "x"}, 403, "restricted to a space"},
		escalation{"own space from within it", "restricted", "PATCH", "/v1/spaces/" + x.space, object{"name": "x"}, 403, "restricted to a space"},
		escalation{"grant at one's space", "restricted", "POST", grants, object{"role": "viewer", "space": x.space}, 403, "restricted to a space"},
		escalation{"accounts from within a space", "restricted", "GET", "/v1/accounts", nil, 403, "restricted to a space"},
		escalation{"audit log from within a space", "restricted", "GET", "/v1/audit", nil, 403, "restricted to a space"},
		escalation{"organization from within a space", "restricted", "PATCH", "/v1/organizations/" + x.org, object{"name": "x"}, 403, "restricted to a space"},
	)
}

func TestEscalations(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	extra := map[string]string{
		"wild":   x.newKey(t, w, object{"name": "wild", "permissions": []string{"orders:*"}})["id"].(string),
		"viewer": w.must(t, w.operator, "POST", "/v1/keys", object{"name": "viewer", "organization": x.org, "account": x.weakAccount})["id"].(string),
	}
	// It holds everything that the wildcards match today, but not the wildcards.
	lister := x.newKey(t, w, object{"name": "lister", "permissions": []string{"keygate:keys-write", "keygate:members", "orders:read", "orders:write", "reports:read"}})
	x.keys["lister"] = lister["secret"].(string)
	before := w.snapshot(t)
	for _, e := range escalations(x, extra) {
		a := w.send(t, request{key: x.keys[e.by], method: e.method, target: e.target, body: e.body})
		if a.status != e.status || !strings.Contains(string(a.raw), e.detail) {
			t.Errorf("%s: %s %s %v as %s: %d %s; want %d with %q", e.name, e.method, e.target, e.body, e.by, a.status, a.raw, e.status, e.detail)
		}
		if a.status == http.StatusForbidden && a.object(t)["error"] != "Insufficient permissions" {
			t.Errorf("%s: %s", e.name, a.raw)
		}
	}
	if after := w.snapshot(t); after != before {
		t.Errorf("something changed:\n%s", difference(before, after))
	}
}

// TestWithinOnesMeans: what the escalations leave out is allowed, so that they are
// refused for their reasons.
func TestWithinOnesMeans(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	wild := x.newKey(t, w, object{"name": "wild", "permissions": []string{"keygate:keys-write", "orders:*", "read:all"}})["secret"].(string)
	for _, tc := range []struct {
		by, method, target string
		body               any
	}{
		{x.keys["writer"], "POST", "/v1/keys", object{"name": "x", "permissions": []string{"orders:read", "keygate:keys-write"}}},
		{wild, "POST", "/v1/keys", object{"name": "x", "permissions": []string{"orders:*", "orders:write", "*:read", "read:all"}}},
		{x.keys["owner"], "POST", "/v1/keys", object{"name": "x", "permissions": []string{"admin", "*", "keygate:*", "*:read"}}},
		{x.keys["owner"], "POST", "/v1/accounts", object{"name": "x", "role": "owner"}},
		{x.keys["members"], "POST", "/v1/accounts", object{"name": "x", "role": "people"}},
		{x.keys["restricted"], "POST", "/v1/keys", object{"name": "x", "permissions": []string{"admin"}}},
		{x.keys["restricted"], "POST", "/v1/keys", object{"name": "x", "space": x.spaceSlug}},
		{x.keys["owner"], "POST", "/v1/keys/" + x.ids["writer"] + "/rotate", nil},
		{x.keys["owner"], "POST", "/v1/keys/" + x.ids["owner"] + "/rotate", object{"overlap": "1h"}},
		{x.keys["owner"], "PATCH", "/v1/organizations/" + x.slug, object{"name": "Acme"}},
	} {
		w.must(t, tc.by, tc.method, tc.target, tc.body)
	}
	mine := w.all(t, x.keys["restricted"], "/v1/keys")
	if len(mine) != 3 || slices.ContainsFunc(mine, func(k object) bool { return k["space"] != x.space }) {
		t.Errorf("a restricted key sees %v", mine)
	}
}

// TestAnothersIdempotencyKey: a name for a request is the caller's own.
func TestAnothersIdempotencyKey(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x, y := newTenant(t, w, "acme"), newTenant(t, w, "globex")
	seen := map[string]bool{}
	for _, secret := range []string{x.keys["owner"], x.keys["writer"], y.keys["owner"]} {
		a := w.send(t, request{
			key: secret, method: "POST", target: "/v1/keys", body: object{"name": "same"}, header: map[string]string{"Idempotency-Key": "same"},
		})
		made := a.object(t)
		if a.status != http.StatusCreated || made["replayed"] != nil || seen[fmt.Sprint(made["id"])] {
			t.Errorf("%d %s", a.status, a.raw)
		}
		seen[fmt.Sprint(made["id"])] = true
	}
}

// TestKeyOfTheInstance: a key that belongs to no organization and is no operator's
// sees no organization's things. Lists without an organization showed it all.
func TestKeyOfTheInstance(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	staff := w.must(t, w.operator, "POST", "/v1/accounts", object{"name": "staff", "permission": "keygate:operator"})["id"].(string)
	w.must(t, w.operator, "POST", "/v1/accounts/"+staff+"/grants", object{"role": "owner"})
	key := w.must(t, w.operator, "POST", "/v1/keys", object{"name": "instance", "account": staff, "permissions": []string{"admin"}})["secret"].(string)
	for _, target := range []string{"/v1/keys", "/v1/keys?account=" + x.account, "/v1/audit", "/v1/audit/export", "/v1/keys/" + x.key, "/v1/keys?organization=" + x.org, "/v1/accounts/" + x.account} {
		a := w.send(t, request{key: key, method: "GET", target: target})
		if a.status != http.StatusForbidden && a.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", target, a.status, a.raw)
		}
	}
	if got := w.all(t, key, "/v1/organizations"); len(got) != 0 {
		t.Errorf("it sees %v", got)
	}
}
