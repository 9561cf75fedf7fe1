package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/admin"
	"keygate/internal/keys"
	"keygate/internal/store/sqlite"
)

// instance is a management API over a real store.
type instance struct {
	t       *testing.T
	url     string
	key     string
	format  keys.Format
	service *keys.Service
	env     []string
}

func start(t *testing.T) *instance {
	t.Helper()
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), sqlite.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	catalogue, err := keys.NewCatalogue([]keys.Permission{{Name: "orders:read"}})
	if err != nil {
		t.Fatal(err)
	}
	policy := &keys.Policy{Catalogue: catalogue, Roles: keys.BuiltinRoles(), Plans: keys.BuiltinPlans(), DefaultPlan: keys.PlanFree}
	inForce := func() *keys.Policy { return policy }
	authenticator := auth.New(auth.Options{Store: store, Format: format, CacheKeys: 100, Now: time.Now})
	in := &instance{t: t, format: format, key: format.Generate()}
	in.service = keys.NewService(keys.ServiceOptions{Store: store, Format: format, Policy: inForce, Changed: authenticator.Changed, Now: time.Now})
	if _, err := in.service.Bootstrap(t.Context(), keys.BootstrapOptions{Secret: in.key}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(admin.New(admin.Options{
		Auth: authenticator, Service: in.service, Policy: inForce, Format: format, Realm: "keygate",
		Allow: func(string) (bool, time.Duration) { return true, 0 }, Replicas: func(context.Context) ([]keys.Replica, error) {
			return []keys.Replica{{ID: "rep_1", Name: "here", Limits: keys.LimitSigns{Lost: 2, Late: 13}}, {ID: "rep_2", Name: "there"}}, nil
		},
		Confirmed: func(context.Context, int64) ([]keys.Confirmation, error) {
			return []keys.Confirmation{{ID: "rep_1", Name: "here"}}, nil
		},
		Version: "test", Log: zap.NewNop(), Now: time.Now,
	}))
	t.Cleanup(server.Close)
	in.url = server.URL
	in.env = []string{"KEYGATE_ADMIN_URL=" + in.url, "KEYGATE_ADMIN_KEY=" + in.key}
	return in
}

// result is what a run left behind.
type result struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), args, env, strings.NewReader(""), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func (in *instance) run(args ...string) result {
	in.t.Helper()
	return run(in.t, in.env, args...)
}

// must wants success and nothing but data on stdout.
func (in *instance) must(args ...string) result {
	in.t.Helper()
	r := in.run(args...)
	if r.code != exitOK {
		in.t.Fatalf("keygate %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

func decoded[T any](t *testing.T, r result) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return v
}

func TestKeysCommands(t *testing.T) {
	t.Parallel()
	in := start(t)
	created := in.must("keys", "create", "--name", "billing", "--description", "Nightly.", "--permissions", "orders:read,read:all",
		"--allow-cidr", "192.0.2.0/24", "--allow-cidr", "::1", "--expires", "30d", "--plan", "pro", "-o", "json")
	k := decoded[struct {
		ID, Secret, Plan string
		Permissions      []string
		AllowedCIDRs     []string `json:"allowed_cidrs"`
	}](t, created)
	if !in.format.Valid(k.Secret) || !strings.HasPrefix(k.ID, "key_") || len(k.Permissions) != 2 || len(k.AllowedCIDRs) != 2 || k.Plan != "pro" {
		t.Errorf("%+v", k)
	}
	if created.stderr != "" {
		t.Errorf("stderr %q", created.stderr)
	}

	loose := decoded[admin.Key](t, in.must("keys", "create", "--name", "loose", "--permission", "orders:read, read:all", "--allow-cidr", "192.0.2.0/24, ::1", "-o", "json"))
	if len(loose.Permissions) != 2 || len(loose.AllowedCIDRs) != 2 {
		t.Errorf("%+v", loose)
	}
	in.must("keys", "delete", "loose", "--yes")
	table := in.must("keys", "create", "--name", "second")
	if !strings.Contains(table.stderr, "the organization default") || !strings.Contains(table.stderr, "no permissions") {
		t.Errorf("stderr %q", table.stderr)
	}
	secret := strings.Fields(table.stdout)[1]
	if !strings.HasPrefix(table.stdout, "Secret ") || !in.format.Valid(secret) || strings.Count(table.stdout, secret) != 1 {
		t.Errorf("stdout:\n%s", table.stdout)
	}
	if !strings.Contains(table.stderr, "not shown again") || strings.Contains(table.stderr, secret) {
		t.Errorf("stderr %q", table.stderr)
	}

	list := in.must("keys", "list")
	lines := strings.Split(strings.TrimSpace(list.stdout), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "ID ") || strings.Contains(list.stdout, secret) {
		t.Errorf("list:\n%s", list.stdout)
	}
	if got := decoded[[]admin.Key](t, in.must("keys", "list", "--organization", "default", "-o", "json")); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if got := decoded[[]admin.Key](t, in.must("keys", "list", "--limit", "1", "-o", "json")); len(got) != 1 || got[0].Name != "second" {
		t.Errorf("%+v", got)
	}
	if got := in.must("keys", "list", "--name", "nobody", "-o", "json").stdout; got != "[]\n" {
		t.Errorf("an empty list is %q", got)
	}

	for _, ref := range []string{k.ID, "billing"} {
		if got := decoded[admin.Key](t, in.must("keys", "get", ref, "-o", "json")); got.ID != k.ID {
			t.Errorf("get %s: %+v", ref, got)
		}
	}
	for _, step := range [][2]string{{"pause", "paused"}, {"resume", "active"}} {
		if got := decoded[admin.Key](t, in.must("keys", step[0], "billing", "-o", "json")); got.Status != step[1] {
			t.Errorf("%s: %+v", step[0], got)
		}
	}
	if got := in.must("keys", "revoke", k.ID, "--yes"); !strings.Contains(got.stdout, "revoked") {
		t.Errorf("revoke:\n%s", got.stdout)
	}
	if r := in.run("keys", "resume", k.ID); r.code != exitRefused || r.stderr != "keygate: Conflict: A key that is revoked cannot be resumed: create a new one.\n" || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	if r := in.must("keys", "delete", k.ID, "--yes"); r.stdout != "" || r.stderr != k.ID+" is deleted.\n" {
		t.Errorf("%+v", r)
	}
	for _, ref := range []string{k.ID, "billing"} {
		if r := in.run("keys", "get", ref); r.code != exitNotFound || !strings.Contains(r.stderr, ref) {
			t.Errorf("get %s: %+v", ref, r)
		}
	}

	in.must("keys", "create", "--name", "second")
	if r := in.run("keys", "pause", "second"); r.code != exitUsage || !strings.Contains(r.stderr, "several keys have the name") {
		t.Errorf("%+v", r)
	}
}

func TestTenantCommands(t *testing.T) {
	t.Parallel()
	in := start(t)
	org := decoded[admin.Organization](t, in.must("orgs", "create", "--slug", "acme", "--name", "Acme Inc.", "--plan", "pro", "-o", "json"))
	space := decoded[admin.Space](t, in.must("spaces", "create", "--organization", "acme", "--slug", "research", "-o", "json"))
	account := decoded[admin.Account](t, in.must("accounts", "create", "--name", "Ada", "--organization", "acme", "--role", "owner", "--space", "research", "-o", "json"))
	if account.Grants[0].Space != space.ID || org.Plan != "pro" {
		t.Errorf("%+v %+v", account, org)
	}
	k := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "a", "--organization", "acme", "--space", "research", "--account", account.ID, "-o", "json"))
	if k.Account != account.ID || k.Space != space.ID || k.Organization != org.ID {
		t.Errorf("%+v", k)
	}
	for _, args := range [][]string{{"orgs", "list"}, {"orgs", "get", "acme"}, {"spaces", "list", "--organization", "acme"}, {"accounts", "list", "--organization", org.ID}} {
		for format, shown := range map[string]string{"table": "acme", "json": org.ID, "yaml": org.ID} { // people know the slug
			if r := in.must(append(args, "-o", format)...); !strings.Contains(r.stdout, shown) || r.stderr != "" {
				t.Errorf("%v -o %s: %+v", args, format, r)
			}
		}
	}
	if r := in.run("orgs", "create", "--slug", "acme"); r.code != exitRefused || !strings.Contains(r.stderr, "exists already") {
		t.Errorf("%+v", r)
	}
	if r := in.run("spaces", "list", "--organization", "nope"); r.code != exitNotFound {
		t.Errorf("%+v", r)
	}
}

// The list of keys says whose each is, by name, with few requests for all of them.
func TestKeysListHasOwners(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme", "--plan", "pro")
	in.must("accounts", "create", "--name", "Ada", "--organization", "acme", "--role", "owner")
	guest := decoded[admin.Account](t, in.must("accounts", "create", "--name", "Guest", "--organization", "default", "--role", "owner", "-o", "json"))
	in.must("accounts", "grant", guest.ID, "--organization", "acme", "--role", "owner")
	for name, owner := range map[string]string{"hers": "Ada", "its": "default", "theirs": guest.ID} {
		in.must("keys", "create", "--name", name, "--organization", "acme", "--account", owner)
	}
	list := in.must("keys", "list").stdout
	column := slices.Index(strings.Fields(list), "OWNER")
	if column < 0 {
		t.Fatalf("no owners:\n%s", list)
	}
	for name, owner := range map[string]string{"hers": "Ada", "its": "default", "theirs": "Guest", "administrator": "operator"} {
		for line := range strings.Lines(list) {
			if cells := strings.Fields(line); cells[1] == name && cells[column] != owner {
				t.Errorf("%s is shown as %s's, want %s's:\n%s", name, cells[column], owner, list)
			}
		}
	}
}

// The list says of each replica where limits were not what they promise.
func TestReplicasCommand(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(start(t).must("replicas").stdout), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], "LIMITS") || !strings.HasSuffix(lines[1], "2 lost, 13 late") || !strings.HasSuffix(lines[2], "ok") {
		t.Errorf("%q", lines)
	}
}

func TestInsecureMustBeSaid(t *testing.T) {
	t.Parallel()
	env := []string{"KEYGATE_ADMIN_URL=http://keygate.invalid:9090", "KEYGATE_ADMIN_KEY=k", "KEYGATE_ADMIN_INSECURE=true"}
	if r := run(t, env, "keys", "list"); r.code != exitFailure || !strings.Contains(r.stderr, "cannot be reached") {
		t.Errorf("%+v", r)
	}
}

// What the server sends is data: it cannot move the cursor or change the title
// of somebody's terminal.
func TestServerDataIsNotRaw(t *testing.T) {
	t.Parallel()
	const evil = "a\x1b]0;x\x07b\u009b2Jc\u202ed\U000e0041e\nf"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := admin.Key{ID: "key_" + evil, Name: evil, Description: evil, Status: evil, Permissions: []string{evil}}
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/v1/keys/key_bad":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": evil, "detail": evil})
		case r.URL.Path == "/v1/keys":
			_ = json.NewEncoder(w).Encode(admin.Page[admin.Key]{Items: []admin.Key{k}})
		default:
			_ = json.NewEncoder(w).Encode(k)
		}
	}))
	defer s.Close()
	env := []string{"KEYGATE_ADMIN_URL=" + s.URL, "KEYGATE_ADMIN_KEY=k"}
	for _, args := range [][]string{
		{"keys", "list"},
		{"keys", "list", "-o", "json"},
		{"keys", "list", "-o", "yaml"},
		{"keys", "get", "key_1"},
		{"keys", "get", "key_1", "-o", "json"},
		{"keys", "get", "key_1", "-o", "yaml"},
		{"keys", "get", "key_bad"},
		{"keys", "get", evil},
		{"keys", "delete", "key_1", "--yes"},
		{evil},
	} {
		r := run(t, env, args...)
		if out := r.stdout + r.stderr; strings.ContainsAny(out, "\x1b\x07\u009b\u202e\U000e0041") {
			t.Errorf("%q: %q", args, out)
		}
	}
	var k admin.Key
	if r := run(t, env, "keys", "get", "key_1", "-o", "json"); json.Unmarshal([]byte(r.stdout), &k) != nil || k.Name != evil {
		t.Errorf("escapes change the data: %q", k.Name)
	}
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	r := run(t, []string{"KEYGATE_KEY_PREFIX=acme_test", "PORT=nonsense"}, "keys", "generate")
	f, err := keys.NewFormat("acme_test")
	if err != nil || r.code != exitOK || !f.Valid(strings.TrimSpace(r.stdout)) || r.stderr != "" {
		t.Errorf("%+v %v", r, err)
	}
	if again := run(t, nil, "keys", "generate"); !strings.HasPrefix(again.stdout, keys.DefaultPrefix+"_") {
		t.Errorf("%+v", again)
	}
}

// The answer with the secret was lost with the connection: the command said
// nothing of a key that was there, and run again made a second one.
func TestSecretInALostAnswer(t *testing.T) {
	t.Parallel()
	in := start(t)
	target, err := url.Parse(in.url)
	if err != nil {
		t.Fatal(err)
	}
	breaks := true
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ModifyResponse = func(r *http.Response) error {
		if breaks && r.Request.Method == http.MethodPost {
			breaks = false
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	flaky := httptest.NewServer(forward)
	t.Cleanup(flaky.Close)
	env := []string{"KEYGATE_ADMIN_URL=" + flaky.URL, "KEYGATE_ADMIN_KEY=" + in.key}
	r := run(t, env, "keys", "create", "--name", "billing", "-o", "json")
	made := decoded[[]admin.Key](t, in.must("keys", "list", "--name", "billing", "-o", "json"))
	if len(made) != 1 || r.code != exitFailure || r.stdout != "" || !strings.Contains(r.stderr, "'keygate keys rotate "+made[0].ID+"' makes a new one") {
		t.Fatalf("%d keys, %+v", len(made), r)
	}
	breaks = true
	if r := run(t, env, "orgs", "create", "--slug", "acme"); r.code != exitOK || breaks {
		t.Errorf("%+v", r)
	}
}

// Every other command that changes something took -o, and a script that gave it to
// all of them stopped at the deletions.
func TestDeletionsForPrograms(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme")
	space := decoded[admin.Space](t, in.must("spaces", "create", "--organization", "acme", "--slug", "research", "-o", "json"))
	account := decoded[admin.Account](t, in.must("accounts", "create", "--name", "Ada", "--organization", "acme", "--role", "owner", "-o", "json"))
	key := decoded[admin.Key](t, in.must("keys", "create", "--name", "a", "--organization", "acme", "-o", "json"))
	for _, d := range []struct {
		id   string
		args []string
	}{
		{key.ID, []string{"keys", "delete", "a"}},
		{space.ID, []string{"spaces", "delete", "research", "--organization", "acme"}},
		{account.Grants[0].ID, []string{"accounts", "revoke-grant", "Ada", "owner", "--organization", "acme"}},
		{account.ID, []string{"accounts", "delete", "Ada", "--organization", "acme"}},
		{space.Organization, []string{"orgs", "delete", "acme"}},
	} {
		r := in.must(append(d.args, "--yes", "-o", "json")...)
		if got := decoded[deletion](t, r); got != (deletion{d.id, true}) || r.stderr != "" {
			t.Errorf("%v: %+v", d.args, r)
		}
	}
}
