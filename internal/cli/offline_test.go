package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const testPolicy = `version: 1
upstreams:
  shop: { targets: ["http://127.0.0.1:9001"] }
permissions:
  "orders:read": {}
  "orders:write": {}
routes:
  - { match: "GET /orders/{id}", upstream: shop, permission: "orders:read" }
  - { match: "POST /orders", upstream: shop, permission: ["orders:read", "orders:write"] }
  - { match: "GET /spaces/{space}/orders", upstream: shop, permission: "orders:read", organization: "header:X-Organization", space: "path:space" }
  - { match: "GET api.example.com/orders/{id}", upstream: shop, permission: any }
  - { match: "GET /status", upstream: shop, public: { per_address: "60/1m" } }
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRoutesCheck(t *testing.T) {
	t.Parallel()
	file := write(t, "policy.yaml", testPolicy)
	r := run(t, []string{"PORT=of no interest here"}, "routes", "check", file)
	if r.code != exitOK || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	for _, want := range []string{"MATCH", "POST /orders", "orders:read and orders:write", "shop (http://127.0.0.1:9001)", "header:X-Organization", "path:space", "any valid key", "no key (60/1m"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	configured := run(t, []string{"KEYGATE_POLICY_FILE=" + file}, "routes", "check")
	if configured != r {
		t.Errorf("configured: %+v", configured)
	}
	var rules []shownRule
	if err := json.Unmarshal([]byte(run(t, nil, "routes", "check", file, "-o", "json").stdout), &rules); err != nil || len(rules) != 5 || rules[0].Match != "GET /orders/{id}" {
		t.Errorf("%+v %v", rules, err)
	}

	bad := write(t, "bad.yaml", strings.Replace(strings.Replace(testPolicy, `permission: any`, `permission: "nope:read"`, 1), "POST /orders", "post /orders", 1))
	r = run(t, nil, "routes", "check", bad)
	if r.code != exitConfig || r.stdout != "" || !strings.Contains(r.stderr, bad+":9:14: ") || !strings.Contains(r.stderr, bad+":11:") {
		t.Errorf("%+v", r)
	}
	if r := run(t, nil, "routes", "check", filepath.Join(t.TempDir(), "none")); r.code != exitConfig || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("%+v", r)
	}
	if r := run(t, nil, "routes", "check", file, file); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}

func TestRoutesExplain(t *testing.T) {
	t.Parallel()
	env := []string{"KEYGATE_POLICY_FILE=" + write(t, "policy.yaml", testPolicy)}
	for _, tc := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"GET", "/orders/7"}, exitOK, []string{"Rule      GET /orders/{id}\n", "Needs     orders:read\n", "shop (http://127.0.0.1:9001)"}},
		{[]string{"get", "/orders/7?x=/../y"}, exitOK, []string{"Rule      GET /orders/{id}\n"}},
		{[]string{"HEAD", "/orders/7"}, exitOK, []string{"GET /orders/{id}"}},
		{[]string{"GET", "/orders/7", "--host", "API.example.com:443"}, exitOK, []string{"GET api.example.com/orders/{id}", "any valid key"}},
		{[]string{"GET", "/spaces/a/orders"}, exitOK, []string{"header:X-Organization", "path:space"}},
		{[]string{"GET", "/status"}, exitOK, []string{"no key (60/1m per address)"}},
		{[]string{"DELETE", "/orders"}, exitNotFound, []string{"405 Method Not Allowed", "Allow    POST\n"}},
		{[]string{"GET", "/nothing"}, exitNotFound, []string{"404 Not Found", "no rule matches the path"}},
		{[]string{"GET", "/orders/%2e%2e"}, exitNotFound, []string{"400 Bad Request", "dot"}},
		{[]string{"GET", "/orders//7"}, exitNotFound, []string{"400 Bad Request", "empty segment"}},
		{[]string{"GET", "orders"}, exitNotFound, []string{"400 Bad Request", "starts with a slash"}},
	} {
		r := run(t, env, append([]string{"routes", "explain"}, tc.args...)...)
		if r.code != tc.code || r.stderr != "" {
			t.Errorf("%v: %+v", tc.args, r)
		}
		for _, want := range tc.want {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%v: no %q in\n%s", tc.args, want, r.stdout)
			}
		}
	}
	var e explanation
	r := run(t, env, "routes", "explain", "PUT", "/orders", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || e.Status != http.StatusMethodNotAllowed || e.Allow != "POST" || r.code != exitNotFound {
		t.Errorf("%+v %v", r, err)
	}
}

func TestConfigCommand(t *testing.T) {
	t.Parallel()
	const secret = "kg_live_000000000000000000000000000000000000"
	key := strings.TrimSpace(run(t, nil, "keys", "generate").stdout)
	r := run(t, []string{"KEYGATE_BOOTSTRAP_KEY=" + key, "KEYGATE_ADDR=:8081"}, "config")
	if r.code != exitOK || strings.Contains(r.stdout, key) || !strings.Contains(r.stdout, "(set)") || !strings.Contains(r.stdout, ":8081") {
		t.Errorf("%+v", r)
	}
	var settings []setting
	if err := json.Unmarshal([]byte(run(t, nil, "config", "-o", "json").stdout), &settings); err != nil || len(settings) < 10 || !settings[0].Default {
		t.Errorf("%+v %v", settings, err)
	}
	file := write(t, "policy.yaml", "version: 7\n")
	r = run(t, []string{"KEYGATE_BOOTSTRAP_KEY=" + secret, "KEYGATE_TYPO=1", "LOG_LEVEL=loud", "KEYGATE_POLICY_FILE=" + file}, "config")
	if r.code != exitConfig || r.stdout != "" || strings.Contains(r.stderr, secret) {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"KEYGATE_BOOTSTRAP_KEY: ", "KEYGATE_TYPO: ", "LOG_LEVEL: ", file + ":1:"} {
		if strings.Count(r.stderr, want) != 1 {
			t.Errorf("%q stands %d times in\n%s", want, strings.Count(r.stderr, want), r.stderr)
		}
	}
	// Serving would refuse this URL, so the check of the configuration must too.
	r = run(t, []string{"REDIS_URL=rediss://:hunter2@127.0.0.1?ca_file=/nope", "LOG_LEVEL=loud"}, "config")
	if r.code != exitConfig || strings.Count(r.stderr, "REDIS_URL: ") != 1 || !strings.Contains(r.stderr, "LOG_LEVEL: ") || strings.Contains(r.stderr, "hunter2") {
		t.Errorf("%+v", r)
	}
	r = run(t, []string{"KEYGATE_POLICY_FILE=/nope/nope"}, "config")
	if r.code != exitConfig || strings.Count(r.stderr, "/nope/nope") != 1 {
		t.Errorf("%+v", r)
	}
}

func TestConfigSchema(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(filepath.Join("..", "..", "docs", "policy.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	// A schema is wanted where nothing is configured yet, or wrongly.
	if r := run(t, []string{"PORT=x"}, "config", "schema"); r.code != exitOK || r.stderr != "" || r.stdout != string(want) {
		t.Errorf("%+v", r)
	}
	if r := run(t, nil, "config", "shema"); r.code != exitUsage || !strings.Contains(r.stderr, "did you mean schema?") {
		t.Errorf("%+v", r)
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
	}))
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	for _, addr := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port, "localhost:" + port} {
		if r := run(t, []string{"KEYGATE_ADMIN_ADDR=" + addr, "KEYGATE_ADMIN_INSECURE=true"}, "healthcheck"); r.code != exitOK || r.stdout+r.stderr != "" {
			t.Errorf("%s: %+v", addr, r)
		}
	}
	env := []string{"KEYGATE_ADMIN_ADDR=127.0.0.1:" + port}
	status = http.StatusServiceUnavailable
	if r := run(t, env, "healthcheck"); r.code != exitFailure || !strings.Contains(r.stderr, "503") {
		t.Errorf("%+v", r)
	}
	s.Close()
	if r := run(t, env, "healthcheck"); r.code != exitFailure || !strings.Contains(r.stderr, "does not answer") {
		t.Errorf("%+v", r)
	}
	if r := run(t, []string{"PORT=x"}, "healthcheck"); r.code != exitFailure {
		t.Errorf("a container's health check knows 0 and 1 only: %+v", r)
	}
}

func TestDialAddress(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		":9090": "127.0.0.1:9090", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "[::1]:1": "[::1]:1", "192.0.2.1:1": "192.0.2.1:1", "host:1": "host:1",
	} {
		if got := dialAddress(listen); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}

func TestYAML(t *testing.T) {
	t.Parallel()
	out, err := toYAML([]byte(`{"b":"true","a":"123","n":null,"list":["x: y",""],"e":[],"t":"2026-01-01","o":{"k":1.5,"no":false},"m":"a\nb"}`))
	want := "b: 'true'\n"
	if err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("%v\n%s", err, out)
	}
	for _, line := range []string{"a: '123'\n", "n: null\n", "- 'x: y'\n", "e: []\n", "t: '2026-01-01'\n", "  k: 1.5\n", "  no: false\n", `m: "a\nb"`} {
		if !strings.Contains(strings.ReplaceAll(out, `"2026-01-01"`, `'2026-01-01'`), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}
