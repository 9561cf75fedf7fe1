package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

func TestAdvice(t *testing.T) {
	good := server{known: true, version: "7.2.4", aof: true, policy: "noeviction"}
	for _, tt := range []struct {
		name   string
		change func(v *server)
		want   []string // beginnings
	}{
		{"good", func(*server) {}, nil},
		{"INFO forbidden", func(v *server) { *v = server{} }, []string{"Redis does not allow INFO"}},
		{"eviction of all", func(v *server) { v.policy = "allkeys-lru" }, []string{"Redis evicts keys (maxmemory-policy allkeys-lru) and would lose API keys"}},
		{"eviction of what expires", func(v *server) { v.policy = "volatile-ttl" }, []string{"Redis evicts keys (maxmemory-policy volatile-ttl) and would lose what limits"}},
		{"nothing kept", func(v *server) { v.aof = false }, []string{"Redis keeps neither an append-only file nor snapshots"}},
		{"snapshots", func(v *server) { v.aof, v.saves = false, true }, []string{"Redis keeps no append-only file"}},
		{"old", func(v *server) { v.version = "6.0.16" }, []string{"Redis 6.0.16 is older than 6.2"}},
		{"just old enough", func(v *server) { v.version = "6.2.0" }, nil},
		{"another's numbering", func(v *server) { v.version = "unstable" }, nil},
		{"nearly full", func(v *server) { v.limit, v.used = 100<<20, 95<<20 }, []string{"Redis uses 95 MiB of the 100 MiB"}},
	} {
		v := good
		tt.change(&v)
		got := v.advice()
		if len(got) != len(tt.want) {
			t.Errorf("%s: %q", tt.name, got)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(got[i], want) {
				t.Errorf("%s: %q; want %q", tt.name, got[i], want)
			}
		}
	}
}

func TestAdviceOfServers(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		o    redistest.Options
		want string
	}{
		"careful":  {redistest.Options{AOF: "everysec"}, ""},
		"careless": {redistest.Options{Args: []string{"--maxmemory-policy", "allkeys-lfu"}}, "Redis evicts keys (maxmemory-policy allkeys-lfu) and would lose API keys, revocations and limits when memory is short: set it to noeviction\nRedis keeps neither an append-only file nor snapshots: all keys are lost when it restarts: set appendonly yes"},
	} {
		server := redistest.Start(t, tt.o)
		s := openStore(t, Options{Client: client(t, server.URL())})
		advice, err := s.Advice(t.Context())
		if got := strings.Join(advice, "\n"); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", what, got, err, tt.want)
		}
		server.Kill()
		if _, err := s.Advice(t.Context()); err == nil {
			t.Error("Advice of a server that is gone: no error")
		}
	}
}

// TestWithoutInfo: a user who may not call INFO can be served, and is told.
func TestWithoutInfo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	server.Do("ACL", "SETUSER", "keygate", "on", ">secret", "+@all", "-@admin", "-info", "~kg:*")
	s := openStore(t, Options{Client: client(t, "redis://keygate:secret@"+server.Addr())})
	smoke(t, s)
	if advice, err := s.Advice(t.Context()); err != nil || len(advice) != 1 || !strings.Contains(advice[0], "does not allow INFO") {
		t.Errorf("Advice: %q, %v", advice, err)
	}
	server.Do("ACL", "SETUSER", "keygate", "-evalsha")
	if _, err := s.Lookup(t.Context(), keys.Hash{}); err == nil || !strings.Contains(err.Error(), "does not allow this user") {
		t.Errorf("Lookup without scripts: %v", err)
	}
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	ctx := t.Context()
	started := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	b := keys.Replica{ID: "b", Name: "gate-2", Version: "v1.2.3", Rules: 7, StartedAt: started, Confirmed: 41, Limits: keys.LimitSigns{Lost: 2, ClockSteps: 1, Held: 3, Degraded: 4, Late: 5}}
	for _, r := range []keys.Replica{b, {ID: "a", Name: "gate 1"}} {
		if err := s.RegisterReplica(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Replicas(ctx)
	if err != nil || len(all) != 2 || all[0].ID != "a" {
		t.Fatalf("Replicas: %+v, %v", all, err)
	}
	if age := time.Since(all[1].SeenAt); age < -time.Minute || age > time.Minute {
		t.Errorf("seen at %v", all[1].SeenAt)
	}
	all[1].SeenAt = time.Time{}
	if diff := cmp.Diff(b, all[1]); diff != "" {
		t.Errorf("registered (-want +got):\n%s", diff)
	}

	// A call that was overtaken by a later one takes nothing back.
	for _, confirmed := range []int64{1 << 39, 42} {
		b.Confirmed, b.Rules = confirmed, confirmed
		if err := s.RegisterReplica(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Replicas(ctx); err != nil || len(all) != 2 || all[1].Confirmed != 1<<39 || all[1].Rules != 42 || all[0].Confirmed != 0 {
		t.Errorf("confirmed: %+v, %v", all, err)
	}

	// One that has not been seen for a minute is not listed, and is forgotten
	// when another registers.
	old := server.Do("HGET", replicasKey, "a").(string)
	µs, rest, _ := strings.Cut(old, " ")
	server.Do("HSET", replicasKey, "a", fmt.Sprint(all[0].SeenAt.Add(-ReplicaAge).UnixMicro())+" "+rest)
	if all, err := s.Replicas(ctx); err != nil || len(all) != 1 || len(µs) != 16 {
		t.Errorf("after a minute: %+v, %v", all, err)
	}
	if err := s.RegisterReplica(ctx, b); err != nil {
		t.Fatal(err)
	}
	if n := server.Do("HLEN", replicasKey); n != int64(1) {
		t.Errorf("%v replicas are kept", n)
	}
	if ttl := server.Do("TTL", replicasKey).(int64); ttl < 50 || ttl > 60 {
		t.Errorf("the last one is forgotten after %ds", ttl)
	}
}

// reply is an error as Redis sends it.
type reply string

func (r reply) Error() string { return string(r) }
func (r reply) RedisError()   {}

func TestExplain(t *testing.T) {
	for err, want := range map[error]string{
		reply("READONLY You can't write against a read only replica."):                          "is a replica",
		reply("ERR Error running script: @user_script: 9: -READONLY You can't write"):           "is a replica",
		reply("OOM command not allowed when used memory > 'maxmemory'. script: 0f, on @user_s"): "maxmemory is reached",
		reply("LOADING Redis is loading the dataset in memory"):                                 "is loading",
		reply("CLUSTERDOWN Hash slot not served"):                                               "cluster does not serve",
		reply("MISCONF Redis is configured to save RDB snapshots"):                              "cannot save to its disk",
		reply("NOREPLICAS Not enough good replicas to write."):                                  "min-replicas-to-write",
		reply("WRONGPASS invalid username-password pair or user is disabled."):                  "refuses the user name or the password",
		reply("ERR max number of clients reached"):                                              "maxclients",
		reply("ERR something else"):                                                             "answer of Redis: ERR something else",
		fmt.Errorf("read: %w", context.DeadlineExceeded):                                        "no answer from Redis in time",
		errors.New("EOF"): "on the way to Redis: EOF",
	} {
		got := explain(err)
		if !strings.Contains(got.Error(), want) || !errors.Is(got, err) && !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("%v: %v; want %q", err, got, want)
		}
		if strings.Contains(got.Error(), "\n") {
			t.Errorf("%v: more than one line", got)
		}
	}
}
