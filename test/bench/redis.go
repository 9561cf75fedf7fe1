package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// redisServer is the Redis of the gateways that share one.
type redisServer struct {
	child  *child
	client *goredis.Client
	url    string
}

// redisUse is what a Redis has done so far, or between two instants.
type redisUse struct {
	cpu time.Duration
	// reads is how often it took something from a connection. Each command of
	// keygate is one write and waited for, so each read is one trip. The calls
	// in commandstats are more: they count what scripts do as well.
	reads int64
	// scripts is how many ran, and scriptTime how long.
	scripts    int64
	scriptTime time.Duration
}

func (u redisUse) since(before redisUse) redisUse {
	return redisUse{u.cpu - before.cpu, u.reads - before.reads, u.scripts - before.scripts, u.scriptTime - before.scriptTime}
}

// startRedis starts one as deploy/compose.yaml does, with an append-only file.
// What would start children of its own in the midst of a measurement is off.
func startRedis(ctx context.Context, dir string) (*redisServer, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("the rows on Redis need redis-server: install Redis (on Debian: apt-get install redis-server), or leave them out with -redis=false: %w", err)
	}
	if dir, err = os.MkdirTemp(dir, "redis-*"); err != nil {
		return nil, err
	}
	addrs, err := freeAddresses(1)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--logfile", "redis.log", "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction")
	c, err := startChild("redis-server", cmd, false)
	if err != nil {
		return nil, err
	}
	s := &redisServer{child: c, client: goredis.NewClient(&goredis.Options{Addr: addrs[0], DisableIdentity: true}), url: "redis://" + addrs[0] + "/0"}
	return s, c.waitUntil(ctx, s.ready)
}

// ready wants the answer of our own process, in case another one got the port.
func (s *redisServer) ready(ctx context.Context) error {
	info, err := s.client.Info(ctx, "server").Result()
	if err == nil && !strings.Contains(info, fmt.Sprintf("process_id:%d\r", s.child.cmd.Process.Pid)) {
		err = fmt.Errorf("another process listens at %s", s.url)
	}
	return err
}

func (s *redisServer) use(ctx context.Context) (redisUse, error) {
	var u redisUse
	info, err := s.client.Info(ctx, "all").Result()
	if err != nil {
		return u, fmt.Errorf("redis-server: %w", err)
	}
	if u.cpu, err = s.child.cpu(); err != nil {
		return u, err
	}
	found := false
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "total_reads_processed":
			found = true
			u.reads, err = strconv.ParseInt(value, 10, 64)
		case "cmdstat_evalsha", "cmdstat_eval":
			var calls, usec int64
			_, err = fmt.Sscanf(value, "calls=%d,usec=%d,", &calls, &usec)
			u.scripts += calls
			u.scriptTime += time.Duration(usec) * time.Microsecond
		}
		if err != nil {
			return u, fmt.Errorf("redis-server: INFO says %q: %w", line, err)
		}
	}
	if !found {
		return u, fmt.Errorf("redis-server: INFO has no total_reads_processed: version 6 or later is needed")
	}
	return u, nil
}
