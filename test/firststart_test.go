package test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unconfigured is a gateway with nothing set but where it listens: other tests
// may have the default ports at the same time.
func unconfigured(t *testing.T, dir string) *gateway {
	t.Helper()
	g := prepare(t, settings{"KEYGATE_DATA_DIR": dir})
	delete(g.env, "KEYGATE_BOOTSTRAP_KEY")
	return g
}

var (
	curlLine     = regexp.MustCompile(`(?m)^  (curl .*)$`)
	proxyAddress = regexp.MustCompile(`"proxy": ?"http://([^"]+)"`) // in a line of the log
)

// paste runs a line as somebody does who copies it from the screen, and
// returns the status of the answer.
func paste(t *testing.T, line string) string {
	t.Helper()
	tool(t, "curl", "curl")
	p := launch(t, t.TempDir(), []string{"NO_PROXY=127.0.0.1"}, tool(t, "bash", "bash"), "-c", line)
	if code := p.wait(); code != 0 {
		t.Fatalf("%s: exit code %d: %s", line, code, &p.stderr)
	}
	status, _, _ := strings.Cut(p.stdout.String(), "\r\n")
	return status
}

// The first minute of a new user whose terminal is not one: a container's log.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "it's $HOME here", "data") // what a shell would trip over
	g := unconfigured(t, dir)
	g.start()
	eventually(t, "the first start's text is there", func() bool { return strings.Contains(g.stderr.String(), "/v1/keys") })

	lines := curlLine.FindAllStringSubmatch(g.stderr.String(), -1)
	want := []string{"HTTP/1.1 200 OK", "HTTP/1.1 401 Unauthorized", "HTTP/1.1 201 Created"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines to paste, want %d:\n%s", len(lines), len(want), g.said())
	}
	for i, line := range lines {
		if status := paste(t, line[1]); status != want[i] {
			t.Errorf("%s\nanswers %q, want %q", line[1], status, want[i])
		}
	}

	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
	admin := strings.TrimSpace(read(t, filepath.Join(dir, "bootstrap-key")))
	client := strings.TrimSpace(read(t, filepath.Join(dir, "first-key")))

	g.restart()
	g.wants(http.StatusOK, "/hello", client)
	g.key = admin
	if r := g.cli("keys", "list"); r.code != 0 || strings.Count(r.stdout, "key_") != 3 {
		t.Errorf("keys list: %+v", r)
	}
	if said := g.stderr.String(); strings.Contains(said, "curl") || strings.Contains(said, "first time") {
		t.Errorf("the second start says:\n%s", said)
	}
}

// A start that fails for another reason must not be the one that showed, or
// would have shown, the secrets: the next one does.
func TestFirstStartAfterAFailedOne(t *testing.T) {
	t.Parallel()
	taken := newUpstream(t, nil)
	g := unconfigured(t, filepath.Join(t.TempDir(), "data"))
	g.env["KEYGATE_ADDR"] = taken.Listener.Addr().String()
	if said := g.refuses(1); !strings.Contains(said, g.env["KEYGATE_ADDR"]) {
		t.Errorf("it said: %s", said)
	}
	g.env["KEYGATE_ADDR"] = "127.0.0.1:0"
	g.start()
	eventually(t, "the first start's text is there", func() bool { return strings.Contains(g.stderr.String(), "/v1/keys") })
	g.key = strings.TrimSpace(read(t, filepath.Join(g.dir, "bootstrap-key")))
	if r := g.cli("keys", "list"); r.code != 0 {
		t.Errorf("keys list: %+v", r)
	}
}

// A container's orchestrator may kill a first start anywhere. Whatever was
// written, the next start leaves an administrator who gets in.
func TestFirstStartKilled(t *testing.T) {
	t.Parallel()
	g := unconfigured(t, filepath.Join(t.TempDir(), "data"))
	for range 5 {
		g.launch()
		eventually(t, "the database is there", func() bool {
			_, err := os.Stat(filepath.Join(g.dir, "control.db-wal"))
			return err == nil || !g.running()
		})
		g.kill9()
	}
	g.start()
	g.key = strings.TrimSpace(read(t, filepath.Join(g.dir, "bootstrap-key")))
	if r := g.cli("orgs", "get", "default"); r.code != 0 {
		t.Errorf("%+v", r)
	}
}
