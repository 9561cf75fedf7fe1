package test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
)

// An operator restarts Redis in good order, as for an update, under traffic: no
// client is told that its key is wrong, strict plans get 503 and open ones go on,
// within two seconds of its return all is as before, no key is lost and nothing is
// left behind.
func TestRedisRestarted(t *testing.T) {
	t.Parallel()
	rounds := 1
	if full() {
		rounds = 5
	}
	server := redistest.Start(t, redistest.Options{AOF: "everysec"})
	api := newUpstream(t, nil)
	all := startReplicas(t, settings{"KEYGATE_POLICY": inFrontOf(api, outagePlans), "LOG_LEVEL": "info"}, server.URL(), server.URL())
	plans := []string{"strict", "strict-small", "unlimited", "open", "open-small"}
	var known, unhindered []admin.CreatedKey
	for _, plan := range plans {
		var k admin.CreatedKey
		eventually(t, "a key is made", func() bool {
			var err error
			k, err = all[0].api().CreateKey(t.Context(), admin.NewKey{Name: plan, Plan: plan})
			return err == nil // a busy machine may have it answered 503
		})
		for _, g := range all {
			eventually(t, "the key is known", func() bool { return g.get("/x", k.Secret).status != http.StatusUnauthorized })
		}
		known = append(known, k)
		if !strings.HasSuffix(plan, "-small") {
			unhindered = append(unhindered, k)
		}
	}
	answers := &measurements{plans: make(map[string]*measured), forgets: true}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	c := newClient(t)
	for i, plan := range plans {
		for _, g := range all {
			clients.Go(func() {
				answers.ask(c, g, plan, known[i].Secret, 10*time.Millisecond, stop)
			})
		}
	}
	time.Sleep(500 * time.Millisecond)
	var before []footprint
	for _, g := range all {
		before = append(before, g.footprint())
	}
	var normal spread
	for range rounds {
		answers.take()
		server.Stop()
		time.Sleep(time.Second) // that long the machine is without it
		away := answers.take()
		server.Start()
		began := time.Now()
		for _, g := range all {
			for i, plan := range plans {
				eventually(t, "requests are decided again", func() bool {
					a := g.get("/x", known[i].Secret)
					return (a.status == http.StatusOK || a.status == http.StatusTooManyRequests && plan != "strict") &&
						a.header.Get("X-Keygate-Degraded") == "" && g.metric("keygate_change_feed_age_seconds") < 1
				})
			}
		}
		normal = append(normal, time.Since(began))
		if m := away["unlimited"]; m == nil || m.statuses[http.StatusServiceUnavailable] == 0 {
			t.Errorf("nobody noticed that Redis was away: %+v", m)
		}
		for plan, m := range away {
			t.Logf("away: %-12s %v, %d degraded; %v", plan, m.statuses, m.degraded, m.took)
			if m.wrong != "" {
				t.Errorf("%s: %s", plan, m.wrong)
			}
			if p99 := m.took[(len(m.took)-1)*99/100]; p99 > time.Second {
				t.Errorf("%s: 1 %% of the answers took %v or more", plan, p99)
			}
		}
	}
	close(stop)
	clients.Wait()
	for plan, m := range answers.take() {
		if m.wrong != "" {
			t.Errorf("%s: %s", plan, m.wrong)
		}
	}
	t.Logf("normal again after %v", normal)
	if worst := slices.Max(normal); worst > recovery {
		t.Errorf("it took %v until all was normal", worst)
	}
	c.CloseIdleConnections()
	for i, g := range all {
		g.allKnown(unhindered)
		g.settles(t, before[i])
		g.stop()
	}
}
