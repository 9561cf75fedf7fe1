package test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
)

// What one replica has acknowledged works on all of them, whenever it is killed;
// the killed one finds it all when it comes back.
func TestReplicaKilledDuringCreation(t *testing.T) {
	t.Parallel()
	rounds := 3
	if full() {
		rounds = 20
	}
	server := redistest.Start(t, redistest.Options{})
	all := startReplicas(t, nil, server.URL(), server.URL())
	victim, survivor := all[0], all[1]
	var acknowledged []admin.CreatedKey
	for round := range rounds {
		fresh := victim.storm(newClient(t), 8, 5+7*round%40, func(worker, i int) string {
			return fmt.Sprintf("round %d worker %d key %d", round, worker, i)
		})
		survivor.allKnown(fresh)
		victim.start()
		victim.allKnown(fresh)
		acknowledged = append(acknowledged, fresh...)
	}
	t.Logf("%d keys were acknowledged in %d rounds", len(acknowledged), rounds)
	survivor.allListed(acknowledged)
}

// allListed wants each acknowledged key in the list, once.
func (g *gateway) allListed(acknowledged []admin.CreatedKey) {
	g.t.Helper()
	var listed []admin.Key
	g.must(&listed, "keys", "list", "--organization", "default")
	times := make(map[string]int)
	for _, k := range listed {
		times[k.ID]++
	}
	for _, k := range acknowledged {
		if times[k.ID] != 1 {
			g.t.Errorf("key %s is listed %d times", k.ID, times[k.ID])
		}
	}
}

// A Redis that has each change on its disk before it answers, and is killed, has
// lost nothing of what was acknowledged when it is back. One that syncs its log
// every second may lose what it answered in the last two, and all replicas agree
// on what that is. No replica needs a restart.
func TestRedisKilledDuringCreation(t *testing.T) {
	t.Parallel()
	for _, fsync := range []string{"always", "everysec"} {
		t.Run(fsync, func(t *testing.T) {
			t.Parallel()
			testRedisKilled(t, fsync)
		})
	}
}

func testRedisKilled(t *testing.T, fsync string) {
	rounds := 3
	if full() {
		rounds = 20
	}
	server := redistest.Start(t, redistest.Options{AOF: fsync})
	all := startReplicas(t, nil, server.URL(), server.URL())
	var kept []admin.CreatedKey
	var normal spread
	lost := 0
	for round := range rounds {
		last := all[0].created(admin.NewKey{Name: fmt.Sprint("before round ", round)})
		if fsync == "everysec" {
			time.Sleep(2500 * time.Millisecond) // longer than Redis puts a write off
		}
		fresh := redisStorm(t, server.Kill, all, 5+7*round%40, fmt.Sprint("round ", round))
		// Nobody is told that a key is wrong while nobody can know.
		for _, g := range all {
			for _, k := range fresh[:min(len(fresh), 3)] {
				if a := g.get("/x", k.Secret); a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
					t.Errorf("while Redis is away: %d %s", a.status, a.body)
				}
			}
		}
		server.Start()
		began := time.Now()
		for _, g := range all {
			eventually(t, "requests are decided again", func() bool { return g.get("/x", last.Secret).status == http.StatusOK })
		}
		normal = append(normal, time.Since(began))
		kept = append(kept, last)
		for _, k := range fresh {
			if works := all[0].works(k); all[1].works(k) != works {
				t.Errorf("key %s: the replicas do not agree", k.ID)
			} else if works {
				kept = append(kept, k)
			} else if lost++; fsync == "always" {
				t.Errorf("acknowledged key %s is lost", k.ID)
			}
		}
	}
	t.Logf("%d keys are there after %d rounds and %d lost; normal again after: %v", len(kept), rounds, lost, normal)
	for _, g := range all {
		g.allKnown(kept)
	}
	all[0].allListed(kept)
	if worst := normal[len(normal)-1]; worst > recovery {
		t.Errorf("it took %v until requests were decided again", worst)
	}
}

// works tells whether a key is known. What cannot be said at the moment is asked
// again: the machine may be busy.
func (g *gateway) works(k admin.CreatedKey) (known bool) {
	g.t.Helper()
	eventually(g.t, "the key is looked up", func() bool {
		a := g.get("/x", k.Secret)
		if known = a.status == http.StatusOK; !known && a.status != http.StatusServiceUnavailable {
			checkProblem(g.t, a, http.StatusUnauthorized, "API key is invalid")
		}
		return a.status != http.StatusServiceUnavailable
	})
	return known
}

// allKnown wants all keys to work.
func (g *gateway) allKnown(all []admin.CreatedKey) {
	g.t.Helper()
	for _, k := range all {
		if !g.works(k) {
			g.t.Errorf("acknowledged key %s is unknown", k.ID)
		}
	}
}

// recovery is what tests allow for the two seconds after which all is normal
// again when a fault has ended.
const recovery = 5 * time.Second

// redisStorm makes keys on all replicas at once, has Redis die as soon as so many
// are acknowledged, and returns all that were by the end.
func redisStorm(t *testing.T, die func(), all []*gateway, enough int, name string) []admin.CreatedKey {
	t.Helper()
	var (
		mu   sync.Mutex
		made []admin.CreatedKey
		dead bool
		over sync.WaitGroup
	)
	reached := make(chan struct{})
	c := newClient(t)
	for w := range 8 {
		g := all[w%len(all)]
		over.Go(func() {
			for i := 0; ; i++ {
				k, err := create(c, g.management, g.key, admin.NewKey{Name: fmt.Sprint(name, " worker ", w, " key ", i)})
				mu.Lock()
				if err == nil {
					if made = append(made, k); len(made) == enough {
						close(reached)
					}
				} else if !dead {
					t.Errorf("before the kill: %v", err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	select {
	case <-reached:
	case <-time.After(patience):
		t.Errorf("in %v there were not %d keys", patience, enough)
	}
	mu.Lock()
	dead = true
	mu.Unlock()
	die()
	over.Wait()
	return made
}
