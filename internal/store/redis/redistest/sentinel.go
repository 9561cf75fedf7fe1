package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// MasterName is the master's name at the sentinels.
const MasterName = "main"

// Sentinel is a master with one replica, watched by sentinels.
type Sentinel struct {
	Master, Replica *Server
	Sentinels       []*Server
}

// StartSentinel starts a master, its replica and n sentinels, of which more than
// half must agree on a failover; it happens about a second after the master's
// death. Options are those of the master and of the replica.
func StartSentinel(t testing.TB, n int, o Options) *Sentinel {
	t.Helper()
	o.Args = append([]string{"--repl-diskless-sync-delay", "0"}, o.Args...)
	g := &Sentinel{Master: Start(t, o)}
	replica := o
	replica.Dir, replica.Port = "", 0
	replica.Args = append([]string{"--replicaof", "127.0.0.1 " + fmt.Sprint(g.Master.Port)}, o.Args...)
	g.Replica = Start(t, replica)
	g.Replica.awaitLink()
	for range n {
		s := newServer(t, "redis-sentinel", Options{})
		s.args = []string{filepath.Join(s.Dir, "sentinel.conf")}
		config := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nlogfile %s/redis.log\nsentinel monitor %[4]s 127.0.0.1 %[5]d %[6]d\n"+
			"sentinel down-after-milliseconds %[4]s 800\nsentinel failover-timeout %[4]s 4000\n", s.Port, s.Dir, s.Dir, MasterName, g.Master.Port, n/2+1)
		if o.Password != "" {
			config += fmt.Sprintf("sentinel auth-pass %s %s\n", MasterName, o.Password)
		}
		if err := os.WriteFile(s.args[0], []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Start()
		g.Sentinels = append(g.Sentinels, s)
	}
	for _, s := range g.Sentinels {
		s.awaitView(n)
	}
	return g
}

// awaitView waits until a sentinel knows the replica and the other sentinels:
// before that it could not fail over.
func (s *Server) awaitView(sentinels int) {
	s.t.Helper()
	c := goredis.NewSentinelClient(&goredis.Options{Addr: s.Addr(), Protocol: 2, DisableIdentity: true})
	defer c.Close()
	await(s.t, "a sentinel to see the replica and the others", func(ctx context.Context) error {
		master, err := c.Master(ctx, MasterName).Result()
		if err != nil {
			return err
		}
		if master["num-slaves"] != "1" || master["num-other-sentinels"] != fmt.Sprint(sentinels-1) {
			return fmt.Errorf("%s replicas and %s other sentinels", master["num-slaves"], master["num-other-sentinels"])
		}
		return nil
	})
}

// URL is what an operator would set as REDIS_URL.
func (g *Sentinel) URL() string {
	var hosts []string
	for _, s := range g.Sentinels {
		hosts = append(hosts, s.Addr())
	}
	user := ""
	if g.Master.password != "" {
		user = ":" + g.Master.password + "@"
	}
	return "redis+sentinel://" + user + strings.Join(hosts, ",") + "/" + MasterName
}
