package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"keygate/auth"
	"keygate/config"
	"keygate/internal/keys"
	"keygate/internal/pace"
	"keygate/internal/problem"
	"keygate/internal/store/sqlite"
	"keygate/proxy"
	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// gate is a whole data plane on a real store, in front of a real upstream, with
// a clock that tests set.
type gate struct {
	t        testing.TB
	url      string
	server   *httptest.Server
	proxy    *proxy.Proxy
	auth     *auth.Authenticator
	service  *keys.Service
	store    keys.Store
	logs     *observer.ObservedLogs // of requests
	told     *observer.ObservedLogs // of upstreams
	registry *prometheus.Registry
	upstream *upstream
	ledger   *memory.Ledger
	broken   *breakable // in front of ledger
	settling *ratelimit.Settling

	mu  sync.Mutex
	now time.Time
}

func (g *gate) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *gate) wait(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

// upstream keeps the last request that reached it.
type upstream struct {
	*httptest.Server
	mu     sync.Mutex
	last   *http.Request
	uri    string
	count  int
	answer http.HandlerFunc
}

func newUpstream(t testing.TB) *upstream {
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.last, u.uri, u.count = r, r.RequestURI, u.count+1
		answer := u.answer
		u.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) seen() (*http.Request, string, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.uri, u.count
}

const testPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions:
  "orders:read": { group: Read }
  "orders:write": { group: Write }
  "team:manage": { group: Admin }
roles:
  viewer: ["read:all"]
plans:
  tiny: { limits: [{ name: minute, requests: 3, per: 1m }, { name: burst, requests: 2, per: 1s }] }
routes:
  - { match: "GET /orders/{id...}", permission: "orders:read" }
  - { match: "POST /orders", permission: "orders:write" }
  - { match: "GET /both", permission: ["orders:read", "orders:write"] }
  - { match: "/any/{rest...}", permission: any }
  - { match: "GET /org/{org}/x", permission: any, organization: "path:org" }
  - { match: "GET /header", permission: any, organization: "header:X-Organization" }
  - { match: "GET /query", permission: any, organization: "query:org" }
  - { match: "GET /spaces/{space}/x", permission: "orders:read", space: "path:space" }
  - { match: "GET /status", public: { per_address: "2/1m" } }
`

type gateOptions struct {
	policy  string
	trusted []netip.Prefix
	target  string               // instead of the recording upstream
	noMe    bool                 // /.keygate/ is nothing special
	https   bool                 // is required
	patient time.Duration        // with a client's body; 0: for ever
	takes   time.Duration        // for which an answer may stand still over HTTP/2; 0: for ever
	rate    int                  // bytes a second that a client must send and take; 0: any
	fresh   time.Duration        // keys are trusted without a word of the change feed; 0: always
	perKey  int                  // requests under way; 0: any number
	level   zapcore.LevelEnabler // of the log; nil: all
}

func newGate(t testing.TB, o gateOptions) *gate {
	t.Helper()
	g := &gate{t: t, now: time.Now(), upstream: newUpstream(t), registry: prometheus.NewRegistry()}
	store, err := sqlite.Open(context.Background(), sqlite.Options{Dir: t.TempDir(), Now: g.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	g.store = store
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if o.level == nil {
		o.level = zapcore.DebugLevel
	}
	core, logs := observer.New(o.level)
	g.logs = logs
	tells, told := observer.New(o.level)
	g.told = told
	g.ledger = memory.New(memory.Options{Now: g.clock})
	g.broken = &breakable{Ledger: g.ledger}
	authenticator := auth.New(auth.Options{Store: store, Format: format, CacheKeys: 1000, FreshFor: o.fresh, Now: g.clock})
	g.auth = authenticator
	g.settling = ratelimit.NewSettling(g.ledger, "rep_test", g.clock)
	inFlight := ratelimit.NewInFlight(g.broken, 0, "rep_test", g.clock)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go inFlight.Run(ctx)
	g.proxy = proxy.New(proxy.Options{
		Auth: authenticator, Settling: g.settling, InFlight: inFlight,
		Limiter: ratelimit.NewLimiter(ratelimit.LimiterOptions{
			Ledger: g.broken, Local: memory.New(memory.Options{Now: g.clock}), Now: g.clock,
		}),
		Format: format, Realm: "test", TrustedProxies: o.trusted, Me: !o.noMe, RequireHTTPS: o.https, Sends: pace.Pace{Wait: o.patient, Rate: o.rate}, Takes: pace.Pace{Wait: o.takes, Rate: o.rate}, MaxPerKey: o.perKey, AccessLog: zap.New(core), Log: zap.New(tells), Metrics: g.registry, Now: g.clock,
	})
	t.Cleanup(g.proxy.Close)
	if o.policy == "" {
		o.policy = testPolicy
	}
	if o.target == "" {
		o.target = g.upstream.URL
	}
	g.setPolicy(strings.ReplaceAll(o.policy, "UPSTREAM", o.target))
	g.service = keys.NewService(keys.ServiceOptions{Store: store, Format: format, Policy: g.proxy.PolicyKeys, Changed: authenticator.Changed, Now: g.clock})
	if _, err := g.service.Bootstrap(context.Background(), keys.BootstrapOptions{}); err != nil {
		t.Fatal(err)
	}
	g.server = httptest.NewServer(g.proxy)
	t.Cleanup(g.server.Close)
	g.url = g.server.URL
	return g
}

// settle has the corrections of costs arrive.
func (g *gate) settle() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.settling.Run(ctx)
}

func (g *gate) setPolicy(yaml string) {
	g.t.Helper()
	g.proxy.SetPolicy(g.compile(yaml))
}

func (g *gate) compile(yaml string) *proxy.Policy {
	g.t.Helper()
	loaded, err := config.ParsePolicy("test.yaml", []byte(yaml))
	if err != nil {
		g.t.Fatal(err)
	}
	compiled, err := proxy.NewPolicy(loaded.Keys, loaded.Table, loaded.Rules, loaded.Upstreams)
	if err != nil {
		g.t.Fatal(err)
	}
	return compiled
}

// key makes a key of the organization "default" unless in says otherwise.
func (g *gate) key(in keys.NewKey) (keys.Key, string) {
	g.t.Helper()
	if in.Name == "" {
		in.Name = "test"
	}
	k, secret, err := g.service.CreateKey(context.Background(), keys.System, in)
	if err != nil {
		g.t.Fatal(err)
	}
	return k, secret
}

// answer is a response that was read whole.
type answer struct {
	*http.Response
	body    []byte
	problem problem.Problem
}

// get sends a request; headers are name, value, name, value …
func (g *gate) get(method, target, secret string, headers ...string) answer {
	g.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, g.url+target, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i < len(headers); i += 2 {
		// Not Add: a test may want a spelling that Go would mend.
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	return g.send(r)
}

func (g *gate) send(r *http.Request) answer {
	g.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		g.t.Fatal(err)
	}
	a := answer{Response: res}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		g.t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.Header.Get("Content-Type") == problem.ContentType {
		if err := json.Unmarshal(a.body, &a.problem); err != nil {
			g.t.Fatalf("body %s: %v", a.body, err)
		}
	}
	return a
}

// metric is the value of a series, 0 if there is none.
func (g *gate) metric(series string) float64 {
	g.t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if fmt.Sprintf("%s{%s}", f.GetName(), strings.Join(labels, ",")) == series {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func zapDecision(d string) zap.Field { return zap.String("decision", d) }

// breakable is a ledger that can be away.
type breakable struct {
	ratelimit.Ledger
	away, panics atomic.Bool
}

func (b *breakable) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	if b.panics.Load() {
		panic("a mistake of ours")
	}
	if b.away.Load() {
		return errors.New("ledger is away")
	}
	return b.Ledger.Lease(ctx, asks, grants)
}

func (b *breakable) Peek(ctx context.Context, a ratelimit.Ask) (ratelimit.Grant, error) {
	if b.away.Load() {
		return ratelimit.Grant{}, errors.New("ledger is away")
	}
	return b.Ledger.Peek(ctx, a)
}
