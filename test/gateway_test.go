package test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

// settings are variables of the environment.
type settings map[string]string

// gateway is the real program, serving. It can be stopped, killed and started
// again on the same data.
type gateway struct {
	*process
	t   *testing.T
	dir string // of the data
	env settings
	// key is the administrator's.
	key string
	// wrap, if set, is a shell script that runs the program as "$@".
	wrap string
	// release has it run as it is shipped, without the race detector.
	release bool
	// proxy and management are the base URLs of the two listeners.
	proxy, management string
}

// prepare describes a gateway with free ports, a data directory of its own and
// a known administrator's key, unless the settings say otherwise.
func prepare(t *testing.T, s settings) *gateway {
	t.Helper()
	g := &gateway{t: t, env: settings{"KEYGATE_ADDR": "127.0.0.1:0", "KEYGATE_ADMIN_ADDR": "127.0.0.1:0", "KEYGATE_DRAIN_DELAY": "0s"}}
	if s["KEYGATE_BOOTSTRAP_KEY_FILE"] == "" {
		g.env["KEYGATE_BOOTSTRAP_KEY"] = newSecret(t)
	}
	maps.Copy(g.env, s)
	if g.env["KEYGATE_DATA_DIR"] == "" {
		g.env["KEYGATE_DATA_DIR"] = filepath.Join(t.TempDir(), "data")
	}
	g.dir, g.key = g.env["KEYGATE_DATA_DIR"], g.env["KEYGATE_BOOTSTRAP_KEY"]
	return g
}

// start serves with settings.
func start(t *testing.T, s settings) *gateway {
	t.Helper()
	g := prepare(t, s)
	g.start()
	return g
}

// launch starts the program without waiting for anything.
func (g *gateway) launch() {
	g.t.Helper()
	var env []string
	for name, value := range g.env {
		env = append(env, name+"="+value)
	}
	make := build
	if g.release {
		make = buildRelease
	}
	argv := []string{built(g.t, make), "serve"}
	if g.wrap != "" {
		argv = append([]string{tool(g.t, "bash", "bash"), "-c", g.wrap, "bash"}, argv...)
	}
	g.process = launch(g.t, g.t.TempDir(), env, argv...)
}

func (g *gateway) start() {
	g.t.Helper()
	g.launch()
	g.ready()
}

// ready waits for the line that says where the gateway listens.
func (g *gateway) ready() {
	g.t.Helper()
	eventually(g.t, "keygate is ready", func() bool {
		if !g.running() {
			g.t.Fatalf("keygate ended with code %d instead of serving:\n%s", g.wait(), g.said())
		}
		lines := g.logged("keygate is ready")
		if len(lines) > 0 {
			g.proxy, _ = lines[0]["proxy"].(string)
			g.management, _ = lines[0]["management"].(string)
		}
		return len(lines) > 0
	})
}

// refuses starts a gateway that cannot start, and returns what it said.
func (g *gateway) refuses(code int) string {
	g.t.Helper()
	g.launch()
	if got := g.wait(); got != code {
		g.t.Errorf("exit code %d, want %d; it said:\n%s", got, code, g.said())
	}
	if out := g.stdout.String(); out != "" {
		g.t.Errorf("stdout: %q", out)
	}
	return g.stderr.String()
}

// stop asks for an orderly end and wants one.
func (g *gateway) stop() {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		g.t.Errorf("exit code %d after SIGTERM, want 0; it said:\n%s", code, g.said())
	}
	if out := g.stdout.String(); out != "" {
		g.t.Errorf("serve wrote to stdout, which is for data: %q", out)
	}
}

func (g *gateway) restart() {
	g.t.Helper()
	g.stop()
	g.start()
}

// logged returns the whole lines of the log with this message.
func (g *gateway) logged(message string) []map[string]any {
	var found []map[string]any
	lines := strings.SplitAfter(g.stderr.String(), "\n")
	for _, line := range lines {
		var fields map[string]any
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &fields) == nil && fields["message"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// result is what a command did.
type result struct {
	code           int
	stdout, stderr string
}

// run executes a command of the program with this environment.
func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	p := launch(t, t.TempDir(), env, append([]string{program(t)}, args...)...)
	code := p.wait()
	return result{code, p.stdout.String(), p.stderr.String()}
}

// cli executes a command as the gateway's administrator.
func (g *gateway) cli(args ...string) result {
	g.t.Helper()
	return run(g.t, []string{"KEYGATE_ADMIN_URL=" + g.management, "KEYGATE_ADMIN_KEY=" + g.key}, args...)
}

// must executes a command that succeeds, and decodes what it prints unless out is
// nil.
func (g *gateway) must(out any, args ...string) {
	g.t.Helper()
	r := g.cli(append(args, "-o", "json")...)
	if r.code != 0 {
		g.t.Fatalf("keygate %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal([]byte(r.stdout), out); err != nil {
		g.t.Fatalf("keygate %s: %v in %s", strings.Join(args, " "), err, r.stdout)
	}
}

// newKey makes a key on the command line.
func (g *gateway) newKey(name string, args ...string) admin.CreatedKey {
	g.t.Helper()
	var k admin.CreatedKey
	g.must(&k, append([]string{"keys", "create", "--name", name}, args...)...)
	if k.ID == "" || !anyKey.MatchString(k.Secret) {
		g.t.Fatalf("keys create printed id %q and a secret of %d characters", k.ID, len(k.Secret))
	}
	return k
}

// newSecret is a well-formed key that no instance knows.
func newSecret(t *testing.T) string {
	t.Helper()
	f, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return f.Generate()
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// written puts a text into a file of its own.
func written(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	write(t, file, text)
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
