package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"keygate/auth"
	"keygate/config"
	"keygate/internal/keys"
	"keygate/internal/store/sqlite"
	"keygate/proxy/upstream"
	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

const benchPolicy = `
version: 1
upstreams: { api: { targets: ["http://upstream.test"] } }
permissions:
  "items:read": { group: Read }
  "items:write": { group: Write }
  "orders:read": { group: Read }
plans:
  none: { limits: [] }
  one: { limits: [{ name: minute, requests: 1000000000000, per: 1m }] }
  four:
    limits:
      - { name: second, requests: 1000000000000, per: 1s }
      - { name: minute, requests: 1000000000000, per: 1m }
      - { name: hour, requests: 1000000000000, per: 1h }
      - { name: day, requests: 1000000000000, per: 24h }
  spent: { limits: [{ name: hour, requests: 1, per: 1h }] }
routes:
  - { match: "GET /v1/items", permission: "items:read" }
  - { match: "POST /v1/items", permission: "items:write" }
  - { match: "GET /v1/items/{id}", permission: "items:read" }
  - { match: "GET /v1/orders/{id...}", permission: "orders:read" }
  - { match: "/v1/any/{rest...}", permission: any }
`

// instant answers without a connection, so that what is measured is the proxy.
type instant struct{}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	const body = `{"items":[{"id":"o_1001","amount":1299}]}`
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"41"}, "Date": {"Thu, 01 Jan 1970 00:00:00 GMT"}},
		Body:   io.NopCloser(strings.NewReader(body)),
	}, nil
}

// unread is a ResponseWriter of which nothing is kept.
type unread struct{ header http.Header }

func (w unread) Header() http.Header       { return w.header }
func (unread) WriteHeader(int)             {}
func (unread) Write(b []byte) (int, error) { return len(b), nil }
func (unread) Flush()                      {}

// benchGate is a proxy on a real store whose upstream is instant.
func benchGate(b *testing.B, level zapcore.Level) (p *Proxy, key func(plan string) string) {
	b.Helper()
	store, err := sqlite.Open(context.Background(), sqlite.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		b.Fatal(err)
	}
	loaded, err := config.ParsePolicy("bench.yaml", []byte(benchPolicy))
	if err != nil {
		b.Fatal(err)
	}
	api := loaded.Upstreams["api"]
	api.Instead = instant{}
	policy, err := NewPolicy(loaded.Keys, loaded.Table, loaded.Rules, map[string]upstream.Options{"api": api})
	if err != nil {
		b.Fatal(err)
	}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	authenticator := auth.New(auth.Options{Store: store, Format: format, CacheKeys: 1000, Now: time.Now})
	p = New(Options{
		Auth: authenticator, Limiter: ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{})}),
		Format: format, Realm: "bench", AccessLog: zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), level)),
		Metrics: prometheus.NewRegistry(), Now: time.Now,
	})
	p.SetPolicy(policy)
	service := keys.NewService(keys.ServiceOptions{Store: store, Format: format, Policy: p.PolicyKeys, Changed: authenticator.Changed, Now: time.Now})
	if _, err := service.Bootstrap(context.Background(), keys.BootstrapOptions{}); err != nil {
		b.Fatal(err)
	}
	return p, func(plan string) string {
		_, secret, err := service.CreateKey(context.Background(), keys.System, keys.NewKey{Name: "key " + plan, Plan: plan, Permissions: []string{"items:read"}})
		if err != nil {
			b.Fatal(err)
		}
		return secret
	}
}

// serve sends one request again and again; the first answer must be status.
func serve(b *testing.B, h http.Handler, status int, method, target, secret string) {
	b.Helper()
	r := httptest.NewRequestWithContext(context.Background(), method, target, nil)
	r.Header.Set("User-Agent", "bench")
	r.Header.Set("Accept", "*/*")
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	first := httptest.NewRecorder()
	h.ServeHTTP(first, r)
	if first.Code != status {
		b.Fatalf("answer is %d, want %d: %s", first.Code, status, first.Body)
	}
	w := unread{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkReverseProxy is what all admitted requests pay: compare with
// BenchmarkAdmitted.
func BenchmarkReverseProxy(b *testing.B) {
	target := &url.URL{Scheme: "http", Host: "upstream.test"}
	serve(b, &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
		Transport: instant{}, BufferPool: buffers,
	}, http.StatusOK, http.MethodGet, "/v1/items", "")
}

func BenchmarkAdmitted(b *testing.B) {
	for _, log := range []struct {
		name  string
		level zapcore.Level
	}{{"log", zapcore.InfoLevel}, {"nolog", zapcore.WarnLevel}} {
		for _, plan := range []string{"none", "one", "four"} {
			b.Run(log.name+"/limits="+plan, func(b *testing.B) {
				p, key := benchGate(b, log.level)
				serve(b, p, http.StatusOK, http.MethodGet, "/v1/items", key(plan))
			})
		}
	}
}

func BenchmarkRefused(b *testing.B) {
	p, key := benchGate(b, zapcore.WarnLevel)
	good := key("one")
	spent := key("spent")
	serveOnce(b, p, spent)
	unknown := p.format.Generate()
	for _, c := range []struct {
		name           string
		status         int
		method, target string
		secret         string
	}{
		{"path", http.StatusBadRequest, http.MethodGet, "/v1//items", good},
		{"route", http.StatusNotFound, http.MethodGet, "/v2", good},
		{"method", http.StatusMethodNotAllowed, http.MethodPut, "/v1/items", good},
		{"nokey", http.StatusUnauthorized, http.MethodGet, "/v1/items", ""},
		{"malformed", http.StatusUnauthorized, http.MethodGet, "/v1/items", "wrong"},
		{"unknown", http.StatusUnauthorized, http.MethodGet, "/v1/items", unknown},
		{"scope", http.StatusForbidden, http.MethodPost, "/v1/items", good},
		{"limit", http.StatusTooManyRequests, http.MethodGet, "/v1/items", spent},
	} {
		b.Run(c.name, func(b *testing.B) { serve(b, p, c.status, c.method, c.target, c.secret) })
	}
}

func serveOnce(b *testing.B, h http.Handler, secret string) {
	b.Helper()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/v1/items", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// BenchmarkUnderWay is what the bound on a key's requests under way costs each of them:
// compare with BenchmarkAdmitted. In parallel all are of one key.
func BenchmarkUnderWay(b *testing.B) {
	const key = "key_01990f3a2b4c7d8e9fa0b1c2d3"
	b.Run("alone", func(b *testing.B) {
		c := newCrowd(1000, prometheus.NewRegistry())
		b.ReportAllocs()
		for b.Loop() {
			c.join(key)
			c.leave(key)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		c := newCrowd(1000, prometheus.NewRegistry())
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.join(key)
				c.leave(key)
			}
		})
	})
}
