package proxy_test

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/proxy"
	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// twin is a second replica on the gate's store, with limits of its own.
func (g *explained) twin() (*proxy.Proxy, *breakable) {
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		g.t.Fatal(err)
	}
	ledger := &breakable{Ledger: memory.New(memory.Options{Now: g.clock})}
	p := proxy.New(proxy.Options{
		Auth: auth.New(auth.Options{Store: g.store, Format: format, CacheKeys: 1000, Now: g.clock}),
		Limiter: ratelimit.NewLimiter(ratelimit.LimiterOptions{
			Ledger: ledger, Local: memory.New(memory.Options{Now: g.clock}), Now: g.clock,
		}),
		Format: format, Realm: "test", AccessLog: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: g.clock,
	})
	g.t.Cleanup(p.Close)
	p.SetPolicy(g.compile(strings.ReplaceAll(explainPolicy, "UPSTREAM", g.upstream.URL)))
	return p, ledger
}

var (
	someMethods = []string{"GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "M-SEARCH"}
	someHosts   = []string{"x", "x", "gate.example", "GATE.example.:8080", "[::1]", ""}
	someTargets = []string{
		"/any/x", "/orders/1", "/status", "/any/x", "/orders/2", "/any/y", "/any/x", "/orders", "/orders/", "/orders/1", "/both", "/any", "/any/x", "/any/x/y", "/header", "/query", "/space", "/status", "/nowhere", "/", "*",
		"/org/default/x", "/org/acme/x", "/org//x", "/spaces/berlin/x", "/spaces/rome/x", "/spaces/none/x", "/org/default/a", "/org/acme/a", "/org/default",
		"/any/..", "/any/%2e", "/any/%2F", "/any/%", "/any/caf%C3%A9", "/any/%ff", "/any/;x", "orders", "http://gate.example/any/x", "//any/x", "gate.example:443",
	}
	someQueries = []string{"", "", "?", "?org=default", "?org=acme", "?org=default&org=acme", "?org=default;", "?org=%zz", "?space=berlin", "?org=default&space=rome", "?org="}
	someHeaders = [][2]string{
		{"X-Organization", "default"},
		{"x-organization", "acme"},
		{"X_Organization", "default"},
		{"Connection", "x-organization"},
		{"Connection", "x_space"},
		{"X-Space", "berlin"},
		{"X-Space", "rome"},
		{"X-Space", ""},
		{"X-Http-Method-Override", "DELETE"},
		{"X-Method-Override", ""},
		{"X-Forwarded-For", "198.51.100.1"},
	}
	someClients = []string{"192.0.2.7", "198.51.100.9", "2001:db8::1", "::ffff:192.0.2.8"}
)

// TestExplainIsWhatIsAnswered: random requests are answered as explained, however
// often they were explained before, and a replica that nobody asks for
// explanations answers all of them alike.
func TestExplainIsWhatIsAnswered(t *testing.T) {
	g := newExplained(t)
	undisturbed, ledger := g.twin()
	owners := slices.Sorted(maps.Keys(g.secrets))
	round := 0
	seen := make(map[string]int) // so that the test cannot come to test nothing
	rapid.Check(t, func(rt *rapid.T) {
		round++
		g.wait(2 * time.Minute) // every window is over
		for range rapid.IntRange(1, 12).Draw(rt, "requests") {
			key := rapid.SampledFrom(owners).Draw(rt, "key")
			target := rapid.SampledFrom(someTargets).Draw(rt, "target") + rapid.SampledFrom(someQueries).Draw(rt, "query")
			if rapid.IntRange(0, 20).Draw(rt, "exposed") == 20 {
				target += "?" + g.secrets["reader"]
			}
			q := g.question(key, rapid.SampledFrom(someMethods).Draw(rt, "method"), target)
			q.Host = rapid.SampledFrom(someHosts).Draw(rt, "host")
			for _, h := range rapid.SliceOfN(rapid.SampledFrom(someHeaders), 0, 2).Draw(rt, "headers") {
				q.Header[h[0]] = append(q.Header[h[0]], h[1])
			}
			q.Client = netip.MustParseAddr(rapid.SampledFrom(someClients).Draw(rt, "client"))
			if strings.HasPrefix(target, "/status") { // budgets go by the real clock: each round has addresses of its own
				q.Client = netip.AddrFrom4([4]byte{192, 0, byte(round >> 8), byte(round)})
			}
			away := rapid.SampledFrom([]bool{false, false, false, false, true}).Draw(rt, "away")
			g.broken.away.Store(away)
			ledger.away.Store(away)
			for range rapid.SampledFrom([]int{1, 4, 1, 2}).Draw(rt, "times") {
				seen[g.step(rt, undisturbed, q, g.secrets[key])]++
			}
			g.wait(time.Duration(rapid.IntRange(0, 1500).Draw(rt, "pause")) * time.Millisecond)
		}
	})
	if seen[""] == 0 || seen["Insufficient permissions"] == 0 || len(seen) < 10 {
		t.Errorf("too few kinds of answers: %v", seen)
	}
}

// step makes one request on both replicas and returns the error it ends in.
func (g *explained) step(rt *rapid.T, undisturbed http.Handler, q auth.Question, secret string) string {
	if _, readable := g.serve(http.NotFoundHandler(), q, secret); !readable {
		e := g.proxy.Explain(context.Background(), q)
		if problem := coherent(e); problem != "" || e.Status != 400 {
			rt.Fatalf("%+v\n%s %+v", q, problem, e)
		}
		return e.Error
	}
	e, problem := g.agree(q, secret)
	if problem != "" {
		rt.Fatalf("%+v\n%s", q, problem)
	}
	got, _ := g.serve(undisturbed, q, secret)
	if e.Rule != nil && e.Rule.Public != "" {
		got.Detail, got.RetryAfter = e.Detail, verdictOf(e).RetryAfter // the real clock went on
	}
	if got != verdictOf(e) {
		rt.Fatalf("%+v\nexplained and answered as %+v, by a replica without explanations as %+v", q, verdictOf(e), got)
	}
	return e.Error
}

// FuzzExplain: whatever is asked about, the answer is that of a request that
// net/http can read, or says that it is none.
func FuzzExplain(f *testing.F) {
	for _, target := range someTargets {
		f.Add("GET", target, "x", "X-Organization", "default", "reader")
	}
	f.Add("OPTIONS", "*", "", "Connection", "X-Space", "all")
	f.Add("CONNECT", "gate.example:443", "gate.example", "X-Http-Method", "", "none")
	f.Add("G\x00T", "/any\r\n/x", "a b", "X Y", "\x7f", "tiny")
	f.Add("", "", "", "", "", "")
	f.Add(strings.Repeat("A", 1000), "/any/"+strings.Repeat("%41", 30_000), "[", "Content-Length", "-1", "paused")
	g := newExplained(f)
	owners := slices.Sorted(maps.Keys(g.secrets))
	f.Fuzz(func(t *testing.T, method, target, host, name, value, key string) {
		if _, ok := g.secrets[key]; !ok {
			key = owners[len(key)%len(owners)]
		}
		q := g.question(key, method, target, name, value)
		q.Host = host
		e := g.proxy.Explain(t.Context(), q)
		if problem := coherent(e); problem != "" {
			t.Fatalf("%s %+v", problem, e)
		}
		if unlike(q, name) {
			return
		}
		if _, readable := g.serve(http.NotFoundHandler(), q, g.secrets[key]); !readable {
			if e.Status != 400 && e.Status != 431 {
				t.Fatalf("net/http takes it for no request; explained as %+v", e)
			}
			return
		}
		if e.Error == "Malformed request" {
			// ReadRequest leaves these to the server that calls it.
			if len(method)+len(target) <= 64<<10 && strings.Trim(strings.Trim(host, " \t"), hostBytes) == "" {
				t.Fatalf("net/http can read it: %+v", e)
			}
			return
		}
		if _, problem := g.agree(q, g.secrets[key]); problem != "" {
			t.Fatal(problem)
		}
		g.wait(time.Second)
	})
}

// unlike reports what would be another request on a connection, or one that is
// not judged by what a question holds: how a body is framed, and a second host.
func unlike(q auth.Question, name string) bool {
	for _, s := range []string{q.Method, q.Target, q.Host, name, q.Header[name][0]} {
		if strings.ContainsAny(s, "\r\n") {
			return true
		}
	}
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Authorization", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return strings.ContainsAny(name, ": \t")
}

// hostBytes are those that net/http's server takes in a Host header.
const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!$%&'()*+,-.:;=[]_~"
