package test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
)

// full asks for the heavy forms of tests. It is a function because go test knows
// that a test looked at the environment only if the test itself does: the heavy
// forms would be answered with the cached results of the light ones.
func full() bool { return os.Getenv("KEYGATE_TEST_FULL") != "" }

// onRedis describes a replica: a gateway that keeps nothing on its own disk, on
// fixed ports, so that it can be talked to before it is ready.
func onRedis(t *testing.T, url, key string, s settings) *gateway {
	t.Helper()
	env := settings{
		"REDIS_URL": url, "KEYGATE_BOOTSTRAP_KEY": key, "KEYGATE_DEFAULT_PLAN": "enterprise",
		"KEYGATE_ADDR":       fmt.Sprint("127.0.0.1:", redistest.FreePort(t)),
		"KEYGATE_ADMIN_ADDR": fmt.Sprint("127.0.0.1:", redistest.FreePort(t)),
	}
	maps.Copy(env, s)
	g := prepare(t, env)
	if s["KEYGATE_DATA_DIR"] == "" {
		delete(g.env, "KEYGATE_DATA_DIR")
		g.dir = ""
	}
	if key == "" {
		delete(g.env, "KEYGATE_BOOTSTRAP_KEY")
	}
	g.proxy, g.management = "http://"+g.env["KEYGATE_ADDR"], "http://"+g.env["KEYGATE_ADMIN_ADDR"]
	return g
}

// startReplicas serves with one replica for each URL of the same Redis.
func startReplicas(t *testing.T, s settings, urls ...string) []*gateway {
	t.Helper()
	return launchReplicas(t, false, s, urls...)
}

// startReleases does the same with the program as it is shipped.
func startReleases(t *testing.T, s settings, urls ...string) []*gateway {
	t.Helper()
	return launchReplicas(t, true, s, urls...)
}

func launchReplicas(t *testing.T, release bool, s settings, urls ...string) []*gateway {
	t.Helper()
	key := newSecret(t)
	var all []*gateway
	for _, url := range urls {
		g := onRedis(t, url, key, s)
		g.release = release
		g.launch()
		all = append(all, g)
	}
	for _, g := range all {
		g.ready()
	}
	return all
}

// api is the management API's client, as the administrator.
func (g *gateway) api() *admin.Client {
	g.t.Helper()
	u, err := url.Parse(g.management)
	if err != nil {
		g.t.Fatal(err)
	}
	return &admin.Client{URL: u, Key: g.key}
}

func (g *gateway) created(in admin.NewKey) admin.CreatedKey {
	g.t.Helper()
	k, err := g.api().CreateKey(g.t.Context(), in)
	if err != nil {
		g.t.Fatal(err)
	}
	return k
}

// late counts the decisions of replicas that came too late for the limit to
// be exact in both directions: what they booked was not admitted.
func late(all []*gateway) (decisions, burnt float64) {
	for _, g := range all {
		decisions += g.metric("keygate_limit_late_total")
		burnt += g.metric("keygate_limit_burnt_total")
	}
	return decisions, burnt
}

// spread is a number of figures in ascending order, for people.
type spread []time.Duration

func (s spread) String() string {
	if len(s) == 0 {
		return "none"
	}
	slices.Sort(s)
	at := func(p int) time.Duration { return s[(len(s)-1)*p/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("n %d, p50 %v, p99 %v, max %v", len(s), at(50), at(99), at(100))
}

// Two replicas are one gateway: the plan's number is admitted over both, never
// more, and all of it where every decision was there in time.
func TestReplicasShareLimits(t *testing.T) {
	const clients, quota = 400, 100
	runs := 3
	if full() {
		runs = 20
	}
	server := redistest.Start(t, redistest.Options{})
	backend := newUpstream(t, nil)
	all := startReleases(t, settings{"KEYGATE_UPSTREAM": backend.URL}, server.URL(), server.URL())
	c := newClient(t)
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = clients

	// Each client asks until it is let in or refused: on a busy machine some of
	// them are asked to come again at first.
	crowd := func(key string) map[int]int {
		statuses := make(map[int]int)
		var mu sync.Mutex
		var ready, done sync.WaitGroup
		gate := make(chan struct{})
		for i := range clients {
			ready.Add(1)
			done.Go(func() {
				ready.Done()
				<-gate
				for deadline := time.Now().Add(patience / 2); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
					a, err := try(c, http.MethodGet, all[i%len(all)].proxy+"/x", key, nil)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					statuses[a.status]++
					mu.Unlock()
					if a.status != http.StatusServiceUnavailable {
						return
					}
				}
			})
		}
		ready.Wait()
		close(gate)
		done.Wait()
		return statuses
	}
	crowd(all[0].created(admin.NewKey{Name: "warm"}).Secret)
	exact, tooLate := 0, 0.0
	for n := range runs {
		key := all[0].created(admin.NewKey{Name: fmt.Sprint("run ", n), Plan: "free"})
		before, burntBefore := late(all)
		seen := backend.count.Load()
		statuses := crowd(key.Secret)
		after, burntAfter := late(all)
		missed, burnt := after-before, burntAfter-burntBefore
		tooLate += missed
		admitted := statuses[http.StatusOK]
		t.Logf("run %d: answers %v; %v decisions were late, %v units burnt", n+1, statuses, missed, burnt)
		if admitted > quota || backend.count.Load()-seen != int64(admitted) {
			t.Errorf("%d requests were admitted and %d reached the upstream; the plan allows %d", admitted, backend.count.Load()-seen, quota)
		}
		if statuses[200]+statuses[429] != clients {
			t.Errorf("answers %v: each client is admitted or refused in the end, and nothing but 503 comes before", statuses)
		}
		if admitted < quota && missed == 0 && burnt == 0 {
			t.Errorf("%d requests were admitted and no decision was late; the plan allows %d", admitted, quota)
		}
		if admitted == quota {
			exact++
		}
	}
	t.Logf("exactly %d were admitted in %d of %d runs; %v decisions were late", quota, exact, runs, tooLate)
}

// All replicas are listed, and one that has a policy of its own is told apart.
func TestReplicasListed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	all := startReplicas(t, nil, server.URL(), server.URL())
	other := onRedis(t, server.URL(), all[0].key, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), tenantPolicy)})
	other.start()
	for _, g := range append(all, other) {
		var found admin.Page[admin.Replica]
		eventually(t, "all three have reported", func() bool {
			var err error
			if found, err = g.api().ListReplicas(t.Context(), admin.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			return len(found.Items) == 3
		})
		numbers := make(map[int64]int)
		for _, r := range found.Items {
			numbers[r.Rules]++
			if r.ID == "" || r.Name == "" || r.Version == "" || r.StartedAt.IsZero() || time.Since(r.SeenAt).Abs() > patience {
				t.Errorf("%+v", r)
			}
		}
		if len(numbers) != 2 {
			t.Errorf("policies by their numbers: %v, want two replicas with one and one with another", numbers)
		}
	}
	if r := other.cli("replicas"); r.code != 0 || strings.Count(r.stdout, "\n") != 4 {
		t.Errorf("keygate replicas: %+v", r)
	}
	if a := other.do(http.MethodGet, other.management+"/v1/replicas", "", ""); a.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", a.status)
	}
	for _, g := range append(all, other) {
		g.stop()
	}
}

// traffic sends requests until it is stopped, and counts the answers.
type traffic struct {
	stopping atomic.Bool
	all      sync.WaitGroup
	mu       sync.Mutex
	statuses map[int]int
	took     spread
}

// traffic has as many clients as there are keys ask a replica again and again.
func (g *gateway) traffic(pause time.Duration, keys ...string) *traffic {
	l := &traffic{statuses: make(map[int]int)}
	for _, key := range keys {
		c := newClient(g.t)
		l.all.Go(func() {
			for !l.stopping.Load() {
				began := time.Now()
				a, err := try(c, http.MethodGet, g.proxy+"/load", key, nil)
				if err != nil {
					a.status = 0
				}
				l.mu.Lock()
				l.statuses[a.status]++
				l.took = append(l.took, time.Since(began))
				l.mu.Unlock()
				time.Sleep(pause)
			}
		})
	}
	return l
}

func (l *traffic) stop() map[int]int {
	l.stopping.Store(true)
	l.all.Wait()
	return l.statuses
}
