package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
)

// listens waits until a gateway answers at all, ready or not.
func (g *gateway) listens() {
	g.t.Helper()
	eventually(g.t, "the gateway listens", func() bool {
		if !g.running() {
			g.t.Fatalf("it ended with code %d:\n%s", g.wait(), g.said())
		}
		for _, url := range []string{g.proxy + "/x", g.management + "/livez"} {
			if _, err := try(http.DefaultClient, http.MethodGet, url, "", nil); err != nil {
				return false
			}
		}
		return true
	})
}

// unready wants what an instance shows that cannot reach its store: alive, not
// ready, and 503 for every key, known or not.
func (g *gateway) unready(keys ...string) {
	g.t.Helper()
	if a := g.do(http.MethodGet, g.management+"/livez", "", ""); a.status != http.StatusOK {
		g.t.Errorf("/livez: %d", a.status)
	}
	status, body := g.readyz()
	if status != http.StatusServiceUnavailable || body.Ready || body.Store == "ok" {
		g.t.Errorf("/readyz: %d %+v", status, body)
	}
	for _, key := range append(keys, newSecret(g.t)) {
		began := time.Now()
		a, _ := g.refused(http.StatusServiceUnavailable, "Temporarily unavailable", "/x", key)
		if a.header.Get("Retry-After") == "" || a.header.Get("WWW-Authenticate") != "" {
			g.t.Errorf("headers %v", a.header)
		}
		if took := time.Since(began); took > changeBound {
			g.t.Errorf("it took %v", took)
		}
	}
	// What needs no store is answered as ever.
	g.refused(http.StatusUnauthorized, "API key is missing", "/x", "")
	g.refused(http.StatusUnauthorized, "API key is invalid", "/x", "kg_live_nonsense")
}

// Redis may come after the gateways. Until then they say that they are not ready,
// and nobody is told that the key is wrong.
func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	port := redistest.FreePort(t)
	server := redistest.Start(t, redistest.Options{Port: port, AOF: "always"})
	url := server.URL()
	g := startReplicas(t, nil, url)[0]
	k := g.created(admin.NewKey{Name: "of before"})
	g.stop()
	server.Kill()

	g.launch()
	g.listens()
	g.unready(k.Secret, g.key)
	if a := g.do(http.MethodGet, g.management+"/v1/keys", g.key, ""); a.status != http.StatusServiceUnavailable {
		t.Errorf("the management API: %d %s", a.status, a.body)
	}
	eventually(t, "the log says why", func() bool {
		return len(g.logged("keygate listens, but Redis cannot be used yet: requests are answered 503 until it can")) > 0
	})
	began := time.Now()
	server.Start()
	g.ready()
	t.Logf("ready %v after Redis was started", time.Since(began).Round(time.Millisecond))
	if status, body := g.readyz(); status != http.StatusOK || !body.Ready {
		t.Errorf("/readyz: %d %+v", status, body)
	}
	g.wants(http.StatusOK, "/x", k.Secret)
	g.refused(http.StatusUnauthorized, "API key is invalid", "/x", newSecret(t))
	g.stop()

	// An instance that has never been ready ends as orderly.
	server.Kill()
	g.launch()
	g.listens()
	g.stop()
}

// The password of Redis is wrong: nothing works, the log says what is the matter,
// and repeats no part of it.
func TestWrongRedisPassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "the right one"})
	const wrong = "hunter2-is-secret"
	for name, url := range map[string]string{
		"wrong":   "redis://:" + wrong + "@" + server.Addr(),
		"none":    "redis://" + server.Addr(),
		"of user": "redis://somebody:" + wrong + "@" + server.Addr(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := onRedis(t, url, newSecret(t), nil)
			g.launch()
			g.listens()
			eventually(t, "the log says so", func() bool { return strings.Contains(g.stderr.String(), "password") })
			g.unready()
			g.stop()
			if strings.Contains(g.stderr.String(), wrong) {
				t.Errorf("the password stands in the log:\n%s", g.said())
			}
		})
	}
	t.Run("right", func(t *testing.T) {
		t.Parallel()
		g := onRedis(t, "redis://:the%20right%20one@"+server.Addr(), newSecret(t), nil)
		g.start()
		g.wants(http.StatusOK, "/x", g.created(admin.NewKey{Name: "key"}).Secret)
		if said := g.stderr.String(); strings.Contains(said, "right") {
			t.Errorf("the password stands in the log:\n%s", said)
		}
	})
}

// On Redis there is no directory for a generated administrator's key, unless
// there is.
func TestFirstStartOnRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	g := onRedis(t, server.URL(), "", nil)
	if said := g.refuses(3); !strings.Contains(said, "KEYGATE_BOOTSTRAP_KEY") || !strings.Contains(said, "KEYGATE_DATA_DIR") || !strings.Contains(said, "keygate keys generate") {
		t.Errorf("it said:\n%s", said)
	}
	if n := server.Do("KEYS", "kg:{kg}:organization:*"); len(n.([]any)) != 0 {
		t.Errorf("a start that failed left %v", n)
	}
	g = onRedis(t, server.URL(), "", settings{"KEYGATE_DATA_DIR": filepath.Join(t.TempDir(), "data")})
	g.start()
	g.key = strings.TrimSpace(read(t, filepath.Join(g.dir, "bootstrap-key")))
	if r := g.cli("orgs", "get", "default"); r.code != 0 {
		t.Errorf("with the key of the file: %+v", r)
	}
	g.wants(http.StatusOK, "/x", strings.TrimSpace(read(t, filepath.Join(g.dir, "first-key"))))

	// Another one needs no key by now, nor does it write one.
	second := onRedis(t, server.URL(), "", nil)
	second.start()
	second.key = g.key
	if r := second.cli("orgs", "get", "default"); r.code != 0 {
		t.Errorf("the second: %+v", r)
	}
}

// Replicas that start at the same moment on an empty Redis make one default
// organization between them, and every key that is in a file works.
func TestReplicasStartTogether(t *testing.T) {
	t.Parallel()
	rounds := 2
	if full() {
		rounds = 10
	}
	server := redistest.Start(t, redistest.Options{})
	for range rounds {
		for _, mode := range []string{"chosen key", "a directory each", "one directory"} {
			server.Flush()
			shared, key := filepath.Join(t.TempDir(), "data"), ""
			if mode == "chosen key" {
				key = newSecret(t)
			}
			all := make([]*gateway, 3)
			for i := range all {
				s := settings{}
				switch mode {
				case "a directory each":
					s["KEYGATE_DATA_DIR"] = filepath.Join(t.TempDir(), "data")
				case "one directory":
					s["KEYGATE_DATA_DIR"] = shared
				}
				all[i] = onRedis(t, server.URL(), key, s)
			}
			for _, g := range all {
				g.launch()
			}
			works := 0
			for _, g := range all {
				g.ready()
			}
			for _, g := range all {
				if g.key == "" {
					b, err := os.ReadFile(filepath.Join(g.dir, "bootstrap-key"))
					if err != nil {
						continue // another one was first
					}
					g.key = strings.TrimSpace(string(b))
				}
				var orgs []admin.Organization
				g.must(&orgs, "orgs", "list")
				if works++; len(orgs) != 1 || orgs[0].Slug != "default" {
					t.Errorf("%s: organizations %+v", mode, orgs)
				}
			}
			if want := map[string]int{"chosen key": 3, "a directory each": 1, "one directory": 3}[mode]; works != want {
				t.Errorf("%s: %d replicas have a key that works, want %d", mode, works, want)
			}
			var ending sync.WaitGroup
			for _, g := range all {
				ending.Go(func() { g.signal(syscall.SIGTERM); g.wait() })
			}
			ending.Wait()
		}
	}
}

// Redis is emptied under running replicas. They go on and forget what they
// remembered: the keys of before are refused, also the administrator's. A restart
// makes the first records again.
func TestRedisEmptied(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	all := startReplicas(t, nil, server.URL(), server.URL())
	k, limited := all[0].created(admin.NewKey{Name: "of before"}), all[0].created(admin.NewKey{Name: "limited", Plan: "free"})
	for _, g := range all {
		g.wants(http.StatusOK, "/x", k.Secret)
		g.wants(http.StatusOK, "/x", limited.Secret)
	}
	server.Flush()
	began := time.Now()
	for _, g := range all {
		for _, key := range []string{k.Secret, limited.Secret} {
			eventually(t, "the key is refused", func() bool {
				a := g.get("/x", key)
				if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
					checkProblem(t, a, http.StatusUnauthorized, "API key is invalid")
				}
				return a.status == http.StatusUnauthorized
			})
		}
	}
	took := time.Since(began)
	t.Logf("all refused after %v", took.Round(time.Millisecond))
	if took > changeBound {
		t.Errorf("keys of an emptied Redis were served for %v", took)
	}
	for _, g := range all {
		for range 20 {
			g.refused(http.StatusUnauthorized, "API key is invalid", "/x", k.Secret)
		}
		status, body := g.readyz()
		t.Logf("/readyz of a replica whose Redis was emptied: %d %+v", status, body)
		if a := g.do(http.MethodGet, g.management+"/v1/keys", g.key, ""); a.status != http.StatusUnauthorized {
			t.Errorf("the administrator's key of before: %d %s", a.status, a.body)
		}
	}
	all[0].restart()
	after := all[0].created(admin.NewKey{Name: "of after"})
	for _, g := range all {
		eventually(t, "the key of after works", func() bool { return g.get("/x", after.Secret).status == http.StatusOK })
		g.refused(http.StatusUnauthorized, "API key is invalid", "/x", k.Secret)
	}
}

// A SIGHUP while the start still waits for Redis was answered with an error, since
// nothing could number the policy, and the start then put the former one in force.
func TestReloadDuringTheStart(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(path string) {
		t.Helper()
		text := "version: 1\nroutes: [{ match: \"" + path + "\", permission: any }]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := redistest.Start(t, redistest.Options{Port: redistest.FreePort(t), AOF: "always"})
	g := onRedis(t, server.URL(), newSecret(t), settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_POLICY_FILE": file, "KEYGATE_POLICY_WATCH": "false",
	})
	write("/former")
	server.Kill()
	g.launch()
	g.listens()
	write("/newer")
	g.signal(syscall.SIGHUP)
	time.Sleep(time.Second) // it may act on it at once, or later
	server.Start()
	g.ready()
	k := g.created(admin.NewKey{Name: "key"})
	eventually(t, "the newer policy is in force", func() bool { return g.get("/newer", k.Secret).status == http.StatusOK })
	if a := g.get("/former", k.Secret); a.status != http.StatusNotFound {
		t.Errorf("the former policy: %d", a.status)
	}
	if failed := g.logged("policy not reloaded: the former one stays in force"); len(failed) > 0 {
		t.Errorf("logged: %v", failed)
	}
}
