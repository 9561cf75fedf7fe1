package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"keygate/internal/admin"
)

func TestFailures(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("keys", "create", "--name", "plain")
	plain := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "nobody", "-o", "json"))
	with := func(url, key string) []string {
		return []string{"KEYGATE_ADMIN_URL=" + url, "KEYGATE_ADMIN_KEY=" + key}
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer page.Close()
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"status":404,"error":"Not found","detail":"No route covers this path."}`)
	}))
	defer gate.Close()
	for _, tc := range []struct {
		name   string
		env    []string
		args   []string
		code   int
		stderr []string // parts
	}{
		{"unknown command", in.env, []string{"sevre"}, exitUsage, []string{`no command "sevre"`, "did you mean serve?", "keygate --help"}},
		{"unknown subcommand", in.env, []string{"keys", "lits"}, exitUsage, []string{"did you mean list?", "keygate keys --help"}},
		{"no subcommand", in.env, []string{"keys"}, exitUsage, []string{"create, delete, edit, export, generate"}},
		{"unknown flag", in.env, []string{"keys", "list", "--colour"}, exitUsage, []string{"--colour"}},
		{"beginning of a flag", in.env, []string{"keys", "list", "--org", "acme"}, exitUsage, []string{"no flag --org; did you mean --organization?"}},
		{"misspelt flag", in.env, []string{"keys", "create", "--permisions", "a"}, exitUsage, []string{"did you mean --permissions?"}},
		{"no number", in.env, []string{"keys", "list", "--limit", "abc"}, exitUsage, []string{`--limit: "abc" is no whole number`}},
		{"path before method", in.env, []string{"explain", "/orders", "GET"}, exitUsage, []string{`"/orders" is no method: METHOD comes first`}},
		{"too long an overlap", in.env, []string{"keys", "rotate", "plain", "--overlap", "60d"}, exitRefused, []string{`--overlap: must be whole seconds, from 0 to 30 days (given: "60d")`}},
		{"unknown format", in.env, []string{"keys", "list", "-o", "xml"}, exitUsage, []string{"table, json and yaml"}},
		{"missing argument", in.env, []string{"keys", "get"}, exitUsage, []string{"ID is missing"}},
		{"argument too many", in.env, []string{"keys", "list", "x"}, exitUsage, []string{`"x"`}},
		{"serve takes none", in.env, []string{"serve", "x"}, exitUsage, []string{`"x"`}},
		{"missing flag", in.env, []string{"keys", "create"}, exitUsage, []string{"--name is missing"}},
		{"empty argument", in.env, []string{"keys", "revoke", "", "--yes"}, exitUsage, []string{"ID is empty"}},
		{"empty list", in.env, []string{"keys", "create", "--name", "a", "--allow-cidr", ""}, exitUsage, []string{"--allow-cidr is empty"}},
		{"empty flag", in.env, []string{"keys", "create", "--name", "a", "--organization", ""}, exitUsage, []string{"--organization is empty"}},
		{"negative limit", in.env, []string{"keys", "list", "--limit", "-1"}, exitUsage, []string{"--limit"}},
		{"delete without a terminal", in.env, []string{"keys", "delete", "plain"}, exitUsage, []string{"--yes"}},
		{"revoke without a terminal", in.env, []string{"keys", "revoke", "plain"}, exitUsage, []string{"--yes"}},
		{"no key", nil, []string{"keys", "list"}, exitConfig, []string{"KEYGATE_ADMIN_KEY is not set", "bootstrap-key"}},
		{"bad URL", with("ftp://x", in.key), []string{"keys", "list"}, exitConfig, []string{"KEYGATE_ADMIN_URL"}},
		{"key over a network in clear", with("http://keygate.example:9090", in.key), []string{"keys", "list"}, exitConfig, []string{"not sent", "KEYGATE_ADMIN_INSECURE=true"}},
		{"nobody there", with("http://127.0.0.1:1", in.key), []string{"keys", "list"}, exitFailure, []string{"http://127.0.0.1:1", "Is keygate running?", "KEYGATE_ADMIN_URL"}},
		{"another server", with(page.URL, in.key), []string{"keys", "list"}, exitFailure, []string{"KEYGATE_ADMIN_URL"}},
		{"the proxy", with(gate.URL, in.key), []string{"keys", "list"}, exitFailure, []string{"KEYGATE_ADMIN_URL leads to the proxy"}},
		{"unknown key", with(in.url, in.format.Generate()), []string{"keys", "list"}, exitRefused, []string{"API key is invalid", "KEYGATE_ADMIN_KEY must hold"}},
		{"not an operator's key", with(in.url, plain.Secret), []string{"keys", "list"}, exitRefused, []string{"Insufficient permissions", "keygate:keys-read"}},
		{"not an auditor's key", with(in.url, plain.Secret), []string{"audit", "list"}, exitRefused, []string{"Insufficient permissions", "keygate:audit"}},
		{"no member's key", with(in.url, plain.Secret), []string{"spaces", "create", "--slug", "a"}, exitRefused, []string{"Insufficient permissions", "keygate:members"}},
		{"not a writer's key", with(in.url, plain.Secret), []string{"keys", "create", "--name", "a"}, exitRefused, []string{"Insufficient permissions", "keygate:keys-write"}},
		{
			"wrong fields are named as flags", in.env,
			[]string{"keys", "create", "--name", "a", "--allow-cidr", "x", "--expires", "soon", "--permissions", "a:b"},
			exitRefused,
			[]string{"--allow-cidr: must be an address", "--expires: must be", "--permissions: names"},
		},
		{"not found", in.env, []string{"keys", "get", "key_1"}, exitNotFound, []string{`"key_1"`}},
		{"bad prefix", []string{"KEYGATE_KEY_PREFIX=__"}, []string{"keys", "generate"}, exitConfig, []string{"KEYGATE_KEY_PREFIX"}},
		{"bad configuration", []string{"KEYGATE_ADDR=x", "KEYGATE_NOPE=1", "LOG_LEVEL=loud"}, []string{"serve"}, exitConfig, []string{"KEYGATE_ADDR: ", "KEYGATE_NOPE: ", "LOG_LEVEL: "}},
		{"bad configuration, without a command", []string{"KEYGATE_ADDR=x"}, nil, exitConfig, []string{"KEYGATE_ADDR: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, tc.env, tc.args...)
			if r.code != tc.code || r.stdout != "" {
				t.Errorf("exit %d, want %d; stdout %q; stderr %q", r.code, tc.code, r.stdout, r.stderr)
			}
			for _, part := range tc.stderr {
				if !strings.Contains(r.stderr, part) {
					t.Errorf("stderr %q, want %q in it", r.stderr, part)
				}
			}
			if strings.Contains(r.stderr, in.key) {
				t.Error("stderr shows the key")
			}
		})
	}
}

// Who is refused everything asks this next.
func TestWhoamiAnswersEveryValidKey(t *testing.T) {
	t.Parallel()
	in := start(t)
	plain := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "plain", "-o", "json"))
	in.env[1] = "KEYGATE_ADMIN_KEY=" + plain.Secret
	if got := decoded[admin.Caller](t, in.must("whoami", "-o", "json")); got.ID != plain.ID || got.Operator || len(got.Permissions) != 0 {
		t.Errorf("%+v", got)
	}
}
