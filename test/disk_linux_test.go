package test

import (
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/admin"
)

// fullPlans need the disk for nothing, for nothing, and for each block of a quota.
const fullPlans = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
plans:
  unlimited: { limits: [] }
  sliding:   { limits: [{ name: minute, requests: 1000000, per: 1m }] }
  calendar:  { limits: [{ name: day, requests: 5000, per: day }] }
routes:
  - { match: "GET /{path...}", permission: any }
`

const dailyQuota = 5000

// room bounds the files that a process writes (prlimit(2)), which from outside is as
// if its disk were full, and takes the bound away again.
func (g *gateway) room(t *testing.T, bytes string) {
	t.Helper()
	limit := exec.Command(tool(t, "prlimit", "util-linux"), "--pid", strconv.Itoa(g.cmd.Process.Pid), "--fsize="+bytes+":")
	if out, err := limit.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// The disk is full while requests go on: those with known keys are served, changes
// are answered 503 and not made, a quota that would have to be noted down is refused
// and never given, and when there is room again all is normal without a restart.
func TestDiskFullUnderTraffic(t *testing.T) {
	t.Parallel()
	length := time.Second
	if full() {
		length = 10 * time.Second
	}
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(api, fullPlans), "KEYGATE_DEFAULT_PLAN": "unlimited"})
	plans := []string{"unlimited", "sliding", "calendar"}
	var known []admin.CreatedKey
	for _, plan := range plans {
		known = append(known, g.created(admin.NewKey{Name: plan, Plan: plan}))
		g.wants(http.StatusOK, "/x", known[len(known)-1].Secret)
	}
	var mu sync.Mutex
	given := int64(1) // of the quota
	statuses := make(map[string]int)
	take := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		taken := statuses
		statuses = make(map[string]int)
		return taken
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	c := newClient(t)
	repeat := func(f func()) {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					f()
				}
			}
		})
	}
	for i, plan := range plans {
		repeat(func() {
			a, err := try(c, http.MethodGet, g.proxy+"/x", known[i].Secret, nil)
			mu.Lock()
			defer mu.Unlock()
			statuses[fmt.Sprintf("%s %d", plan, a.status)]++
			if plan == "calendar" && a.status == http.StatusOK {
				given++
			}
			switch {
			case err != nil:
				statuses["wrong: "+err.Error()]++
			case a.status >= 429 && a.header.Get("Retry-After") == "":
				statuses["wrong: no Retry-After"]++
			}
		})
	}
	var acknowledged []admin.CreatedKey
	repeat(func() {
		k, err := create(c, g.management, g.key, admin.NewKey{Name: "made meanwhile"})
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			acknowledged = append(acknowledged, k)
			statuses["change made"]++
		case strings.Contains(err.Error(), "503") && strings.Contains(err.Error(), "Temporarily unavailable"):
			statuses["change 503"]++
		default:
			statuses["wrong: "+err.Error()]++
		}
	})
	time.Sleep(length)
	before := g.footprint()
	take()

	g.room(t, "1")
	time.Sleep(length)
	eventually(t, "what needs the disk is refused", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return statuses["calendar 503"] > 0 && statuses["change 503"] > 0
	})
	while := take()
	g.room(t, "unlimited")
	began := time.Now()
	eventually(t, "all is normal", func() bool {
		take()
		time.Sleep(200 * time.Millisecond)
		got := take()
		return got["unlimited 200"] > 0 && got["sliding 200"] > 0 && got["calendar 200"] > 0 && got["change made"] > 0 &&
			got["calendar 503"]+got["change 503"] == 0
	})
	normal := time.Since(began)
	close(stop)
	clients.Wait()
	t.Logf("while it was full: %v; normal again after %v", while, normal.Round(time.Millisecond))
	for what, n := range while {
		allowed := []string{"unlimited 200", "sliding 200", "calendar 200", "calendar 503", "change 503", "change made"}
		if !slices.Contains(allowed, what) {
			t.Errorf("%d times %s", n, what)
		}
	}
	if while["unlimited 200"] == 0 || while["sliding 200"] == 0 {
		t.Errorf("nobody was served: %v", while)
	}
	if while["change made"] > 1 { // one may have been under way
		t.Errorf("%d changes were made on a full disk", while["change made"])
	}
	if normal > recovery {
		t.Errorf("it took %v until all was normal", normal)
	}
	c.CloseIdleConnections()
	g.settles(t, before)

	g.kill9()
	g.start()
	g.allWork(newClient(t), append(acknowledged, known[:2]...))
	// What was leased or claimed on the disk and not given is lost with a crash. The attempts
	// that failed on the full disk used to be counted, each with a claim of its own, so that
	// nothing was left of the quota.
	a := g.get("/x", known[2].Secret)
	if left := int64(leftOf(t, a)); a.status != http.StatusOK || left >= dailyQuota-given || left < dailyQuota-given-dailyQuota/10-2 {
		t.Errorf("after a crash %d, %d left after %d were given", a.status, left, given)
	}
	g.stop()
	checkDatabase(t, g.dir, nil)
}
