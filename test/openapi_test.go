package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keygate/internal/store/redis/redistest"
)

// openapiDir has what Node runs, and the packages that test/setup.sh installs.
var openapiDir = func() string {
	dir, err := filepath.Abs("openapi")
	if err != nil {
		panic(err)
	}
	return dir
}()

// node runs a script in dir against a gateway's management API and returns all that
// it said.
func node(t *testing.T, g *gateway, dir string, argv ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := nodeCommand(t, openapiDir, argv...)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &out
	c.Env = append(c.Env, "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true", "NO_COLOR=1",
		"KEYGATE_ADMIN_URL="+g.management, "KEYGATE_ADMIN_KEY="+g.key)
	err := c.Run()
	return out.String(), err
}

// nodeCommand is a script that uses the packages of home, which test/setup.sh
// installs, and is run there.
func nodeCommand(t *testing.T, home string, argv ...string) *exec.Cmd {
	t.Helper()
	program := tool(t, "node", "nodejs")
	if _, err := os.Stat(filepath.Join(home, "node_modules")); err != nil {
		t.Fatalf("the packages of %s are missing: run test/setup.sh (%v)", home, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, program, argv...)
	c.Dir, c.Env = home, os.Environ()
	return c
}

// The description of the management API, as the program serves it: a linter, a
// generated client and a fuzzer, none of them ours, take it at its word.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_POLICY": openapiPolicy})
	dir := t.TempDir()
	spec := filepath.Join(dir, "openapi.json")
	if err := os.WriteFile(spec, []byte(g.do(http.MethodGet, g.management+"/v1/openapi.json", "", "").body), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("lints", func(t *testing.T) {
		if out, err := lint(t, g, spec); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("lints only as long as it is right", func(t *testing.T) { testLintRefuses(t, g, spec) })
	t.Run("makes a client that works", func(t *testing.T) { testGeneratedClient(t, g, dir) })
	t.Run("holds for whatever is sent", func(t *testing.T) { testFuzz(t, g) })
	t.Run("is held against the answers", func(t *testing.T) { testFuzzFinds(t, g) })
	if !full() {
		return
	}
	t.Run("holds for whatever is sent, on Redis", func(t *testing.T) {
		server := redistest.Start(t, redistest.Options{})
		g := prepare(t, settings{"KEYGATE_POLICY": openapiPolicy, "REDIS_URL": server.URL()})
		g.release = true // a decision waits 100 ms for Redis; with the race detector a crowd would see 503
		g.start()
		testFuzz(t, g, "--lanes", "4")
	})
}

var openapiPolicy = strings.ReplaceAll(tenantPolicy, "UPSTREAM", "http://127.0.0.1:9") // to which nothing is sent

func lint(t *testing.T, g *gateway, spec string) (string, error) {
	t.Helper()
	return node(t, g, openapiDir, "node_modules/@redocly/cli/bin/cli.js", "lint", spec, "--config=redocly.yaml", "--max-problems=1000")
}

// The linter is worth what it refuses.
func testLintRefuses(t *testing.T, g *gateway, spec string) {
	raw, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	mistakes := []struct{ name, old, changed, rule string }{
		{"an example that its schema forbids", `"overlap": "24h"`, `"overlap": 24`, "no-invalid-media-type-examples"},
		{"a body without an example", `"example": {` + "\n                \"permission\": \"database:read\"\n              },", "", "rule/example-of-every-body"},
		{"a parameter that nobody explains", `"description": "Number of items on a page.",`, "", "parameter-description"},
		{"two operations of one name", `"operationId": "pause-key"`, `"operationId": "resume-key"`, "operation-operationId-unique"},
		{"an answer without a header that all have", `"X-Request-Id": {` + "\n            \"$ref\": \"#/components/headers/X-Request-Id\"\n          }", "", "response-contains-header"},
	}
	text := string(raw)
	for _, m := range mistakes {
		changed := strings.ReplaceAll(text, m.old, m.changed)
		if changed == text {
			t.Errorf("%s: the description has no %s", m.name, m.old)
		}
		text = changed
	}
	wrong := filepath.Join(t.TempDir(), "openapi.json")
	if err := os.WriteFile(wrong, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := lint(t, g, wrong)
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Errorf("%v: the linter finds nothing:\n%s", err, out)
	}
	for _, m := range mistakes {
		if !strings.Contains(out, m.rule) {
			t.Errorf("%s: the linter does not name %s:\n%s", m.name, m.rule, out)
		}
	}
}

// A client that openapi-ts makes, in strict TypeScript, and the life of a key
// through it.
func testGeneratedClient(t *testing.T, g *gateway, dir string) {
	for name, content := range map[string]string{
		"package.json":  `{"type": "module"}`,
		"tsconfig.json": fmt.Sprintf(`{"extends": %q, "compilerOptions": {"outDir": "built"}, "files": ["life.ts"]}`, filepath.Join(openapiDir, "tsconfig.json")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(openapiDir, "life.ts"), filepath.Join(dir, "life.ts")); err != nil {
		copied, err := os.ReadFile(filepath.Join(openapiDir, "life.ts")) // another file system
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "life.ts"), copied, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	modules := filepath.Join(openapiDir, "node_modules")
	for _, argv := range [][]string{
		{filepath.Join(modules, "@hey-api/openapi-ts/bin/run.js"), "-i", "openapi.json", "-o", "client", "--no-log-file", "--silent"},
		{filepath.Join(modules, "typescript/bin/tsc"), "-p", "."},
		{"built/life.js"},
	} {
		out, err := node(t, g, dir, argv...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
		t.Logf("%s", out)
	}
}

// testFuzz sends what test/openapi/fuzz.mjs makes of the description.
func testFuzz(t *testing.T, g *gateway, options ...string) {
	runs := 30
	if full() {
		runs = 500
	}
	out, err := node(t, g, openapiDir, append([]string{"fuzz.mjs", "--runs", strconv.Itoa(runs)}, options...)...)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	for line := range strings.Lines(g.stderr.String()) {
		if strings.Contains(line, `"level":"error"`) {
			t.Errorf("logged as an error: %s", line)
		}
	}
}

// The fuzzer is worth what it finds: here a proxy answers a little differently
// from what the description says, each operation in another way.
func testFuzzFinds(t *testing.T, g *gateway) {
	to, err := url.Parse(g.management)
	if err != nil {
		t.Fatal(err)
	}
	lies := []struct {
		operation, method string
		path              *regexp.Regexp
		lie               func(*http.Response)
		finding           string
	}{
		{"get-organization", "GET", regexp.MustCompile(`^/v1/organizations/.`), func(r *http.Response) { r.StatusCode = 500 }, "status 500"},
		{"get-space", "GET", regexp.MustCompile(`^/v1/spaces/.`), func(r *http.Response) { r.StatusCode = 202 }, "status 202 is not documented"},
		{"get-key", "GET", regexp.MustCompile(`^/v1/keys/key_`), func(r *http.Response) { r.Header.Set("Content-Type", "text/html") }, "content type text/html is not documented"},
		{"list-keys", "GET", regexp.MustCompile(`^/v1/keys$`), func(r *http.Response) { r.Header.Set("X-Secret", "1") }, "header x-secret is not documented"},
		{"list-spaces", "GET", regexp.MustCompile(`^/v1/spaces$`), func(r *http.Response) { r.Header.Del("X-Request-Id") }, "header x-request-id is missing"},
		{"list-accounts", "GET", regexp.MustCompile(`^/v1/accounts$`), changeBody(func(o map[string]any) { o["colour"] = "red" }), "must NOT have additional properties"},
		{"list-replicas", "GET", regexp.MustCompile(`^/v1/replicas$`), changeBody(func(o map[string]any) { delete(o, "items") }), "must have required property 'items'"},
		{"list-audit", "GET", regexp.MustCompile(`^/v1/audit$`), changeBody(func(o map[string]any) {
			if items, _ := o["items"].([]any); len(items) > 0 {
				items[0].(map[string]any)["at"] = "yesterday"
			}
		}), `/items/0/at must match format "date-time"`},
		{"edit-account", "PATCH", regexp.MustCompile(`^/v1/accounts/`), func(r *http.Response) {
			if r.StatusCode == http.StatusUnprocessableEntity {
				r.StatusCode = http.StatusOK
			}
		}, "a body was accepted that the schema forbids"},
	}
	// One lane and always the same requests: whether these find something is not left
	// to chance, as it is where they look for what nobody knows.
	argv := []string{"fuzz.mjs", "--all", "--runs", "60", "--lanes", "1", "--seed", "2"}
	for _, l := range lies {
		argv = append(argv, "--only", l.operation)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			for _, l := range lies {
				if r.Request.Method == l.method && l.path.MatchString(r.Request.URL.Path) {
					l.lie(r)
				}
			}
			return nil
		},
	})
	defer server.Close()
	out, err := node(t, &gateway{management: server.URL, key: g.key}, openapiDir, argv...)
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Errorf("%v: the fuzzer found nothing:\n%s", err, out)
	}
	findings := strings.Split(out, "\nFINDING ")
	for _, l := range lies {
		if !slices.ContainsFunc(findings, func(f string) bool { return strings.HasPrefix(f, l.operation+": ") && strings.Contains(f, l.finding) }) {
			t.Errorf("%s: the fuzzer does not find %q in:\n%s", l.operation, l.finding, out)
		}
	}
}

// changeBody changes JSON objects on their way.
func changeBody(change func(map[string]any)) func(*http.Response) {
	return func(r *http.Response) {
		raw, err := io.ReadAll(r.Body)
		var o map[string]any
		if err == nil && json.Unmarshal(raw, &o) == nil {
			change(o)
			raw, _ = json.Marshal(o)
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		r.Header.Del("Content-Length")
		r.ContentLength = -1
	}
}
