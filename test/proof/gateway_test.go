package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// patience bounds every wait for another process.
const patience = 60 * time.Second

// workshop is where the program is built, once for all tests.
var workshop string

func TestMain(m *testing.M) {
	var err error
	if workshop, err = os.MkdirTemp("", "keygate-proof-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(workshop)
	os.Exit(code)
}

// build makes the program as it is shipped: the race detector would make it so
// slow that the time-outs of decisions are all that a crowd of requests meets.
var build = sync.OnceValues(func() (string, error) {
	file := filepath.Join(workshop, "keygate")
	c := exec.Command("go", "build", "-trimpath", "-o", file, ".") // as make build does
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Dir = "../.."
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
})

// gateway is one replica, which may be killed, stopped and started again.
type gateway struct {
	t                 testing.TB
	key               string // the administrator's
	env               []string
	proxy, management string
	said              output

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
}

// output is what a process has written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startGateways serves with one replica for each URL of the same Redis.
func startGateways(t testing.TB, policy string, urls ...string) []*gateway {
	t.Helper()
	f, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	var all []*gateway
	key := f.Generate()
	for _, redis := range urls {
		addr, management := fmt.Sprint("127.0.0.1:", redistest.FreePort(t)), fmt.Sprint("127.0.0.1:", redistest.FreePort(t))
		dir := t.TempDir()
		g := &gateway{t: t, key: key, proxy: "http://" + addr, management: "http://" + management, env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "REDIS_URL=" + redis, "KEYGATE_BOOTSTRAP_KEY=" + key, "KEYGATE_POLICY=" + policy,
			"KEYGATE_ADDR=" + addr, "KEYGATE_ADMIN_ADDR=" + management, "KEYGATE_DEFAULT_PLAN=enterprise", "LOG_LEVEL=warn",
		}}
		t.Cleanup(g.inspect)
		g.launch()
		all = append(all, g)
	}
	for _, g := range all {
		g.awaitReady()
	}
	return all
}

// launch starts the process without waiting for anything.
func (g *gateway) launch() {
	g.t.Helper()
	program, err := build()
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd = exec.Command(program, "serve")
	g.cmd.Env, g.cmd.Stdout, g.cmd.Stderr = g.env, &g.said, &g.said
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan struct{})
	g.ended = ended
	go func(c *exec.Cmd) {
		_ = c.Wait() // killed as a rule
		close(ended)
	}(g.cmd)
}

// awaitReady waits until the gateway says that it can decide.
func (g *gateway) awaitReady() {
	g.t.Helper()
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get(g.management + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("in vain waited until keygate is ready (%v); it said:\n%s", err, g.said.String())
		}
	}
}

func (g *gateway) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.cmd.Process.Kill() // fails only if it has ended
	<-g.ended
}

func (g *gateway) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.cmd.Process.Signal(s)
}

// inspect ends the process, and looks at what it said.
func (g *gateway) inspect() {
	g.kill()
	said := g.said.String()
	for _, alarm := range []string{"panic:", "fatal error:", g.key} {
		if strings.Contains(said, alarm) {
			g.t.Errorf("an alarm (a panic, or a secret) stands in the log:\n%s", strings.ReplaceAll(said, g.key, "SECRET"))
		}
	}
}

// newKey makes a key on a plan.
func (g *gateway) newKey(name, plan string) admin.CreatedKey {
	g.t.Helper()
	u, err := url.Parse(g.management)
	if err != nil {
		g.t.Fatal(err)
	}
	k, err := (&admin.Client{URL: u, Key: g.key}).CreateKey(g.t.Context(), admin.NewKey{Name: name, Plan: plan})
	if err != nil {
		g.t.Fatal(err)
	}
	return k
}

// policyOf has a plan for each cell, named as the cell.
func policyOf(upstream string, cells []*cell) string {
	plans := make(map[string]any)
	for _, c := range cells {
		plan := map[string]any{"limits": []any{map[string]any{"name": "limit", "requests": c.quota, "per": c.per.String()}}}
		if c.open {
			plan["outage"] = map[string]any{"mode": "open", "keys": "5m"}
		}
		plans[c.name] = plan
	}
	policy, err := json.Marshal(map[string]any{ // which is YAML
		"version": 1, "plans": plans,
		"upstreams": map[string]any{"api": map[string]any{"targets": []string{upstream}}},
		"routes":    []any{map[string]any{"match": "/{path...}", "permission": "any"}},
	})
	if err != nil {
		panic(err) // of strings and numbers
	}
	return string(policy)
}
