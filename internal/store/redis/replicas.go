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

	Limits keys.LimitSigns `json:"limits,omitzero"`
}

// RegisterReplica implements keys.ReplicaRegistry. Redis's clock says when; of
// what is confirmed the most counts, whichever call arrives last.
func (s *Store) RegisterReplica(ctx context.Context, r keys.Replica) error {
	text, err := json.Marshal(replicaRecord{Name: r.Name, Version: r.Version, Rules: r.Rules, Started: micros(r.StartedAt), Limits: r.Limits})
	if err != nil {
		return err
	}
	_, err = read(ctx, s, "replica", func(ctx context.Context) (any, error) {
		return replicaScript.Run(ctx, s.client, []string{replicasKey}, r.ID, r.Confirmed, text, ReplicaAge.Microseconds()).Result()
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
		r, err := decodeReplica(id, value)
		if err != nil {
			return nil, err
		}
		if now.Sub(r.SeenAt) < ReplicaAge {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b keys.Replica) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// decodeReplica reads when it was seen, how far it has confirmed, and its record.
func decodeReplica(id, value string) (r keys.Replica, err error) {
	seen, rest, _ := strings.Cut(value, " ")
	confirmed, text, _ := strings.Cut(rest, " ")
	µs, err := strconv.ParseInt(seen, 10, 64)
	if err != nil {
		return r, fmt.Errorf("replica %s in Redis: %w", id, err)
	}
	r.Confirmed, err = strconv.ParseInt(confirmed, 10, 64)
	if err != nil {
		return r, fmt.Errorf("replica %s in Redis: %w", id, err)
	}
	record, err := decode[replicaRecord]("replica", id, text)
	r.ID, r.Name, r.Version, r.Rules = id, record.Name, record.Version, record.Rules
	r.Limits = record.Limits
	r.StartedAt, r.SeenAt = instant(record.Started), instant(µs)
	return r, err
}
