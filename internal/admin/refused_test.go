package admin

import (
	"net/http"
	"strings"
	"testing"

	"keygate/internal/problem"
)

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "acme"})
	type wrong = problem.FieldError
	long := strings.Repeat("x", 101)
	for _, tc := range []struct {
		name, method, target string
		body                 any
		contentType          string
		status               int
		error                string
		detail               string // a part of it
		errors               []wrong
	}{
		{name: "unknown path", method: "GET", target: "/v1/nothing", status: 404, error: "Not found", detail: SpecPath},
		{name: "trailing slash", method: "GET", target: "/v1/keys/", status: 404, error: "Not found"},
		{name: "empty segment", method: "GET", target: "/v1//keys", status: 404, error: "Not found"},
		{name: "dot segment", method: "GET", target: "/v1/x/../keys", status: 404, error: "Not found"},
		{name: "unknown key", method: "GET", target: "/v1/keys/key_1", status: 404, error: "Not found", detail: `No key has the id "key_1".`},
		{name: "encoded id", method: "GET", target: "/v1/keys/..%2Fkeys", status: 404, error: "Not found"},
		{name: "control characters are escaped", method: "GET", target: "/v1/keys/%1B%5B2J", status: 404, error: "Not found", detail: `"\x1b[2J"`},
		{name: "a long id is not repeated", method: "GET", target: "/v1/keys/" + long, status: 404, error: "Not found", detail: "No key has this id."},
		{name: "unknown organization", method: "GET", target: "/v1/organizations/nope", status: 404, error: "Not found", detail: `No organization has the id or slug "nope".`},
		{name: "filter by an unknown organization", method: "GET", target: "/v1/keys?organization=nope", status: 404, error: "Not found"},
		{name: "method", method: "PUT", target: "/v1/keys", status: 405, error: "Method not allowed", detail: "GET, HEAD, POST"},
		{name: "not JSON", method: "POST", target: "/v1/keys", body: `{"name":`, status: 400, error: "Malformed request", detail: "at byte 8"},
		{name: "trailing data", method: "POST", target: "/v1/keys", body: `{"name":"a"} {}`, status: 400, error: "Malformed request"},
		{name: "no body", method: "POST", target: "/v1/keys", body: ``, status: 400, error: "Malformed request", detail: "no body"},
		{name: "form", method: "POST", target: "/v1/keys", body: `name=a`, contentType: "application/x-www-form-urlencoded", status: 415, error: "Unsupported media type", detail: "application/json"},
		{name: "JSON of a kind", method: "POST", target: "/v1/keys", body: `{"name":"a"}`, contentType: "application/merge-patch+json", status: 415, error: "Unsupported media type"},
		{name: "too large", method: "POST", target: "/v1/keys", body: `{"name":"` + strings.Repeat("a", maxBody) + `"}`, status: 413, error: "Request body too large", detail: "1048576"},
		{
			name: "a list for a body", method: "POST", target: "/v1/keys", body: `[]`, status: 422, error: "Invalid input",
			errors: []wrong{{Pointer: "#", Field: "the body", Detail: "must be a JSON object"}},
		},
		{
			name: "unknown fields and wrong types, all at once", method: "POST", target: "/v1/keys",
			body: `{"name":1,"permissions":["a",2],"colour":"red","allowed_cidrs":"x"}`, status: 422, error: "Invalid input",
			errors: []wrong{
				{Pointer: "#/allowed_cidrs", Field: "allowed_cidrs", Detail: "must be a list"},
				{Pointer: "#/colour", Field: "colour", Detail: "is not a field of this request"},
				{Pointer: "#/name", Field: "name", Detail: "must be a string"},
				{Pointer: "#/permissions/1", Field: "permissions[1]", Detail: "must be a string"},
			},
		},
		{
			name: "name is required", method: "POST", target: "/v1/keys", body: `{}`, status: 422, error: "Invalid input", detail: "name: is required.",
			errors: []wrong{{Pointer: "#/name", Field: "name", Detail: "is required"}},
		},
		{
			name: "a name that stands twice", method: "POST", target: "/v1/keys", body: `{"name":"a","name":"b"}`, status: 422, error: "Invalid input",
			errors: []wrong{{Pointer: "#/name", Field: "name", Detail: "stands twice in the body"}},
		},
		{
			// It was taken for a field that is left out, and the edit answered as if it
			// had been made: the key still expired.
			name: "null", method: "PATCH", target: "/v1/keys/key_1", body: `{"expires":null,"overrides":{"limits":[null]}}`, status: 422, error: "Invalid input",
			errors: []wrong{
				{Pointer: "#/expires", Field: "expires", Detail: "is null: leave it out, or give it a value"},
				{Pointer: "#/overrides/limits/0", Field: "overrides.limits[0]", Detail: "is null: leave it out, or give it a value"},
			},
		},
		{
			name: "a name in another case", method: "POST", target: "/v1/keys", body: `{"name":"a","Plan":"pro"}`, status: 422, error: "Invalid input",
			errors: []wrong{{Pointer: "#/Plan", Field: "Plan", Detail: "is not a field of this request: names are in lower case"}},
		},
		{
			name: "an endless name", method: "POST", target: "/v1/keys", body: `{"` + long + `":1}`, status: 422, error: "Invalid input",
			errors: []wrong{{Pointer: "#", Field: "the body", Detail: "has a field whose name is too long"}},
		},
		{
			name: "the domain explains", method: "POST", target: "/v1/keys", status: 422, error: "Invalid input",
			body: NewKey{Name: " ", AllowedCIDRs: []string{"192.0.2.1", "x"}, Expires: "soon", Plan: "gold", Permissions: []string{"nope:read", "keygate:key-read"}},
			errors: []wrong{
				{Pointer: "#/allowed_cidrs/1", Field: "allowed_cidrs[1]", Detail: `must be an address such as`},
				{Pointer: "#/name", Field: "name", Detail: "must not be empty"},
				{Pointer: "#/plan", Field: "plan", Detail: `is not a plan of the policy; there are enterprise, free, pro, starter (given: "gold")`},
				{Pointer: "#/permissions/0", Field: "permissions[0]", Detail: `names "nope:read", which is not in the catalogue`},
				{Pointer: "#/permissions/1", Field: "permissions[1]", Detail: `names "keygate:key-read", which is not in the catalogue; did you mean "keygate:keys-read"?`},
				{Pointer: "#/expires", Field: "expires", Detail: `must be "never"`},
			},
		},
		{
			name: "unknown organization in a body", method: "POST", target: "/v1/spaces", body: NewSpace{Organization: "nope", Slug: "a"}, status: 422, error: "Invalid input",
			errors: []wrong{{Pointer: "#/organization", Field: "organization", Detail: `no organization has this id or slug (given: "nope")`}},
		},
		{
			name: "unknown role and space", method: "POST", target: "/v1/accounts", status: 422, error: "Invalid input",
			body: NewAccount{Name: "a", Organization: "acme", Role: "king", Space: "moon"},
			errors: []wrong{
				{Pointer: "#/space", Field: "space", Detail: `the organization has no space with this id or slug (given: "moon")`},
				{Pointer: "#/role", Field: "role", Detail: `is not a role of the policy`},
			},
		},
		{
			name: "misspelt permission of an account", method: "POST", target: "/v1/accounts", status: 422, error: "Invalid input",
			body:   NewAccount{Name: "a", Organization: "acme", Permission: "keygate:member"},
			errors: []wrong{{Pointer: "#/permission", Field: "permission", Detail: `names "keygate:member", which is not in the catalogue; did you mean "keygate:members"?`}},
		},
		{
			name: "limit", method: "GET", target: "/v1/keys?limit=201", status: 422, error: "Invalid input",
			errors: []wrong{{Field: "limit", Detail: "must be 200 or less"}},
		},
		{
			name: "limit of none", method: "GET", target: "/v1/keys?limit=0", status: 422, error: "Invalid input",
			errors: []wrong{{Field: "limit", Detail: "must be 1 or more"}},
		},
		{
			name: "limit in words", method: "GET", target: "/v1/organizations?limit=ten", status: 422, error: "Invalid input",
			errors: []wrong{{Field: "limit", Detail: "must be a whole number"}},
		},
		{
			name: "cursor", method: "GET", target: "/v1/keys?cursor=key_1", status: 422, error: "Invalid input",
			errors: []wrong{{Field: "cursor", Detail: "is not a cursor of this list"}},
		},
		{
			name: "unknown parameter", method: "GET", target: "/v1/keys?colour=red", status: 422, error: "Invalid input",
			errors: []wrong{{Field: "colour", Detail: "is not a parameter of this operation"}},
		},
		{
			name: "spaces of no organization", method: "GET", target: "/v1/spaces", status: 422, error: "Invalid input",
			errors: []wrong{{Field: "organization", Detail: "is required"}},
		},
		{name: "slug taken", method: "POST", target: "/v1/organizations", body: NewOrganization{Slug: "acme"}, status: 409, error: "Conflict", detail: `Organization with slug "acme" exists already.`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := in.request(tc.method, tc.target, tc.body)
			r.Header.Set("Authorization", "Bearer "+in.key)
			if tc.contentType != "" {
				r.Header.Set("Content-Type", tc.contentType)
			}
			got := in.send(r)
			p := got.problem(t)
			if got.status != tc.status || p.Status != tc.status || p.Error != tc.error || p.Title != http.StatusText(tc.status) {
				t.Fatalf("%d %s; want %d %q", got.status, got.body, tc.status, tc.error)
			}
			if !strings.Contains(p.Detail, tc.detail) || p.Detail == "" {
				t.Errorf("detail %q, want %q in it", p.Detail, tc.detail)
			}
			if id := got.header.Get("X-Request-Id"); p.RequestID != id || p.Instance != "urn:uuid:"+id || id == "" {
				t.Errorf("request id %q, body %s", id, got.body)
			}
			if got := got.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control %q", got)
			}
			if len(p.Errors) != len(tc.errors) {
				t.Fatalf("errors %+v, want %+v", p.Errors, tc.errors)
			}
			for i, want := range tc.errors {
				if e := p.Errors[i]; e.Pointer != want.Pointer || e.Field != want.Field || !strings.HasPrefix(e.Detail, want.Detail) {
					t.Errorf("error %d: %+v, want %+v", i, e, want)
				}
			}
			if tc.status == http.StatusMethodNotAllowed && got.header.Get("Allow") != tc.detail {
				t.Errorf("Allow %q", got.header.Get("Allow"))
			}
		})
	}
	page := into[Page[Key]](t, in.must(http.StatusOK, "GET", "/v1/keys", nil))
	if len(page.Items) != 1 {
		t.Errorf("refused requests made keys: %+v", page.Items)
	}
}

// What a client says about a change is understood in one way, or refused.
func TestHeadersOfChanges(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a"}))
	one := "/v1/keys/" + k.ID
	for _, tc := range []struct {
		name, method, target string
		header               http.Header
		status               int
		detail               string
	}{
		{"a long name for a request", "POST", one + "/pause", http.Header{"Idempotency-Key": {strings.Repeat("a", 256)}}, 422, "1 to 255 characters"},
		{"no name for a request", "POST", one + "/pause", http.Header{"Idempotency-Key": {""}}, 422, "1 to 255 characters"},
		{"two names for a request", "POST", one + "/pause", http.Header{"Idempotency-Key": {"a", "b"}}, 422, "must stand once"},
		{"a name for an edit", "PATCH", one, http.Header{"Idempotency-Key": {"a"}}, 422, "understood with POST only"},
		{"a name for a deletion", "DELETE", one, http.Header{"Idempotency-Key": {"a"}}, 422, "understood with POST only"},
		{"the longest name for a request", "POST", one + "/pause", http.Header{"Idempotency-Key": {strings.Repeat("a", 255)}}, 200, ""},
		{"its name for another request", "POST", one + "/resume", http.Header{"Idempotency-Key": {strings.Repeat("a", 255)}}, 200, ""}, // of another operation
		{"several versions", "PATCH", one, http.Header{"If-Match": {`"1", "3"`}}, 422, "must be one ETag"},
		{"several headers", "PATCH", one, http.Header{"If-Match": {`"1"`, `"3"`}}, 422, "must be one ETag"},
		{"a weak tag", "PATCH", one, http.Header{"If-Match": {`W/"3"`}}, 422, "must be one ETag"},
		{"no tag", "PATCH", one, http.Header{"If-Match": {`3`}}, 422, "must be one ETag"},
		{"an old version", "PATCH", one, http.Header{"If-Match": {`"1"`}}, 412, `its version is "3"`},
		{"a version to come", "DELETE", one, http.Header{"If-Match": {`"4"`}}, 412, `its version is "3"`},
		{"any version", "PATCH", one, http.Header{"If-Match": {`*`}}, 200, ""},
	} {
		var body any
		if tc.method == "PATCH" {
			body = KeyEdit{Description: new(tc.name)}
		}
		r := in.request(tc.method, tc.target, body)
		for name, values := range tc.header {
			r.Header[name] = values
		}
		r.Header.Set("Authorization", "Bearer "+in.key)
		got := in.send(r)
		if got.status != tc.status || tc.detail != "" && !strings.Contains(got.problem(t).Detail, tc.detail) {
			t.Errorf("%s: %d %s", tc.name, got.status, got.body)
		}
	}
}
