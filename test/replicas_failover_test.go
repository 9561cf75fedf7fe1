package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
)

// The master behind the sentinels dies while keys are made. Requests are decided
// again when the replica has taken over, and what was said to be durable is there.
func TestSentinelFailover(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it; the store's and the ledger's own tests try Sentinel")
	}
	group := redistest.StartSentinel(t, 3, redistest.Options{})
	testFailover(t, group.URL(), group.Master.Kill, []*redistest.Server{group.Replica})
}

// The master of a cluster that holds the keys dies, and with it, as it happens,
// the limits of some organizations.
func TestClusterFailover(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it; the store's and the ledger's own tests try a cluster")
	}
	cluster := redistest.StartCluster(t)
	testFailover(t, cluster.URL(), cluster.MasterOf("kg:{kg}:schema").Kill, cluster.Servers[3:])
}

// failoverTime is what tests allow from the death of a master, which is noticed
// after one or two seconds, until all is normal.
const failoverTime = 20 * time.Second

// failoverPlans have a strict limit with a short window: after a promotion, which may
// have lost what was spent, such limits give nothing for a window and a lease.
var failoverPlans = strings.Replace(outagePlans, "requests: 1000000, per: 1m", "requests: 1000000, per: 1s", 1)

// The fault ends when one of the replicas of Redis is promoted: within two seconds of
// that all is normal.
func testFailover(t *testing.T, url string, kill func(), replicas []*redistest.Server) {
	api := newUpstream(t, nil)
	all := startReplicas(t, settings{"KEYGATE_POLICY": inFrontOf(api, failoverPlans)}, url, url)
	plans := []string{"strict", "unlimited", "open"}
	keys := make(map[string]admin.CreatedKey)
	for _, plan := range plans {
		keys[plan] = all[0].created(admin.NewKey{Name: plan, Plan: plan})
		for _, g := range all {
			if !g.works(keys[plan]) {
				t.Fatalf("the key on %s is unknown", plan)
			}
		}
	}
	answers := &measurements{plans: make(map[string]*measured), forgets: true}
	t.Cleanup(func() {
		for _, g := range all {
			if t.Failed() {
				t.Logf("%s said:\n%s", g.proxy, g.said())
			}
		}
	})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	c := newClient(t)
	for _, plan := range plans {
		for _, g := range all {
			clients.Go(func() {
				answers.ask(c, g, plan, keys[plan].Secret, 10*time.Millisecond, stop)
			})
		}
	}
	var mu sync.Mutex
	var durable []admin.CreatedKey
	made := 0
	for w := range 4 {
		g := all[w%len(all)]
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				k, safe, err := createDurably(c, g, fmt.Sprint("worker ", w, " key ", i))
				if err != nil {
					continue
				}
				mu.Lock()
				if made++; safe {
					durable = append(durable, k)
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(time.Second)
	var footprints []footprint
	for _, g := range all {
		footprints = append(footprints, g.footprint())
	}
	kill()
	began := time.Now()
	eventually(t, "a replica is promoted", func() bool {
		return slices.ContainsFunc(replicas, (*redistest.Server).Promoted)
	})
	promoted := time.Now()
	for _, g := range all {
		for _, plan := range plans {
			eventually(t, "requests are decided again", func() bool {
				a := g.get("/x", keys[plan].Secret)
				return a.status == http.StatusOK && a.header.Get("X-Keygate-Degraded") == "" && g.metric("keygate_change_feed_age_seconds") < 1
			})
		}
		eventually(t, "keys are made again", func() bool {
			_, _, err := createDurably(c, g, "after")
			return err == nil
		})
	}
	normal, after := time.Since(began), time.Since(promoted)
	close(stop)
	clients.Wait()
	for plan, m := range answers.take() {
		t.Logf("%-10s %v, %d degraded; %v", plan, m.statuses, m.degraded, m.took)
		if m.wrong != "" {
			t.Errorf("%s: %s", plan, m.wrong)
		}
	}
	t.Logf("normal %v after the master's death, %v after the promotion; %d keys were made, %d of them durable", normal.Round(time.Millisecond), after.Round(time.Millisecond), made, len(durable))
	if normal > failoverTime {
		t.Errorf("it took %v until all was normal", normal)
	}
	if after > recovery {
		t.Errorf("it took %v from the promotion until all was normal", after)
	}
	if len(durable) == 0 {
		t.Error("no key was said to be durable")
	}
	for _, g := range all {
		g.allKnown(durable)
	}
	before := keys["unlimited"]
	delays := observed(t, all[0], before.ID, before.Secret, active, life[0], all[1])
	t.Logf("a change after the failover was seen after %v", delays)
	c.CloseIdleConnections()
	for i, g := range all {
		g.settles(t, footprints[i])
		g.stop()
	}
}

// createDurably makes a key and tells whether it was said to be safe.
func createDurably(c *http.Client, g *gateway, name string) (k admin.CreatedKey, safe bool, err error) {
	a, err := try(c, http.MethodPost, g.management+"/v1/keys", g.key, strings.NewReader(fmt.Sprintf(`{"name":%q}`, name)))
	if err == nil && a.status != http.StatusCreated {
		err = fmt.Errorf("%d %s", a.status, a.body)
	}
	if err == nil {
		err = json.Unmarshal([]byte(a.body), &k)
	}
	return k, a.header.Get("X-Keygate-Durable") == "true", err
}
