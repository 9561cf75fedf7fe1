package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// serverAge is how long what INFO said of replicas and of persistence is relied on.
const serverAge = 5 * time.Second

// server is what keygate needs to know of the Redis that holds the control plane.
type server struct {
	at       time.Time
	known    bool // INFO is allowed
	version  string
	replicas int
	aof      bool
	// synced: each change is on the disk before it is answered. False where
	// CONFIG is forbidden: INFO does not tell.
	synced bool
	saves  bool // a snapshot was made, or failed
	policy string
	limit  int64 // bytes; 0 for none
	used   int64
}

// recentServer never fails: where INFO is forbidden or does not answer, nothing
// is known of the server and the call that asks will meet the reason itself.
func (s *Store) recentServer(ctx context.Context) server {
	if last := s.server.Load(); last != nil && time.Since(last.at) < serverAge {
		return *last
	}
	found, err := s.askServer(ctx)
	if err != nil && !isReply(err) {
		return server{}
	}
	s.server.Store(&found)
	return found
}

func (s *Store) askServer(ctx context.Context) (server, error) {
	out := server{at: time.Now()}
	var text string
	var fsync map[string]string
	err := s.onMaster(ctx, func(c *goredis.Client) (err error) {
		fsync, _ = c.ConfigGet(ctx, "appendfsync").Result() // often forbidden
		text, err = c.Info(ctx).Result()
		return err
	})
	if err != nil {
		return out, err
	}
	info := parseInfo(text)
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // 0 where a service leaves it out
		return n
	}
	out.known, out.version, out.replicas = true, info["redis_version"], int(number("connected_slaves"))
	out.aof = info["aof_enabled"] == "1" && info["aof_last_write_status"] != "err"
	out.synced = out.aof && fsync["appendfsync"] == "always"
	out.saves = number("rdb_last_save_time") > 0 && number("rdb_saves") > 0
	out.policy, out.limit, out.used = info["maxmemory_policy"], number("maxmemory"), number("used_memory")
	return out, nil
}

// parseInfo reads INFO's lines "name:value".
func parseInfo(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); found {
			fields[name] = value
		}
	}
	return fields
}

// Advice says what about this Redis puts the data at risk, one sentence each.
// It asks INFO only: managed services do not allow CONFIG.
func (s *Store) Advice(ctx context.Context) ([]string, error) {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := s.askServer(bounded)
	if err != nil && !isReply(err) {
		return nil, s.failed(ctx, err)
	}
	return found.advice(), nil
}

func (v server) advice() []string {
	if !v.known {
		return []string{"Redis does not allow INFO: whether it keeps its data over a restart, and whether it evicts keys when it is full, is not known"}
	}
	var out []string
	if v.policy != "noeviction" && v.policy != "" {
		consequence := "would lose API keys, revocations and limits when memory is short"
		if strings.HasPrefix(v.policy, "volatile-") {
			consequence = "would lose what limits have counted when memory is short"
		}
		out = append(out, fmt.Sprintf("Redis evicts keys (maxmemory-policy %s) and %s: set it to noeviction", v.policy, consequence))
	}
	if !v.aof {
		text := "Redis keeps no append-only file: what changed since its last snapshot is lost when it restarts"
		if !v.saves && v.replicas == 0 {
			text = "Redis keeps neither an append-only file nor snapshots: all keys are lost when it restarts"
		}
		out = append(out, text+": set appendonly yes")
	}
	if before(v.version, 6, 2) {
		out = append(out, fmt.Sprintf("Redis %s is older than 6.2, the oldest version that keygate is made for", v.version))
	}
	if v.limit > 0 && v.used > v.limit/10*9 {
		out = append(out, fmt.Sprintf("Redis uses %d MiB of the %d MiB that maxmemory allows: raise it before changes are refused", v.used>>20, v.limit>>20))
	}
	return out
}

func before(version string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(version, "%d.%d", &a, &b); n != 2 {
		return false // not Redis's own numbering
	}
	return a < major || a == major && b < minor
}
