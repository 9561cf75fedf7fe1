package management

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// tenant is an organization with things of every kind, all named after it.
type tenant struct {
	org, slug         string
	space, spaceSlug  string            // to which keys are restricted
	other, otherSlug  string            // another space
	account, grant    string            // holds the role owner
	weakAccount       string            // holds the role viewer
	key, name, secret string            // a plain key, restricted to nothing
	elsewhere         string            // a key that is restricted to the other space
	cursors           map[string]string // of the lists that its owner sees
	keys              map[string]string
	ids               map[string]string // of the keys
}

// newTenant makes a tenant; its keys are called after what they may do.
func newTenant(t failer, w *world, slug string) *tenant {
	t.Helper()
	op := w.operator
	x := &tenant{slug: slug, spaceSlug: slug + "-north", otherSlug: slug + "-south", name: slug + "-plain-key", keys: map[string]string{}, ids: map[string]string{}}
	x.org = w.must(t, op, "POST", "/v1/organizations", object{"slug": slug, "plan": "wide"})["id"].(string)
	x.space = w.must(t, op, "POST", "/v1/spaces", object{"organization": slug, "slug": x.spaceSlug})["id"].(string)
	x.other = w.must(t, op, "POST", "/v1/spaces", object{"organization": slug, "slug": x.otherSlug})["id"].(string)
	owner := w.must(t, op, "POST", "/v1/accounts", object{"name": slug + "-owner", "organization": slug, "role": "owner"})
	x.account = owner["id"].(string)
	x.grant = owner["grants"].([]any)[0].(object)["id"].(string)
	x.weakAccount = w.must(t, op, "POST", "/v1/accounts", object{"name": slug + "-viewer", "organization": slug, "role": "viewer"})["id"].(string)
	plain := x.newKey(t, w, object{"name": x.name, "permissions": []string{"orders:read"}})
	x.key, x.secret = plain["id"].(string), plain["secret"].(string)
	x.elsewhere = x.newKey(t, w, object{"name": slug + "-south-key", "space": x.other})["id"].(string)
	for name, body := range map[string]object{
		"owner":      {"permissions": []string{"admin"}},
		"reader":     {"permissions": []string{"keygate:keys-read"}},
		"writer":     {"permissions": []string{"keygate:keys-write", "keygate:keys-read", "orders:read"}},
		"members":    {"permissions": []string{"keygate:members", "orders:read"}},
		"auditor":    {"permissions": []string{"keygate:audit"}},
		"restricted": {"permissions": []string{"admin"}, "space": x.space},
	} {
		body["name"] = slug + "-" + name
		made := x.newKey(t, w, body)
		x.keys[name], x.ids[name] = made["secret"].(string), made["id"].(string)
	}
	x.cursors = map[string]string{"/v1/organizations": cursorOf("organizations", x.org)}
	for _, list := range []string{"/v1/keys", "/v1/spaces", "/v1/accounts", "/v1/audit"} {
		x.cursors[list] = w.must(t, x.keys["owner"], "GET", list+"?limit=1", nil)["next"].(string)
	}
	return x
}

func (x *tenant) newKey(t failer, w *world, body object) object {
	t.Helper()
	body["organization"], body["account"] = x.slug, x.account
	return w.must(t, w.operator, "POST", "/v1/keys", body)
}

// refs are the names by which one may ask for a tenant's things.
func (x *tenant) refs() refs {
	return refs{
		org: x.org, slug: x.slug, space: x.space, spaceSlug: x.spaceSlug, account: x.account, grant: x.grant,
		key: x.key, name: x.name, secret: x.secret, actor: x.ids["owner"],
		cursors: x.cursors,
	}
}

type refs struct {
	org, slug, space, spaceSlug, account, grant, key, name, secret, actor string
	cursors                                                               map[string]string
}

// nobody's names have the form of those that exist.
func (w *world) nobody() refs {
	id := func(prefix string) string { return prefix + strings.Repeat("0", 31) + "7" }
	return refs{
		org: id("org_"), slug: "nobody", space: id("spc_"), spaceSlug: "nobody-north", account: id("acc_"), grant: id("grt_"),
		key: id("key_"), name: "nobody-plain-key", secret: w.format.Generate(), actor: "key_" + strings.Repeat("1", 32),
	}
}

// blank puts placeholders for the names, so that answers can be compared.
func (r refs) blank(s string) string {
	return strings.NewReplacer(
		r.org, "<org>", r.space, "<space>", r.account, "<account>", r.grant, "<grant>", r.key, "<key>", r.secret, "<secret>", r.actor, "<actor>",
		r.name, "<name>", r.spaceSlug, "<space-slug>", r.slug, "<slug>",
	).Replace(s)
}

// blank is an answer without what differs between any two requests.
func (a answer) blank(r refs) string {
	var o object
	text := string(a.raw)
	if json.Unmarshal(a.raw, &o) == nil {
		delete(o, "request_id")
		delete(o, "instance")
		b, _ := json.Marshal(o) // came from JSON
		text = string(b)
	}
	return fmt.Sprint(a.status, " ", a.header.Get("Content-Type"), " ", a.header.Get("ETag"), " ", a.header.Get("WWW-Authenticate"), " ", r.blank(text))
}

// snapshot is everything that the operator sees: records with their versions, and
// the audit log.
func (w *world) snapshot(t failer) string {
	t.Helper()
	var out strings.Builder
	note := func(path string) {
		a := w.send(t, request{key: w.operator, method: "GET", target: path})
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, a.status, a.raw)
		}
		fmt.Fprintf(&out, "%s %s %s", path, a.header.Get("ETag"), a.raw)
	}
	each := func(list, path, query string) {
		for _, item := range w.pages(t, w.operator, list, 200) {
			note(path + item["id"].(string) + query)
		}
	}
	each("/v1/accounts", "/v1/accounts/", "")
	for _, o := range w.pages(t, w.operator, "/v1/organizations", 200) {
		id := o["id"].(string)
		note("/v1/organizations/" + id)
		each("/v1/spaces?organization="+id, "/v1/spaces/", "?organization="+id)
		each("/v1/accounts?organization="+id, "/v1/accounts/", "")
	}
	each("/v1/keys", "/v1/keys/", "")
	note("/v1/audit/export")
	return out.String()
}

// operations reads the methods and paths of all operations from the description
// that is served, by their ids.
func (w *world) operations(t failer) map[string]string {
	t.Helper()
	var spec struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(w.send(t, request{method: "GET", target: "/v1/openapi.json"}).raw, &spec); err != nil {
		t.Fatalf("%v", err)
	}
	all := map[string]string{}
	for path, methods := range spec.Paths {
		for method, operation := range methods {
			all[operation.OperationID] = strings.ToUpper(method) + " " + path
		}
	}
	return all
}
