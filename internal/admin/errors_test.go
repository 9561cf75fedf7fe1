package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"keygate/internal/keys"
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

// The bound is exact: huma's own refuses a body of just that size.
func TestBodyOfTheLargestSize(t *testing.T) {
	t.Parallel()
	in := start(t)
	b := `{"name":"a"}`
	b += strings.Repeat(" ", maxBody-len(b))
	in.must(http.StatusCreated, "POST", "/v1/keys", b)
}

func TestAllowedMethods(t *testing.T) {
	t.Parallel()
	in := start(t)
	for target, want := range map[string]string{
		"/v1/keys":              "GET, HEAD, POST",
		"/v1/keys/key_1":        "DELETE, GET, HEAD, PATCH",
		"/v1/keys/key_1/pause":  "POST",
		"/v1/organizations/abc": "DELETE, GET, HEAD, PATCH",
		SpecPath:                "GET, HEAD",
	} {
		for _, method := range []string{"PUT", "OPTIONS", "TRACE", "BREW"} {
			r := in.must(http.StatusMethodNotAllowed, method, target, nil)
			if got := r.header.Get("Allow"); got != want {
				t.Errorf("%s %s: Allow %q, want %q", method, target, got, want)
			}
		}
	}
}

func TestPlanKeysUsedUp(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "acme"})
	var last Key
	for i := range 5 {
		last = into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: fmt.Sprint("k", i), Organization: "acme"})).Key
	}
	p := in.must(http.StatusConflict, "POST", "/v1/keys", NewKey{Name: "sixth", Organization: "acme"}).problem(t)
	if p.Error != "Conflict" || !strings.Contains(p.Detail, "may have 5 keys that are active or paused") || !strings.Contains(p.Detail, "revoke or delete") {
		t.Errorf("%+v", p)
	}
	in.must(http.StatusOK, "POST", "/v1/keys/"+last.ID+"/revoke", nil)
	in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "sixth", Organization: "acme"})
}

func TestOwnLimit(t *testing.T) {
	t.Parallel()
	in := start(t)
	var asked []string
	in.allow = func(id string) (bool, time.Duration) {
		asked = append(asked, id)
		return false, 1001 * time.Millisecond
	}
	r := in.must(http.StatusTooManyRequests, "GET", "/v1/keys", nil)
	p := r.problem(t)
	if r.header.Get("Retry-After") != "2" || p.Error != "Rate limit exceeded" || p.Type != problem.TypeQuotaExceeded || !slices.Equal(p.ViolatedPolicies, []string{"management"}) {
		t.Errorf("Retry-After %q, %s", r.header.Get("Retry-After"), r.body)
	}
	if len(asked) != 1 || !strings.HasPrefix(asked[0], "key_") {
		t.Errorf("asked for %v, want the key's id", asked)
	}
	in.as("", "GET", "/v1/keys", nil)
	in.do("GET", "/v1/nothing", nil)
	if len(asked) != 1 {
		t.Error("a request that does nothing was counted")
	}
}

func TestStoreFailure(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must(http.StatusOK, "GET", "/v1/keys", nil) // the key is in the cache now
	in.logs.TakeAll()
	in.store.Close()
	for _, target := range []string{"/v1/keys", "/v1/organizations", "/v1/spaces?organization=default"} {
		r := in.must(http.StatusServiceUnavailable, "GET", target, nil)
		p := r.problem(t)
		if p.Error != "Temporarily unavailable" || r.header.Get("Retry-After") == "" || strings.Contains(p.Detail, "sql") {
			t.Errorf("%s: %s", target, r.body)
		}
		entries := in.logs.TakeAll()
		if len(entries) != 1 || entries[0].Level != zap.ErrorLevel || entries[0].ContextMap()["error"] == nil || entries[0].ContextMap()["request_id"] != p.RequestID {
			t.Errorf("%s: the log has %+v", target, entries)
		}
	}
	// A key that is not cached cannot be checked.
	if r := in.as(in.format.Generate(), "GET", "/v1/keys", nil); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestContextErrorsAreUnavailability(t *testing.T) {
	t.Parallel()
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, fmt.Errorf("store: %w", context.DeadlineExceeded), errors.New("disk I/O error")} {
		c := &call{id: requestID()}
		if f := c.fail(err); f.Status != http.StatusServiceUnavailable || !errors.Is(c.err, err) || strings.Contains(f.Detail, err.Error()) {
			t.Errorf("%v: %+v", err, f.Problem)
		}
	}
	c := &call{id: requestID()}
	if f := c.fail(keys.ErrConflict); f.Status != http.StatusConflict || c.err != nil {
		t.Errorf("%+v", f.Problem)
	}
	if f := c.fail(keys.ErrNotFound); f.Status != http.StatusNotFound || c.err != nil {
		t.Errorf("%+v", f.Problem)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.allow = func(string) (bool, time.Duration) { panic("boom: secret detail") }
	p := in.must(http.StatusInternalServerError, "GET", "/v1/keys", nil).problem(t)
	if p.Error != "Internal error" || strings.Contains(p.Detail, "boom") {
		t.Errorf("%+v", p)
	}
	if got := in.logs.FilterMessage("management request panicked").Len(); got != 1 {
		t.Errorf("%d log lines about the panic", got)
	}
}

func TestLogLineHasNoSecret(t *testing.T) {
	t.Parallel()
	in := start(t)
	created := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a"}))
	in.do("GET", "/v1/keys?name=private-value", nil)
	for _, e := range in.logs.All() {
		line, err := json.Marshal(e.ContextMap())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{in.key, created.Secret, "private-value"} {
			if bytes.Contains(line, []byte(secret)) {
				t.Errorf("the log holds %q: %s", secret, line)
			}
		}
	}
	last := in.logs.All()[in.logs.Len()-1].ContextMap()
	if last["http.route"] != "GET /v1/keys" || last["http.response.status_code"] != int64(200) || last["client.address"] != "127.0.0.1" || last["key_id"] == nil {
		t.Errorf("log line %v", last)
	}
}

// failingWriter is a client that is gone.
type failingWriter struct{ *httptest.ResponseRecorder }

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

// huma panics where an answer cannot be written; a client that hung up is no
// reason for a stack trace in the log.
func TestClientThatHungUp(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/keys", nil)
	r.Header.Set("Authorization", "Bearer "+in.key)
	in.handler.ServeHTTP(failingWriter{httptest.NewRecorder()}, r)
	for _, e := range in.logs.All() {
		if e.Level >= zap.WarnLevel {
			t.Errorf("%s %v", e.Message, e.ContextMap())
		}
	}
}

// TestExpiryBeyondFourDigits: the audit log cannot write such a time, and the
// request ended in a panic.
func TestExpiryBeyondFourDigits(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, expires := range []string{"9999-12-31", "9999-12-31T23:59:59-01:00"} {
		r := in.do("POST", "/v1/keys", NewKey{Name: "a", Expires: expires})
		if p := r.problem(t); r.status != 422 || !strings.Contains(p.Detail, "year 10000") {
			t.Errorf("%s: %d %s", expires, r.status, r.body)
		}
	}
	in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a", Expires: "9999-12-30"})
}

// TestEmailIsText: it was the one text of a record that nothing bounded.
func TestEmailIsText(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, email := range []string{"a@example.com\r\nBcc: b@example.com", "\x1b[31m@example.com", strings.Repeat("a", 250) + "@b.ch"} {
		r := in.do("POST", "/v1/accounts", NewAccount{Name: "a", Organization: "default", Role: "viewer", Email: email})
		if p := r.problem(t); r.status != 422 || len(p.Errors) != 1 || p.Errors[0].Field != "email" {
			t.Errorf("%q: %d %s", email, r.status, r.body)
		}
	}
}

// TestSecretTakenForAnID: somebody who asks for a key by its secret must not
// find the secret in the log.
func TestSecretTakenForAnID(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("GET", "/v1/keys/"+in.key, nil)
	for _, entry := range in.logs.All() {
		if strings.Contains(fmt.Sprint(entry.ContextMap()), in.key) {
			t.Errorf("logged %v", entry.ContextMap())
		}
	}
}

// TestPausedAdministrator: with the only administrator's key paused, no secret
// that the operator chose would work any more, and nothing said so.
func TestPausedAdministrator(t *testing.T) {
	t.Parallel()
	in := start(t)
	page := into[Page[Key]](t, in.must(http.StatusOK, "GET", "/v1/keys?name=administrator", nil))
	in.must(http.StatusOK, "POST", "/v1/keys/"+page.Items[0].ID+"/pause", nil)

	b, err := in.service.Bootstrap(t.Context(), keys.BootstrapOptions{Secret: in.key})
	if err != nil || !strings.Contains(b.Warning, "paused") {
		t.Errorf("the same secret: %q, %v; want a warning", b.Warning, err)
	}
	in.key = in.format.Generate()
	if b, err := in.service.Bootstrap(t.Context(), keys.BootstrapOptions{Secret: in.key}); err != nil || b.Warning != "" {
		t.Errorf("another secret: %q, %v", b.Warning, err)
	}
	in.must(http.StatusOK, "GET", "/v1/keys", nil)
}

// Whoever created something at an account, space or organization that somebody
// else deleted at the same moment read 404, which no creation documents, and for
// a space even that a space of the new name does not exist.
func TestCreatedAtWhatIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, tt := range []struct {
		name, target string
		make         func(org, account string) any
	}{
		{"key", "/v1/keys", func(_, account string) any { return NewKey{Name: "a", Account: account} }},
		{"space", "/v1/spaces", func(org, _ string) any { return NewSpace{Slug: "a", Organization: org} }},
		{"account", "/v1/accounts", func(org, _ string) any { return NewAccount{Name: "a", Organization: org, Role: "owner"} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			org := into[Organization](t, in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "of-" + tt.name}))
			account := into[Account](t, in.must(http.StatusCreated, "POST", "/v1/accounts", NewAccount{Name: "a", Organization: org.ID, Role: "owner"}))
			in.meanwhile = func() {
				in.must(http.StatusNoContent, "DELETE", "/v1/accounts/"+account.ID, nil)
				in.must(http.StatusNoContent, "DELETE", "/v1/organizations/"+org.ID, nil)
			}
			p := into[problem.Problem](t, in.must(http.StatusConflict, "POST", tt.target, tt.make(org.ID, account.ID)))
			if p.Error != "Conflict" || !strings.HasPrefix(p.Detail, "Something that the request refers to was deleted") {
				t.Errorf("%+v", p)
			}
		})
	}
}
