package proxy_test

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"keygate/auth"
	"keygate/config"
	"keygate/internal/keys"
	"keygate/proxy"
	upstreams "keygate/proxy/upstream"
	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// memoryPolicy has a route for each of the ways in which fields of a request matter.
const memoryPolicy = `
version: 1
upstreams: { api: { targets: ["http://192.0.2.200"] } }
permissions:
  "orders:read": { group: Read }
  "orders:write": { group: Write }
plans:
  tiny: { limits: [{ name: minute, requests: 3, per: 1m }, { name: burst, requests: 2, per: 1s }] }
routes:
  - { match: "/any/{rest...}", permission: any, max_body: 1000B }
  - { match: "GET /orders/{id}", permission: "orders:read" }
  - { match: "PUT,POST /orders/{id}", permission: "orders:write", retries: 2 }
  - { match: "/key", permission: any, forward_key: true }
  - { match: "GET,POST /status", public: { per_address: "1000000/1s" } }
  - { match: "/header", permission: any, organization: "header:X-Organization", space: "header:X-Space" }
  - { match: "/query", permission: any, organization: "query:org" }
  - { match: "/cost", permission: any, cost: { header: X-Cost, reserve: 1, max: 2 } }
  - { match: "/moved/{rest...}", permission: any, rewrite: { strip: /moved, prefix: /internal, host: "{host}" } }
  - match: "/changed"
    permission: any
    request_headers: { set: { X-Tenant: ours }, add: { X-Via: keygate }, remove: [X-Debug] }
    response_headers: { set: { Cache-Control: no-store }, remove: [Server] }
  - match: "/pages/{rest...}"
    permission: any
    cors: { origins: ["https://app.example"], headers: [Authorization], credentials: true }
`

// few is a store of a few records: what requests ask of one.
type few struct {
	found  map[keys.Hash]keys.Found
	spaces []keys.Space
}

func (f *few) Lookup(_ context.Context, h keys.Hash) (keys.Found, error) {
	found, ok := f.found[h]
	if !ok {
		return found, keys.ErrNotFound
	}
	return found, nil
}

func (f *few) Space(_ context.Context, organization, ref string) (keys.Space, error) {
	for _, s := range f.spaces {
		if s.Organization == organization && (s.ID == ref || s.Slug == ref) {
			return s, nil
		}
	}
	return keys.Space{}, keys.ErrNotFound
}

func (f *few) Setting(context.Context, string) (keys.Setting, error) {
	return keys.Setting{}, keys.ErrNotFound
}

// memoryGate is a proxy of which everything is in memory, its upstream too: it takes
// thousands of requests a second, so that they may be anything.
type memoryGate struct {
	proxy   *proxy.Proxy
	secrets map[string]string // by the key's name
	logged  *locked

	mu  sync.Mutex
	now time.Time
}

// locked is a buffer that goroutines share.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since it was called last.
func (l *locked) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func (g *memoryGate) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// pass lets every limit's window end.
func (g *memoryGate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(2 * time.Minute)
}

// trustedPeer is the address of a proxy that is believed.
const trustedPeer = "192.0.2.1"

func newMemoryGate(t testing.TB, to http.RoundTripper) *memoryGate {
	t.Helper()
	g := &memoryGate{now: time.Now(), logged: new(locked), secrets: make(map[string]string)}
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	store := &few{found: make(map[keys.Hash]keys.Found), spaces: []keys.Space{{ID: "spc_berlin", Organization: "org_a", Slug: "berlin"}}}
	for name, k := range map[string]keys.Key{
		"all": {Permissions: []string{"*"}}, "reader": {Permissions: []string{"orders:read"}}, "tiny": {Plan: "tiny"},
		"near": {AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, "berlin": {Space: "spc_berlin"},
		"revoked": {RevokedAt: g.now}, "paused": {PausedAt: g.now},
	} {
		g.secrets[name] = format.Generate()
		k.ID, k.Name, k.Organization, k.Account, k.Version = "key_"+name, name, "org_a", "acc_a", 1
		k.Secrets = []keys.Secret{keys.NewSecret(format, g.secrets[name], g.now)}
		found := keys.Found{
			Key: k, Organization: keys.Organization{ID: "org_a", Slug: "default", Plan: "enterprise"},
			Grants: []keys.Grant{{ID: "grt_a", Account: "acc_a", Organization: "org_a", Role: "owner"}},
		}
		if k.Space != "" {
			found.Space = store.spaces[0]
		}
		store.found[k.Secrets[0].Hash] = found
	}
	g.secrets["unknown"] = format.Generate()

	loaded, err := config.ParsePolicy("memory.yaml", []byte(memoryPolicy))
	if err != nil {
		t.Fatal(err)
	}
	api := loaded.Upstreams["api"]
	api.Instead = to
	policy, err := proxy.NewPolicy(loaded.Keys, loaded.Table, loaded.Rules, map[string]upstreams.Options{"api": api})
	if err != nil {
		t.Fatal(err)
	}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	g.proxy = proxy.New(proxy.Options{
		Auth:    auth.New(auth.Options{Store: store, Format: format, CacheKeys: 1000, Now: g.clock}),
		Limiter: ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{Now: g.clock}), Now: g.clock}),
		Format:  format, Realm: "test", TrustedProxies: []netip.Prefix{netip.MustParsePrefix(trustedPeer + "/32")}, Me: true, MaxURL: 2000, MaxPerKey: 10,
		AccessLog: zap.New(zapcore.NewCore(encoder, zapcore.AddSync(g.logged), zapcore.DebugLevel)),
		Metrics:   prometheus.NewRegistry(), Now: g.clock,
	})
	g.proxy.SetPolicy(policy)
	t.Cleanup(g.proxy.Close)
	return g
}

// withKeys puts the secrets in place of the names of keys in braces, so that inputs
// hold none.
func (g *memoryGate) withKeys(input string) string {
	for _, name := range slices.Sorted(maps.Keys(g.secrets)) {
		input = strings.ReplaceAll(input, "{"+name+"}", g.secrets[name])
	}
	return input
}
