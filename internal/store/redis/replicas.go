package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
)

// ReplicaAge is how long a replica counts as alive after it registered.
const ReplicaAge = time.Minute

type replicaRecord struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	Rules   int64  `json:"rules,omitempty"`
	Started int64  `json:"started,omitempty"`
}

// RegisterReplica implements keys.ReplicaRegistry. Redis's clock says when.
func (s *Store) RegisterReplica(ctx context.Context, r keys.Replica) error {
	text, err := json.Marshal(replicaRecord{Name: r.Name, Version: r.Version, Rules: r.Rules, Started: micros(r.StartedAt)})
	if err != nil {
		return err
	}
	_, err = read(ctx, s, "replica", func(ctx context.Context) (any, error) {
		return replicaScript.Run(ctx, s.client, []string{replicasKey}, r.ID, text, ReplicaAge.Microseconds()).Result()
	})
	return err
}

// Replicas implements keys.ReplicaRegistry.
func (s *Store) Replicas(ctx context.Context) ([]keys.Replica, error) {
	var now time.Time
	records, err := read(ctx, s, "replicas", func(ctx context.Context) (map[string]string, error) {
		var all *goredis.MapStringStringCmd
		err := s.onMaster(ctx, func(c *goredis.Client) error {
			p := c.Pipeline()
			clock := p.Time(ctx)
			all = p.HGetAll(ctx, replicasKey)
			_, err := p.Exec(ctx)
			now = clock.Val()
			return err
		})
		return all.Val(), err
	})
	if err != nil {
		return nil, err
	}
	var out []keys.Replica
	for id, value := range records {
		seen, text, _ := strings.Cut(value, " ")
		µs, err := strconv.ParseInt(seen, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("replica %s in Redis: %w", id, err)
		}
		r, err := decode[replicaRecord]("replica", id, text)
		if err != nil {
			return nil, err
		}
		if at := instant(µs); now.Sub(at) < ReplicaAge {
			out = append(out, keys.Replica{ID: id, Name: r.Name, Version: r.Version, Rules: r.Rules, StartedAt: instant(r.Started), SeenAt: at})
		}
	}
	slices.SortFunc(out, func(a, b keys.Replica) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
