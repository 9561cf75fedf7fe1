package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

// policy has some ten routes with permissions, as a small API would, and limits
// that are decided on for every request and never reached.
const policy = `
version: 1
upstreams: { api: { targets: ["http://UPSTREAM"] } }
permissions:
  "items:read": { group: Read }
  "items:write": { group: Write }
  "orders:read": { group: Read }
  "orders:write": { group: Write }
  "reports:read": { group: Read }
  "team:manage": { group: Admin }
plans:
  none: { limits: [] }
  one: { limits: [{ name: minute, requests: 1000000000000, per: 1m }] }
  two:
    limits:
      - { name: second, requests: 1000000000000, per: 1s }
      - { name: minute, requests: 1000000000000, per: 1m }
  four:
    limits:
      - { name: second, requests: 1000000000000, per: 1s }
      - { name: minute, requests: 1000000000000, per: 1m }
      - { name: hour, requests: 1000000000000, per: 1h }
      - { name: day, requests: 1000000000000, per: 24h }
routes:
  - { match: "GET /v1/items", permission: "items:read" }
  - { match: "GET /v1/items/{id}", permission: "items:read" }
  - { match: "POST /v1/items", permission: "items:write" }
  - { match: "PUT /v1/items/{id}", permission: ["items:read", "items:write"] }
  - { match: "GET /v1/orders", permission: "orders:read" }
  - { match: "GET /v1/orders/{id...}", permission: "orders:read" }
  - { match: "POST /v1/orders", permission: "orders:write" }
  - { match: "GET /v1/reports/{year}/{month}", permission: "reports:read" }
  - { match: "/v1/team/{rest...}", permission: "team:manage" }
  - { match: "GET /v1/whoami", permission: any }
`

// path is the one that is measured.
const path = "/v1/items"

// keysPerPlan are used in rotation.
const keysPerPlan = 100

// gateway is one running keygate.
type gateway struct {
	child  *child
	addr   string
	admin  *admin.Client
	plans  []string
	secret map[string][]string // by plan
	narrow string              // a key that may not call path
}

// buildKeygate builds the source that this program belongs to.
func buildKeygate(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "keygate")
	flags := ""
	if commit, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		flags = "-X keygate/internal/cli.version=" + strings.TrimSpace(string(commit))
	} // else: not a checkout, and the report says no version
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", flags, "-o", binary, "keygate")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// startKeygate starts one on an empty store, its own or a Redis. Its log goes to /dev/null: written, and read by nobody.
func startKeygate(ctx context.Context, name, binary, dir, upstream, redisURL, logLevel string, plans ...string) (*gateway, error) {
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "data-*"); err != nil {
		return nil, err
	}
	addrs, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	operator := format.Generate()
	env := []string{
		"KEYGATE_ADDR=" + addrs[0], "KEYGATE_ADMIN_ADDR=" + addrs[1], "KEYGATE_DATA_DIR=" + dir,
		"KEYGATE_BOOTSTRAP_KEY=" + operator, "KEYGATE_POLICY=" + strings.Replace(policy, "UPSTREAM", upstream, 1),
		"KEYGATE_DEFAULT_PLAN=" + plans[0], "LOG_LEVEL=" + logLevel, "LOG_FORMAT=json",
	}
	if redisURL != "" {
		env = append(env, "REDIS_URL="+redisURL)
	}
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "GO") || strings.HasPrefix(variable, "PATH=") {
			env = append(env, variable) // GOMAXPROCS and the like act on all subjects alike
		}
	}
	check := exec.CommandContext(ctx, binary, "config")
	check.Env = env
	if out, err := check.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	cmd := exec.Command(binary, "serve")
	cmd.Env = env
	c, err := startChild(name, cmd, false)
	if err != nil {
		return nil, err
	}
	g := &gateway{
		child: c, addr: addrs[0], plans: plans, secret: make(map[string][]string),
		admin: &admin.Client{URL: &url.URL{Scheme: "http", Host: addrs[1]}, Key: operator},
	}
	return g, c.waitUntil(ctx, g.ready)
}

func (g *gateway) ready(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.admin.URL.JoinPath("readyz").String(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz: %s", res.Status)
	}
	return nil
}

func (g *gateway) makeKeys(ctx context.Context) error {
	for _, plan := range g.plans {
		for i := range keysPerPlan {
			k, err := g.admin.CreateKey(ctx, admin.NewKey{
				Name: fmt.Sprintf("%s %d", plan, i), Plan: plan, Permissions: []string{"items:read", "orders:*"},
			})
			if err != nil {
				return fmt.Errorf("key of plan %q: %w", plan, err)
			}
			g.secret[plan] = append(g.secret[plan], k.Secret)
		}
	}
	k, err := g.admin.CreateKey(ctx, admin.NewKey{Name: "narrow", Plan: g.plans[0], Permissions: []string{"reports:read"}})
	g.narrow = k.Secret
	return err
}

// freeAddresses finds ports that nothing listens on at the moment.
func freeAddresses(n int) ([]string, error) {
	var addrs []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close() // after all were found, so that they differ
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}
