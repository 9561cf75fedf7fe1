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
	if full {
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
		survivor.allWork(newClient(t), fresh)
		victim.start()
		victim.allWork(newClient(t), fresh)
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

// A Redis that writes every change to its log and is killed has lost nothing of
// what was acknowledged when it is back, and no replica needs a restart.
func TestRedisKilledDuringCreation(t *testing.T) {
	t.Parallel()
	rounds := 3
	if full {
		rounds = 20
	}
	server := redistest.Start(t, redistest.Options{AOF: "everysec"})
	all := startReplicas(t, nil, server.URL(), server.URL())
	var acknowledged []admin.CreatedKey
	var normal spread
	for round := range rounds {
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
			eventually(t, "requests are decided again", func() bool { return g.get("/x", fresh[0].Secret).status == http.StatusOK })
		}
		normal = append(normal, time.Since(began))
		for _, g := range all {
			g.allWork(newClient(t), fresh)
		}
		acknowledged = append(acknowledged, fresh...)
	}
	t.Logf("%d keys were acknowledged in %d rounds; normal again after: %v", len(acknowledged), rounds, normal)
	for _, g := range all {
		g.allWork(newClient(t), acknowledged)
	}
	all[0].allListed(acknowledged)
	if worst := normal[len(normal)-1]; worst > recovery {
		t.Errorf("it took %v until requests were decided again", worst)
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
