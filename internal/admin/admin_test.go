package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/internal/problem"
	"keygate/internal/store/sqlite"
)

// instance is a management API over a real store, with one operator's key.
type instance struct {
	t       *testing.T
	store   *sqlite.Store
	service *keys.Service
	handler http.Handler
	server  *httptest.Server
	logs    *observer.ObservedLogs
	format  keys.Format
	key     string // the operator's
	now     time.Time
	policy  *keys.Policy // in force
	// meanwhile, if set, happens once between what the service reads and what it
	// writes.
	meanwhile func()
	allow     func(keyID string) (bool, time.Duration)
	// asked is the last question to the gate, explained what it answers.
	asked     auth.Question
	explained auth.Explanation
}

var testStart = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

func testPolicy(t *testing.T) *keys.Policy {
	t.Helper()
	catalogue, err := keys.NewCatalogue([]keys.Permission{{Name: "orders:read"}, {Name: "orders:write"}})
	if err != nil {
		t.Fatal(err)
	}
	roles := keys.BuiltinRoles()
	roles["viewer"] = []string{"read:all"}
	return &keys.Policy{Catalogue: catalogue, Roles: roles, Plans: keys.BuiltinPlans(), DefaultPlan: keys.PlanFree}
}

func start(t *testing.T) *instance {
	t.Helper()
	in := &instance{t: t, now: testStart, allow: func(string) (bool, time.Duration) { return true, 0 }}
	clock := func() time.Time { return in.now }
	var err error
	if in.format, err = keys.NewFormat(keys.DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	if in.store, err = sqlite.Open(t.Context(), sqlite.Options{Dir: t.TempDir(), Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.store.Close() })
	in.policy = testPolicy(t)
	authenticator := auth.New(auth.Options{Store: in.store, Format: in.format, CacheKeys: 100, Now: clock})
	in.service = keys.NewService(keys.ServiceOptions{
		Store: &meddled{in.store, in}, Format: in.format, Policy: func() *keys.Policy { return in.policy },
		Changed: authenticator.Changed, Now: clock,
	})
	in.key = in.format.Generate()
	if _, err := in.service.Bootstrap(t.Context(), keys.BootstrapOptions{Secret: in.key}); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	in.logs = logs
	in.handler = New(Options{
		Auth: authenticator, Service: in.service, Policy: func() *keys.Policy { return in.policy }, Format: in.format,
		Realm: "keygate", Allow: func(id string) (bool, time.Duration) { return in.allow(id) },
		Replicas: func(context.Context) ([]keys.Replica, error) {
			return []keys.Replica{{ID: "rep_1", Name: "here", Version: "dev", Rules: 1, StartedAt: testStart, SeenAt: testStart, Limits: keys.LimitSigns{Lost: 2, Late: 3}}, {ID: "rep_2"}}, nil
		},
		Confirmed: func(context.Context, int64) ([]keys.Confirmation, error) {
			return []keys.Confirmation{{ID: "rep_1", Name: "here", Confirmed: true}}, nil
		},
		Explain: func(_ context.Context, q auth.Question) auth.Explanation { in.asked = q; return in.explained },
		Version: "dev", Log: zap.New(core), Now: clock,
	})
	in.server = httptest.NewServer(in.handler)
	t.Cleanup(in.server.Close)
	return in
}

// meddled is a store that others use too.
type meddled struct {
	keys.Store
	in *instance
}

func (m *meddled) Apply(ctx context.Context, change keys.Mutation) (keys.Applied, error) {
	if happens := m.in.meanwhile; happens != nil {
		m.in.meanwhile = nil
		happens()
	}
	return m.Store.Apply(ctx, change)
}

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) problem(t *testing.T) problem.Problem {
	t.Helper()
	var p problem.Problem
	if got := r.header.Get("Content-Type"); got != problem.ContentType {
		t.Errorf("Content-Type %q, want a problem; body: %s", got, r.body)
	}
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return p
}

func into[T any](t *testing.T, r reply) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return v
}

// do sends a request with the operator's key; a string is sent as it is.
func (in *instance) do(method, target string, body any) reply {
	in.t.Helper()
	return in.as(in.key, method, target, body)
}

func (in *instance) as(key, method, target string, body any) reply {
	in.t.Helper()
	r := in.request(method, target, body)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	return in.send(r)
}

func (in *instance) request(method, target string, body any) *http.Request {
	in.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			in.t.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(in.t.Context(), method, in.server.URL+target, reader)
	if err != nil {
		in.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (in *instance) send(r *http.Request) reply {
	in.t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		in.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

// must wants a status and returns the reply.
func (in *instance) must(status int, method, target string, body any) reply {
	in.t.Helper()
	r := in.do(method, target, body)
	if r.status != status {
		in.t.Fatalf("%s %s: %d, want %d: %s", method, target, r.status, status, r.body)
	}
	return r
}

func TestKeyLife(t *testing.T) {
	t.Parallel()
	in := start(t)
	created := in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{
		Name: "billing", Description: "Nightly.", Permissions: []string{"orders:read"}, AllowedCIDRs: []string{"192.0.2.7"}, Expires: "30d",
	})
	if got := created.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q: a secret must not be stored", got)
	}
	k := into[CreatedKey](t, created)
	if !in.format.Valid(k.Secret) {
		t.Errorf("secret %q is not well-formed", k.Secret)
	}
	if want := testStart.AddDate(0, 0, 30); !k.ExpiresAt.Equal(want) {
		t.Errorf("expires %v, want %v", k.ExpiresAt, want)
	}
	if k.Status != "active" || k.AllowedCIDRs[0] != "192.0.2.7/32" || k.Prefix != "kg_live" || k.LastFour != k.Secret[len(k.Secret)-4:] {
		t.Errorf("created %+v", k)
	}
	for _, field := range []string{"space", "plan", "paused_at", "revoked_at", "last_used_at", "rotated_at"} {
		if strings.Contains(string(created.body), `"`+field+`"`) {
			t.Errorf("%s is not set and must be left out: %s", field, created.body)
		}
	}

	path := "/v1/keys/" + k.ID
	got := in.must(http.StatusOK, "GET", path, nil)
	if strings.Contains(string(got.body), k.Secret) || strings.Contains(string(got.body), `"secret"`) {
		t.Errorf("the secret can be read again: %s", got.body)
	}
	in.now = in.now.Add(time.Minute)
	for _, step := range []struct{ verb, status string }{
		{"pause", "paused"}, {"pause", "paused"}, {"resume", "active"}, {"resume", "active"}, {"revoke", "revoked"}, {"revoke", "revoked"},
	} {
		if got := into[Key](t, in.must(http.StatusOK, "POST", path+"/"+step.verb, nil)); got.Status != step.status {
			t.Errorf("after %s: %s, want %s", step.verb, got.Status, step.status)
		}
	}
	for _, verb := range []string{"pause", "resume"} {
		p := in.must(http.StatusConflict, "POST", path+"/"+verb, nil).problem(t)
		if p.Error != "Conflict" || !strings.HasPrefix(p.Detail, "A key that is revoked cannot be ") {
			t.Errorf("%s of a revoked key: %+v", verb, p)
		}
	}
	if r := in.must(http.StatusNoContent, "DELETE", path, nil); len(r.body) != 0 || r.header.Get("Content-Type") != "" {
		t.Errorf("204 with a body, or the type of one: %q %s", r.header.Get("Content-Type"), r.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if p := in.must(http.StatusNotFound, method, path, nil).problem(t); !strings.Contains(p.Detail, k.ID) {
			t.Errorf("%s of a deleted key: %q", method, p.Detail)
		}
	}
	if p := in.must(http.StatusNotFound, "POST", path+"/revoke", nil).problem(t); p.Error != "Not found" {
		t.Errorf("%+v", p)
	}
}

func TestAuditEntryNamesWhoAskedFromWhere(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.request("POST", "/v1/keys", NewKey{Name: "a"})
	r.Header.Set("Authorization", "Bearer "+in.key)
	r.Header.Set("X-Request-Id", "chosen-by-the-client")
	created := in.send(r)
	id := created.header.Get("X-Request-Id")
	log, err := in.store.AuditLog(context.Background(), keys.AuditFilter{}, keys.Page{Limit: 1})
	if err != nil || len(log.Entries) != 1 {
		t.Fatal(log, err)
	}
	e := log.Entries[0]
	if e.RequestID != id || id == "chosen-by-the-client" || len(id) != 36 || id[14] != '7' {
		t.Errorf("request id %q in the answer, %q in the audit log; want one UUIDv7 of ours", id, e.RequestID)
	}
	if e.Address != "127.0.0.1" || !strings.HasPrefix(e.Actor, "key_") || e.ActorAccount == "" || e.Action != "key.create" {
		t.Errorf("audit entry %+v", e)
	}
}
