package redistest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// Cluster is three masters, each with a replica.
type Cluster struct {
	// Servers has the masters first.
	Servers []*Server
}

const slots = 16384

// StartCluster starts six servers and waits until all of them agree that the
// cluster serves and each replica follows its master. Args are added to those of
// each server.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range 6 {
		s := newServer(t, "redis-server", Options{Args: append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
			"--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0",
		}, args...)})
		s.Start()
		c.Servers = append(c.Servers, s)
	}
	masters, replicas := c.Servers[:3], c.Servers[3:]
	for i, s := range masters {
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		s.Do("CLUSTER", "ADDSLOTSRANGE", slots*i/3, slots*(i+1)/3-1)
	}
	for _, s := range c.Servers[1:] {
		s.Do("CLUSTER", "MEET", "127.0.0.1", c.Servers[0].Port)
	}
	for i, s := range replicas {
		master := fmt.Sprint(masters[i].Do("CLUSTER", "MYID"))
		client := s.Client()
		await(t, "a node to hear of its master", func(ctx context.Context) error {
			return client.Do(ctx, "CLUSTER", "REPLICATE", master).Err()
		})
		client.Close()
	}
	for _, s := range c.Servers {
		client := s.Client()
		await(t, "the nodes to agree on the cluster", func(ctx context.Context) error { return agrees(ctx, client) })
		client.Close()
	}
	for _, s := range replicas {
		s.awaitLink()
	}
	return c
}

// agrees wants a node to see the cluster serving with all slots and replicas.
func agrees(ctx context.Context, c *goredis.Client) error {
	info, err := c.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	for _, want := range []string{"cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:6"} {
		if !strings.Contains(info, want) {
			return fmt.Errorf("%s is missing in\n%s", want, info)
		}
	}
	ranges, err := c.ClusterSlots(ctx).Result()
	if err != nil {
		return err
	}
	nodes := 0
	for _, r := range ranges {
		nodes += len(r.Nodes)
	}
	if nodes != 6 {
		return fmt.Errorf("%d nodes in %+v", nodes, ranges)
	}
	return nil
}

// awaitLink waits until a replica has its master's data.
func (s *Server) awaitLink() {
	s.t.Helper()
	client := s.Client()
	defer client.Close()
	await(s.t, "a replica to follow its master", func(ctx context.Context) error {
		info, err := client.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = fmt.Errorf("not linked:\n%s", info)
		}
		return err
	})
}

// URL is what an operator would set as REDIS_URL.
func (c *Cluster) URL() string {
	var hosts []string
	for _, s := range c.Servers[:3] {
		hosts = append(hosts, s.Addr())
	}
	return "redis+cluster://" + strings.Join(hosts, ",")
}

// MasterOf is the server that held a key's slot when the cluster started.
func (c *Cluster) MasterOf(key string) *Server {
	c.Servers[0].t.Helper()
	slot := c.Servers[0].Do("CLUSTER", "KEYSLOT", key).(int64)
	for i, s := range c.Servers[:3] {
		if int(slot) < slots*(i+1)/3 {
			return s
		}
	}
	return nil
}

// Flush empties all masters.
func (c *Cluster) Flush() {
	for _, s := range c.Servers[:3] {
		s.Flush()
	}
}
