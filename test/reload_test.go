package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// roundPolicy has one route that stays, and one that is there in its round only.
const roundPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions: { "orders:read": { group: Read } }
plans: { ROUND: { limits: [] } }
routes:
  - { match: "GET /steady", permission: any }
  - { match: "GET /ROUND", permission: "orders:read" }
`

// put replaces a file in one step, as careful editors do.
func put(t *testing.T, file, text string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(file), "next")
	write(t, next, text)
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

// load is clients that ask without a pause until they are told to stop.
type load struct {
	requests atomic.Int64
	stopping chan struct{}
	clients  sync.WaitGroup
}

func (g *gateway) load(clients int, path, key string) *load {
	l := &load{stopping: make(chan struct{})}
	c := newClient(g.t)
	for range clients {
		l.clients.Go(func() {
			for {
				select {
				case <-l.stopping:
					return
				default:
				}
				a, err := try(c, http.MethodGet, g.proxy+path, key, nil)
				if err != nil || a.status != http.StatusOK {
					g.t.Errorf("request %d: %v, %d %s", l.requests.Load(), err, a.status, a.body)
				}
				l.requests.Add(1)
			}
		})
	}
	return l
}

func (l *load) stop() {
	close(l.stopping)
	l.clients.Wait()
}

// Policies change under load and no client notices; a bad one changes nothing
// but what the operator is told.
func TestReload(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	policy := func(round int) string {
		return strings.ReplaceAll(inFrontOf(api, roundPolicy), "ROUND", fmt.Sprint("round-", round))
	}
	file := written(t, "policy.yaml", policy(0))
	g := start(t, settings{
		"KEYGATE_POLICY_FILE": file, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_POLICY_WATCH": "false",
		"KEYGATE_FAILED_PER_ADDRESS": "off", // it asks for what is not there until it is
	})
	k := g.newKey("steady", "--permissions", "orders:read")

	load := g.load(4, "/steady", k.Secret)
	for round := 1; round <= 50; round++ {
		put(t, file, policy(round))
		g.signal(syscall.SIGHUP)
		path := fmt.Sprint("/round-", round)
		eventually(t, "the new policy acts", func() bool { return g.get(path, k.Secret).status == http.StatusOK })
		g.refused(http.StatusNotFound, "Not found", fmt.Sprint("/round-", round-1), k.Secret)
	}
	before := load.requests.Load()
	testBadPolicy(t, g, file, policy(50), k.Secret)
	eventually(t, "requests pass after all that", func() bool { return load.requests.Load() > before+100 })
	load.stop()
	if n := g.metric(`keygate_policy_loads_total{result="success"}`); n != 52 {
		t.Errorf("%v policies were loaded, want 52", n)
	}
	var loads []struct {
		After struct{ Digest, Source string }
	}
	if g.must(&loads, "audit", "list", "--action", "policy.load", "--limit", "1"); len(loads) != 1 || loads[0].After.Source != file || loads[0].After.Digest == "" {
		t.Errorf("the audit log says of the last policy %+v", loads)
	}
	if g.metric("keygate_requests_total{code=\"2xx\",decision=\"allowed\",plan=\"enterprise\",route=\"GET /steady\"}") != float64(load.requests.Load()) {
		t.Error("the metric of the route that stays has lost requests on the way")
	}
}

func testBadPolicy(t *testing.T, g *gateway, file, good, key string) {
	_, before := g.readyz()
	put(t, file, strings.Replace(good, `permission: any`, `permission: "orders:raed"`, 1))
	const where, problem = "policy.yaml:7:41", `did you mean "orders:read"?`
	g.signal(syscall.SIGHUP)
	eventually(t, "the refusal is logged", func() bool { return len(g.logged("policy not reloaded: the former one stays in force")) > 0 })
	if said, _ := g.logged("policy not reloaded: the former one stays in force")[0]["error"].(string); !strings.Contains(said, where) || !strings.Contains(said, problem) {
		t.Errorf("the log does not say %s and %s: %s", where, problem, said)
	}
	status, body := g.readyz()
	if status != http.StatusOK || !body.Ready || !strings.Contains(body.Policy.Error, where) || body.Policy.Rules != before.Policy.Rules {
		t.Errorf("/readyz: %d %+v", status, body)
	}
	if v := g.metric("keygate_policy_last_load_successful"); v != 0 {
		t.Errorf("keygate_policy_last_load_successful is %v", v)
	}
	g.wants(http.StatusOK, "/round-50", key)

	// A file that is gone is a bad one too.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGHUP)
	eventually(t, "the second refusal is counted", func() bool { return g.metric(`keygate_policy_loads_total{result="failure"}`) == 2 })
	g.wants(http.StatusOK, "/round-50", key)

	put(t, file, good)
	g.signal(syscall.SIGHUP)
	eventually(t, "the good policy is back", func() bool { return g.metric("keygate_policy_last_load_successful") == 1 })
	if status, body := g.readyz(); status != http.StatusOK || body.Policy.Error != "" {
		t.Errorf("/readyz: %d %+v", status, body)
	}
}

// A plan that the new policy forgot shows before one of its customers calls.
func TestReloadWithoutAPlanInUse(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	policy := strings.ReplaceAll(inFrontOf(api, roundPolicy), "ROUND", "gold")
	file := written(t, "policy.yaml", policy)
	g := start(t, settings{"KEYGATE_POLICY_FILE": file})
	var org struct{ ID string }
	g.must(&org, "orgs", "create", "--slug", "acme", "--plan", "gold", "-o", "json")
	put(t, file, strings.Replace(policy, "gold: {", "silver: {", 1))
	g.signal(syscall.SIGHUP)
	eventually(t, "/readyz names the plan", func() bool {
		status, body := g.readyz()
		return status == http.StatusOK && len(body.UnknownPlans) == 1 && body.UnknownPlans[0] == "gold"
	})
	if n := g.metric("keygate_unknown_plans"); n != 1 {
		t.Errorf("keygate_unknown_plans is %v", n)
	}
	k := g.newKey("of acme", "--organization", "acme")
	if got := g.wants(http.StatusOK, "/steady", k.Secret).header.Get("RateLimit-Policy"); !strings.Contains(got, "q=100;w=60") {
		t.Errorf("the default plan does not stand in: %q", got)
	}
	put(t, file, policy)
	g.signal(syscall.SIGHUP)
	eventually(t, "the plan is back", func() bool { _, body := g.readyz(); return len(body.UnknownPlans) == 0 })
}

// The policy is reloaded by itself, however its file is replaced, and only if it
// says something else than before.
func TestReloadOfAChangedFile(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	policy := func(round int) string {
		return strings.ReplaceAll(inFrontOf(api, roundPolicy), "ROUND", fmt.Sprint("round-", round))
	}
	file := written(t, "policy.yaml", policy(0))
	g := start(t, settings{"KEYGATE_POLICY_FILE": file})
	k := g.newKey("editor", "--permissions", "orders:read")
	acts := func(round int, what string) {
		t.Helper()
		eventually(t, what+" acts", func() bool { return g.get(fmt.Sprint("/round-", round), k.Secret).status == http.StatusOK })
		g.refused(http.StatusNotFound, "Not found", fmt.Sprint("/round-", round-1), k.Secret)
	}
	write(t, file, policy(1))
	acts(1, "an edit in place")
	put(t, file, policy(2))
	acts(2, "a renamed file")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz says that the file is gone", func() bool {
		_, body := g.readyz()
		return strings.Contains(body.Policy.Error, "no such file")
	})
	g.wants(http.StatusOK, "/round-2", k.Secret)
	write(t, file, policy(2))
	eventually(t, "/readyz forgets the error", func() bool { _, body := g.readyz(); return body.Policy.Error == "" })

	put(t, file, strings.Replace(policy(3), `permission: any`, `permission: "orders:raed"`, 1))
	eventually(t, "the refusal counts", func() bool { return g.metric("keygate_policy_last_load_successful") == 0 })
	if _, body := g.readyz(); !strings.Contains(body.Policy.Error, "policy.yaml:7:41") {
		t.Errorf("/readyz: %+v", body)
	}
	if refused := g.logged("policy not reloaded: the former one stays in force"); len(refused) != 2 {
		t.Errorf("logged: %v", refused)
	}
	g.wants(http.StatusOK, "/round-2", k.Secret)
	put(t, file, policy(3))
	acts(3, "the mended policy")

	// Written again, as it is: the change after it is the only one that counts.
	loads := g.metric(`keygate_policy_loads_total{result="success"}`)
	write(t, file, policy(3))
	put(t, file, policy(3))
	time.Sleep(time.Second) // by then it was looked at; if not, this tests less
	put(t, file, policy(4))
	acts(4, "the last policy")
	if n := g.metric(`keygate_policy_loads_total{result="success"}`); n != loads+1 {
		t.Errorf("%v loads, want %v", n, loads+1)
	}
	if n := g.metric(`keygate_policy_loads_total{result="failure"}`); n != 2 {
		t.Errorf("%v failures, want 2", n)
	}
	g.stop()
}

// Kubernetes puts the files of a ConfigMap behind a link that it replaces.
func TestReloadOfAConfigMap(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	dir := t.TempDir()
	mount := func(round int) {
		t.Helper()
		version := fmt.Sprintf("..2031_05_31_%d", round)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		former, _ := os.Readlink(filepath.Join(dir, "..data"))
		must(os.Mkdir(filepath.Join(dir, version), 0o755))
		write(t, filepath.Join(dir, version, "policy.yaml"), strings.ReplaceAll(inFrontOf(api, roundPolicy), "ROUND", fmt.Sprint("round-", round)))
		must(os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if former == "" {
			must(os.Symlink(filepath.Join("..data", "policy.yaml"), filepath.Join(dir, "policy.yaml")))
			return
		}
		must(os.RemoveAll(filepath.Join(dir, former)))
	}
	mount(0)
	g := start(t, settings{"KEYGATE_POLICY_FILE": filepath.Join(dir, "policy.yaml")})
	k := g.newKey("pod", "--permissions", "orders:read")
	for round := 1; round <= 3; round++ {
		mount(round)
		eventually(t, "the new version acts", func() bool { return g.get(fmt.Sprint("/round-", round), k.Secret).status == http.StatusOK })
	}
	if refused := g.logged("policy not reloaded: the former one stays in force"); len(refused) > 0 {
		t.Errorf("a version was refused on the way: %v", refused)
	}
}

// Policies and certificates change under load: two policies in turn, which differ in
// a route and in how their upstreams are reached, on SIGHUP and because the file
// changed. No request fails, over whatever it came, and every stream goes on.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	rounds := 10
	if full() {
		rounds = 100
	}
	api, files := newStreamer(t), newCertificate(t, 1)
	policies := [2]string{strings.ReplaceAll(inFrontOf(api.upstream, streamPolicy), "GRPC", grpcServer(t))}
	policies[1] = strings.NewReplacer("GET /first", "GET /second", "connect: 5s", "connect: 6s").Replace(policies[0])
	paths := [2]string{"/first", "/second"}
	file := written(t, "policy.yaml", policies[0])
	g := start(t, settings{
		"KEYGATE_POLICY_FILE": file, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_FAILED_PER_ADDRESS": "off",
		"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
	})
	key := g.newKey("caller").Secret
	streams, callers := g.streams(api, key), g.callers(key)
	callers.flows(t, 100)
	certificate := int64(1)
	for round := 1; round <= rounds; round++ {
		now, before := paths[round%2], paths[(round+1)%2]
		put(t, file, policies[round%2])
		if round%2 == 0 {
			g.signal(syscall.SIGHUP)
		}
		if round%5 == 0 {
			certificate++
			files.issue(t, certificate)
		}
		eventually(t, "the new policy acts", func() bool { return g.get(now, key).status == http.StatusOK })
		g.refused(http.StatusNotFound, "Not found", before, key)
		pingAll(t, streams, fmt.Sprint("round ", round))
		callers.flows(t, 20)
	}
	eventually(t, "the last certificate is served", func() bool { return serial(t, g.secureURL()) == certificate })
	callers.flows(t, 20)
	callers.stop()
	for _, s := range streams {
		if err := s.finish(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	if refused := g.logged("policy not reloaded: the former one stays in force"); len(refused) > 0 {
		t.Errorf("a policy was refused on the way: %v", refused)
	}
	if n := g.metric(`keygate_policy_loads_total{result="success"}`); n < float64(rounds)+1 {
		t.Errorf("%v policies were loaded in %d rounds", n, rounds)
	}
	counted := 0.0
	for _, route := range []string{"GET /quick", "POST /quick"} {
		counted += g.metric(`keygate_requests_total{code="2xx",decision="allowed",plan="enterprise",route="` + route + `"}`)
	}
	if want := float64(callers.requests.Load()); counted != want {
		t.Errorf("%v requests are counted, want %v", counted, want)
	}
	t.Logf("%d rounds, %d certificates, %d requests, %d streams", rounds, certificate, callers.requests.Load(), len(streams))
	g.stop()
}
