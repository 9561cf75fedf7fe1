package redis

import (
	"context"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// TestCluster: all calls, then the death of the master that holds everything.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := openStore(t, Options{Client: client(t, cluster.URL())})
	smoke(t, s)
	promotion(t, s, cluster.MasterOf(schemaKey))
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	group := redistest.StartSentinel(t, 3, redistest.Options{})
	s := openStore(t, Options{Client: client(t, group.URL())})
	smoke(t, s)
	promotion(t, s, group.Master)
}

// promotion: what a replica was known to have outlives the master, and the feed
// says that something may be missing, once.
func promotion(t *testing.T, s *Store, master *redistest.Server) {
	t.Helper()
	ctx := t.Context()
	s.server.Store(nil) // look for replicas anew
	k := newKey("durable")
	for made := (keys.Applied{}); !made.Durable; k.Version++ { // a busy machine may need more than replicaWait
		var err error
		if made, err = s.Apply(ctx, keys.Mutation{Keys: []keys.Key{k}}); err != nil || k.Version > 20 {
			t.Fatalf("change %d with a replica: %+v, %v", k.Version, made, err)
		}
	}
	end, err := s.Changes(ctx, keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The window in which nobody fails over is what operators see most of.
	master.Kill()
	start := time.Now()
	if _, err := s.Lookup(ctx, keys.HashSecret("durable")); err == nil {
		t.Error("Lookup answers without a master")
	} else if took := time.Since(start); took > 2*callTimeout {
		t.Errorf("Lookup failed after %v", took)
	}
	for {
		if err := s.Ping(ctx); err == nil {
			break
		} else if time.Since(start) > 30*time.Second {
			t.Fatalf("no failover in 30s: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("served again %v after the master's death", time.Since(start).Round(time.Millisecond))
	if f, err := s.Lookup(ctx, keys.HashSecret("durable")); err != nil || f.Key.ID != "key_durable" {
		t.Errorf("what was durable: %+v, %v", f.Key, err)
	}
	batch, err := s.Changes(ctx, end.Next, 0)
	if err != nil || !batch.Gap {
		t.Errorf("the feed after a promotion: %+v, %v; want a gap", batch, err)
	}
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("afterwards")}})
	next, err := s.Changes(context.Background(), batch.Next, 10*time.Second)
	if err != nil || next.Gap || len(next.Changes) != 1 || next.Changes[0].ID != "key_afterwards" {
		t.Errorf("the feed goes on with %+v, %v", next, err)
	}
}
