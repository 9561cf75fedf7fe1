package management

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A member who manages keys could make one for somebody else's account, or get a
// new secret of somebody else's key, and go on with it when its own roles were
// taken away. Only who manages the members may have the secrets of others.
func TestPlantedKeys(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	mal := w.must(t, w.operator, "POST", "/v1/accounts", object{"name": "mal", "organization": x.slug, "role": "viewer"})["id"].(string)
	w.must(t, w.operator, "POST", "/v1/accounts/"+mal+"/grants", object{"permission": "keygate:keys-write"})
	key := w.must(t, w.operator, "POST", "/v1/keys", object{
		"name": "mal", "organization": x.slug, "account": mal, "permissions": []string{"keygate:keys-write", "orders:read"},
	})["secret"].(string)
	for target, body := range map[string]object{
		"/v1/keys":                                {"name": "planted", "account": x.account, "permissions": []string{"orders:read"}},
		"/v1/keys/" + x.key + "/rotate":           {},
		"/v1/keys/" + x.ids["writer"] + "/rotate": {"overlap": "1h"},
	} {
		a := w.send(t, request{key: key, method: "POST", target: target, body: body})
		if a.status != http.StatusForbidden || strings.Contains(string(a.raw), "secret\"") {
			t.Errorf("POST %s: %d %s", target, a.status, a.raw)
		}
	}
	w.must(t, key, "POST", "/v1/keys", object{"name": "own", "permissions": []string{"orders:read"}})
	w.must(t, key, "POST", "/v1/keys/"+x.key+"/pause", nil) // looking after keys is another thing than having them
	w.must(t, x.keys["owner"], "POST", "/v1/keys", object{"name": "for mal", "account": mal, "permissions": []string{"orders:read"}})
}

// What the gate would not look for is not explained as if it worked, and who may
// not ask learns nothing about strings, whether they are keys or not.
func TestExplainedSecrets(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	x := newTenant(t, w, "acme")
	ask := func(by, secret string) answer {
		return w.send(t, request{key: by, method: "POST", target: "/v1/explain", body: object{"method": "GET", "path": "/", "key": secret}})
	}
	for _, secret := range []string{"garbage", w.format.Generate(), x.secret, x.keys["owner"]} {
		if a := ask(x.keys["auditor"], secret); a.status != http.StatusForbidden {
			t.Errorf("an auditor asks: %d %s", a.status, a.raw)
		}
	}
	if a := ask(x.keys["auditor"], x.keys["auditor"]); a.status != http.StatusOK {
		t.Errorf("a key asks about itself: %d %s", a.status, a.raw)
	}
	const foreign = "tok_0123456789abcdefghij"
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(foreign)))
	w.must(t, w.operator, "POST", "/v1/keys/import", object{"keys": []object{{"name": "old", "organization": x.slug, "hash": hash, "prefix": "tok_"}}})
	if a := ask(w.operator, foreign); !strings.Contains(string(a.raw), `"allowed":false`) {
		t.Errorf("of a form that is not declared: %d %s", a.status, a.raw)
	}
	id := w.all(t, w.operator, "/v1/keys?name=old")[0]["id"].(string)
	if got := w.must(t, w.operator, "POST", "/v1/keys/"+id+"/test", nil); got["works"] != false || !strings.Contains(got["detail"].(string), "form must be declared") {
		t.Errorf("%v", got)
	}
	w.must(t, w.operator, "POST", "/v1/keys/import", object{"form": object{"prefix": "tok_", "min": 20, "max": 40}, "keys": []object{}})
	w.settle(t)
	if a := ask(w.operator, foreign); !strings.Contains(string(a.raw), `"allowed":true`) {
		t.Errorf("of a declared form: %d %s", a.status, a.raw)
	}
	if got := w.must(t, w.operator, "POST", "/v1/keys/"+id+"/test", nil); got["works"] != true {
		t.Errorf("%v", got)
	}
}

// Keys for which no organization is named belong to "default", which therefore
// stays and keeps its name.
func TestDefaultOrganizationStays(t *testing.T) {
	c := &clock{at: time.Now().Truncate(time.Second)}
	w := newWorld(t, c, openSQLite(t)(c))
	t.Cleanup(w.end)
	for _, q := range []request{
		{key: w.operator, method: "DELETE", target: "/v1/organizations/default"},
		{key: w.operator, method: "PATCH", target: "/v1/organizations/default", body: object{"slug": "other"}},
	} {
		if a := w.send(t, q); a.status != http.StatusConflict {
			t.Errorf("%s: %d %s", q.method, a.status, a.raw)
		}
	}
	w.must(t, w.operator, "PATCH", "/v1/organizations/default", object{"name": "Ours", "slug": "default"})
	w.must(t, w.operator, "POST", "/v1/keys", object{"name": "x"})
}
