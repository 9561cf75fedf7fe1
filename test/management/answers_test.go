package management

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What the model found, told by itself.

// TestWhoMayNotIsToldSo: a caller that may not change a thing hears that, not which
// fields or which version would have been right.
func TestWhoMayNotIsToldSo(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	stale := map[string]string{"If-Match": `"99"`}
	for _, q := range []request{
		{method: "POST", target: "/v1/accounts", body: object{"name": "", "role": "nobody"}},
		{method: "POST", target: "/v1/accounts/" + x.weakAccount + "/grants", body: object{"role": "nobody", "space": "nowhere"}},
		{method: "PATCH", target: "/v1/organizations/" + x.slug, body: object{"name": "Acme"}, header: stale},
		{method: "PATCH", target: "/v1/organizations/" + x.slug, body: object{"plan": "small"}, header: stale},
		{method: "DELETE", target: "/v1/organizations/" + x.slug, header: stale},
	} {
		q.key = x.keys["writer"]
		if a := w.send(t, q); a.status != 403 {
			t.Errorf("%s %s %v: %d %s", q.method, q.target, q.body, a.status, a.raw)
		}
	}
	if a := w.send(t, request{key: w.operator, method: "DELETE", target: "/v1/organizations/" + x.slug, header: stale}); a.status != 412 {
		t.Errorf("an operator's stale deletion: %d %s", a.status, a.raw)
	}
}

// TestRotationOfAKeyImportedAfterItsEnd: without the date of its creation nobody
// knows how long it lived. It was rotated into the past and given a secret that
// never worked.
func TestRotationOfAKeyImportedAfterItsEnd(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	sum := sha256.Sum256([]byte(w.format.Generate()))
	report := w.must(t, w.operator, "POST", "/v1/keys/import", object{"keys": []object{{
		"name": "old", "organization": x.slug, "hash": hex.EncodeToString(sum[:]), "status": "expired", "expires": c.now().Add(-time.Hour).UTC().Format(time.RFC3339),
	}}})
	rotate := "/v1/keys/" + report["items"].([]any)[0].(object)["id"].(string) + "/rotate"
	if a := w.send(t, request{key: w.operator, method: "POST", target: rotate}); a.status != 422 || !strings.Contains(string(a.raw), `"#/expires"`) {
		t.Errorf("without an expiry: %d %s", a.status, a.raw)
	}
	if got := w.must(t, w.operator, "POST", rotate, object{"expires": "30d"}); got["status"] != "active" {
		t.Errorf("with an expiry: %v", got)
	}
}

// TestKeyOutOfForceHoldsNothing: the test of a key that does not work said of a
// permission that the key held it, beside scopes that were none.
func TestKeyOutOfForceHoldsNothing(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	held := func() bool {
		got := w.must(t, w.operator, "POST", "/v1/keys/"+x.key+"/test", object{"permission": "orders:read"})
		return got["permission"].(object)["held"].(bool)
	}
	if !held() {
		t.Error("a key in force holds nothing")
	}
	w.must(t, w.operator, "POST", "/v1/keys/"+x.key+"/pause", nil)
	if held() {
		t.Error("a paused key holds something")
	}
}

// TestRepeatedRequestThatChangedNothing: a client repeats its pause of a key that
// was paused already, after somebody resumed it. It was paused anew. An import that
// was repeated told of each key that it existed.
func TestRepeatedRequestThatChangedNothing(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	key := "/v1/keys/" + x.key
	w.must(t, w.operator, "POST", key+"/pause", nil)
	named := request{key: w.operator, method: "POST", target: key + "/pause", header: map[string]string{"Idempotency-Key": "pause"}}
	first := w.send(t, named)
	w.must(t, w.operator, "POST", key+"/resume", nil)
	again := w.send(t, named)
	if first.status != 200 || again.status != 200 || again.object(t)["replayed"] != true || again.object(t)["status"] != "paused" {
		t.Errorf("%d %s\nthen %d %s", first.status, first.raw, again.status, again.raw)
	}
	if got := w.must(t, w.operator, "GET", key, nil)["status"]; got != "active" {
		t.Errorf("the key is %s", got)
	}

	sum := sha256.Sum256([]byte(w.format.Generate()))
	named = request{
		key: w.operator, method: "POST", target: "/v1/keys/import", header: map[string]string{"Idempotency-Key": "import"},
		body: object{"keys": []object{{"name": "old", "organization": x.slug, "hash": hex.EncodeToString(sum[:])}}},
	}
	one, two := w.send(t, named).object(t), w.send(t, named).object(t)
	if one["imported"] != 1.0 || two["imported"] != 1.0 || two["replayed"] != true {
		t.Errorf("%v\nthen %v", one, two)
	}
	if got := w.all(t, w.operator, "/v1/keys?name=old"); len(got) != 1 {
		t.Errorf("%d keys were imported", len(got))
	}
}

// TestRevocationAboveThePlan: a key that has expired can be revoked though the plan
// has become too small. It was refused as if it came back to life.
func TestRevocationAboveThePlan(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	brief := x.newKey(t, w, object{"name": "brief", "expires": "1d"})["id"].(string)
	c.advance(25 * time.Hour)
	w.must(t, w.operator, "PATCH", "/v1/organizations/"+x.slug, object{"plan": "none"})
	if a := w.send(t, request{key: w.operator, method: "POST", target: "/v1/keys/" + brief + "/rotate"}); a.status != 409 {
		t.Errorf("rotated: %d %s", a.status, a.raw)
	}
	if got := w.must(t, w.operator, "POST", "/v1/keys/"+brief+"/revoke", nil); got["status"] != "revoked" {
		t.Errorf("revoked: %v", got)
	}
}

// TestDeletedAccountOfAGuest: deleting an account took away what it held at other
// organizations, of which neither the one that deleted it knew nor the other's
// audit log told.
func TestDeletedAccountOfAGuest(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	home, host := newTenant(t, w, "acme"), newTenant(t, w, "globex")
	guest := w.must(t, w.operator, "POST", "/v1/accounts", object{"name": "guest", "organization": home.slug, "role": "owner"})["id"].(string)
	w.must(t, w.operator, "POST", "/v1/accounts/"+guest+"/grants", object{"organization": host.slug, "role": "owner"})
	q := request{key: home.keys["owner"], method: "DELETE", target: "/v1/accounts/" + guest}
	if a := w.send(t, q); a.status != 409 || strings.Contains(string(a.raw), host.slug) || strings.Contains(string(a.raw), host.org) {
		t.Fatalf("by its own organization: %d %s", a.status, a.raw)
	}
	if got := w.must(t, w.operator, "GET", "/v1/accounts/"+guest, nil); len(got["grants"].([]any)) != 2 {
		t.Fatalf("then it holds %v", got["grants"])
	}
	q.key = w.operator
	if a := w.send(t, q); a.status != 204 {
		t.Fatalf("by an operator: %d %s", a.status, a.raw)
	}
	for _, x := range []struct{ slug, action, other string }{{host.slug, "grant.remove", home.org}, {home.slug, "account.delete", host.org}} {
		entries := w.must(t, w.operator, "GET", "/v1/audit?organization="+x.slug+"&target="+guest, nil)["items"].([]any)
		newest := entries[0].(object)
		if newest["action"] != x.action || strings.Contains(fmt.Sprint(newest), x.other) {
			t.Errorf("the log of %s ends with %v", x.slug, newest)
		}
	}
}
