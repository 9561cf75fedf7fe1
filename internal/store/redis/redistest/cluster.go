package redistest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
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
// each server. The nodes are given the layout as a file, which is quicker than
// to have them meet.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{}
	for range 6 {
		c.Servers = append(c.Servers, newServer(t, "redis-server", Options{Args: append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
			"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--cluster-replica-validity-factor", "0",
		}, args...)}))
	}
	for i, s := range c.Servers {
		if err := os.WriteFile(filepath.Join(s.Dir, "nodes.conf"), c.layout(i), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Start()
	}
	for _, s := range c.Servers {
		client := s.Client()
		await(t, "the nodes to agree on the cluster", func(ctx context.Context) error { return agrees(ctx, client) })
		client.Close()
	}
	for _, s := range c.Servers[3:] {
		s.awaitLink()
	}
	return c
}

// layout is the file nodes.conf of one of the servers: a line for each node, of
// its id, address, role, master, times of ping and pong, epoch, state and slots.
func (c *Cluster) layout(own int) []byte {
	var out bytes.Buffer
	id := func(i int) string { return fmt.Sprintf("%040x", i+1) }
	for i, s := range c.Servers {
		role, master, held := "master", "-", fmt.Sprintf(" %d-%d", slots*i/3, slots*(i+1)/3-1)
		if i >= 3 {
			role, master, held = "slave", id(i-3), ""
		}
		if i == own {
			role = "myself," + role
		}
		fmt.Fprintf(&out, "%s 127.0.0.1:%d@%d %s %s 0 0 %d connected%s\n", id(i), s.Port, s.Port+10_000, role, master, i%3+1, held)
	}
	fmt.Fprintf(&out, "vars currentEpoch 3 lastVoteEpoch 0\n")
	return out.Bytes()
}

// agrees wants a node to see the whole cluster serving.
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
