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

// Each look into the store for a list takes Redis some milliseconds, and one request
// could be twenty: one key that searched a long audit log kept Redis from everybody.
func TestSearchesHaveABudget(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "acme", Plan: "enterprise"})
	org := into[Organization](t, in.must(http.StatusOK, "GET", "/v1/organizations/acme", nil))
	member := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a", Organization: "acme", Permissions: []string{"admin"}}))
	left := make(map[string]int)
	in.allow = func(holder string) (bool, time.Duration) {
		left[holder]--
		return left[holder] >= 0, 10 * time.Millisecond
	}
	own, shared := member.ID, "search of "+org.ID
	for _, list := range []string{"/v1/keys", "/v1/audit?action=key.pause", "/v1/audit/export"} {
		left = map[string]int{own: 2, shared: 1}
		if r := in.as(member.Secret, "GET", list, nil); r.status != http.StatusOK {
			t.Errorf("%s: %d %s", list, r.status, r.body)
		}
		left[shared] = 0
		r := in.as(member.Secret, "GET", list, nil)
		if p := r.problem(t); r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") != "1" || !slices.Equal(p.ViolatedPolicies, []string{"management"}) || p.Type != problem.TypeQuotaExceeded {
			t.Errorf("%s beyond the budget: %d %q %s", list, r.status, r.header.Get("Retry-After"), r.body)
		}
	}
	// An export that has begun waits for its turn.
	long := keys.Mutation{At: testStart}
	for i := range exportPage {
		long.Audit = append(long.Audit, keys.AuditEntry{ID: fmt.Sprintf("aud_%032x", i), At: testStart, Organization: org.ID})
	}
	if _, err := in.store.Apply(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	turns := 0
	in.allow = func(holder string) (bool, time.Duration) {
		if holder == shared {
			turns++
		}
		return holder != shared || turns%2 == 1, time.Millisecond
	}
	if r := in.as(member.Secret, "GET", "/v1/audit/export", nil); bytes.Count(r.body, []byte("\n")) <= exportPage || turns != 3 {
		t.Errorf("%d lines in %d turns", bytes.Count(r.body, []byte("\n")), turns)
	}
	// What is used up in the middle of a page ends the page, not the list.
	reads := 0
	page, err := fill(&handler{Options: Options{Allow: func(string) (bool, time.Duration) { return reads < 2, time.Second }}}, &call{}, "keys", PageQuery{Limit: 10},
		func(keys.Page) ([]int, string, error) { reads++; return []int{reads}, "more", nil }, func(i *int) int { return *i })
	if err != nil || !slices.Equal(page.Body.Items, []int{1, 2}) || page.Body.Next == "" {
		t.Errorf("%+v %v", page, err)
	}
}

// What a role gives of a large policy stood in one header, which a proxy in front of this
// API answered with 502.
func TestChallengeIsBounded(t *testing.T) {
	t.Parallel()
	var all []string
	for i := range 500 {
		all = append(all, fmt.Sprintf("resource-%d:read", i))
	}
	c := &call{id: requestID(), header: http.Header{}}
	p := c.forbidden(&keys.ForbiddenError{Required: all})
	challenge := c.header.Get("WWW-Authenticate")
	if len(challenge) > 1200 || !strings.HasSuffix(challenge, `:read"`) || !strings.Contains(challenge, `scope="resource-0:read resource-1:read `) || len(p.Required) != len(all) {
		t.Errorf("%d of %d in %q", len(p.Required), len(all), challenge)
	}
}

// A report repeated every mistake of every key twice: one of 600 KB of keys was 14 MB, and
// from 16 MiB on the Go client reads none, though keys were imported.
func TestReportIsBounded(t *testing.T) {
	t.Parallel()
	in := start(t)
	wrong := slices.Repeat([]string{"a:b"}, 100)
	batch := Import{Keys: make([]ImportedKey, 200)}
	for i := range batch.Keys {
		batch.Keys[i] = ImportedKey{NewKey: NewKey{Name: "a", Permissions: wrong}, Hash: fmt.Sprintf("%064x", i+1)}
	}
	r := in.must(http.StatusOK, "POST", "/v1/keys/import", batch)
	report := into[ImportReport](t, r)
	if item := report.Items[199]; report.Failed != 200 || len(item.Errors) != mostItemFields || !strings.HasSuffix(item.Detail, "and 97 more.") {
		t.Errorf("%d failed, the last one: %+v", report.Failed, item)
	}
	if most := 200 * 4096; len(r.body) > most {
		t.Errorf("a report of %d bytes, more than %d", len(r.body), most)
	}
}
