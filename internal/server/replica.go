package server

import (
	"context"
	"os"
	"time"

	"go.uber.org/zap"

	"keygate/internal/keys"
	"keygate/proxy"
)

// heartbeat is how often a replica reports; it is forgotten after a minute.
const heartbeat = 15 * time.Second

// replica makes this process known to the others on the same store.
type replica struct {
	self     keys.Replica
	registry keys.ReplicaRegistry // nil: there is only this one
	gate     *proxy.Proxy
	log      *zap.Logger
}

func newReplica(version string, back *backing, gate *proxy.Proxy, log *zap.Logger) *replica {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return &replica{
		self:     keys.Replica{ID: keys.NewReplicaID(), Name: name, Version: version, StartedAt: time.Now().UTC().Truncate(time.Microsecond)},
		registry: back.replicas, gate: gate, log: log,
	}
}

// report tells the others that this replica is alive, until ctx ends.
func (r *replica) report(ctx context.Context) {
	for r.registry != nil && ctx.Err() == nil {
		if err := r.registry.RegisterReplica(ctx, r.now()); err != nil && ctx.Err() == nil {
			r.log.Warn("this replica could not report", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(heartbeat):
		}
	}
}

func (r *replica) now() keys.Replica {
	self := r.self
	self.Rules = r.gate.PolicyKeys().Rules
	self.SeenAt = time.Now().UTC().Truncate(time.Microsecond)
	return self
}

// all lists the replicas that reported lately.
func (r *replica) all(ctx context.Context) ([]keys.Replica, error) {
	if r.registry == nil {
		return []keys.Replica{r.now()}, nil
	}
	return r.registry.Replicas(ctx)
}
