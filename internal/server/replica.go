package server

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

const (
	// heartbeat is how often a replica reports; it is forgotten after a minute.
	heartbeat = 15 * time.Second
	// confirmPoll lies between two looks at what the replicas confirmed.
	confirmPoll = 20 * time.Millisecond
)

// replica makes this process known to the others on the same store, and says on
// which changes it has acted.
type replica struct {
	self      keys.Replica
	registry  keys.ReplicaRegistry // nil: there is only this one
	rules     func() int64
	limits    *ratelimit.Stats
	log       *zap.Logger
	confirmed atomic.Int64
	acted     chan struct{} // of 1: confirmed has moved
}

func newReplica(version string, back *backing, log *zap.Logger) *replica {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return &replica{
		self:     keys.Replica{ID: keys.NewReplicaID(), Name: name, Version: version, StartedAt: time.Now().UTC().Truncate(time.Microsecond)},
		registry: back.replicas, log: log, acted: make(chan struct{}, 1),
	}
}

// actedOn notes that this process has acted on the changes up to a number.
func (r *replica) actedOn(number int64) {
	r.confirmed.Store(number)
	select {
	case r.acted <- struct{}{}:
	default: // a report is due already
	}
}

// report tells the others that this replica is alive, and how far it is, until
// ctx ends.
func (r *replica) report(ctx context.Context) {
	for r.registry != nil && ctx.Err() == nil {
		if err := r.registry.RegisterReplica(ctx, r.now()); err != nil && ctx.Err() == nil {
			r.log.Warn("this replica could not report", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-r.acted:
		case <-time.After(heartbeat):
		}
	}
}

func (r *replica) now() keys.Replica {
	self := r.self
	self.Rules, self.Limits = r.rules(), limitSigns(r.limits)
	self.SeenAt = time.Now().UTC().Truncate(time.Microsecond)
	self.Confirmed = r.confirmed.Load()
	return self
}

// all lists the replicas that reported lately.
func (r *replica) all(ctx context.Context) ([]keys.Replica, error) {
	if r.registry == nil {
		return []keys.Replica{r.now()}, nil
	}
	return r.registry.Replicas(ctx)
}

// whoActed waits until all replicas have acted on the change with a number, or
// ctx ends, and says which have. The only replica has before it answers.
func (r *replica) whoActed(ctx context.Context, number int64) ([]keys.Confirmation, error) {
	if r.registry == nil {
		return []keys.Confirmation{{ID: r.self.ID, Name: r.self.Name, Confirmed: true}}, nil
	}
	var last []keys.Confirmation
	for {
		replicas, err := r.registry.Replicas(ctx)
		if err != nil {
			return last, err
		}
		all := true
		last = make([]keys.Confirmation, len(replicas))
		for i, x := range replicas {
			confirmed := x.Confirmed >= number || x.ID == r.self.ID // told before the change was acknowledged
			last[i] = keys.Confirmation{ID: x.ID, Name: x.Name, Confirmed: confirmed}
			all = all && confirmed
		}
		if all {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, nil
		case <-time.After(confirmPoll):
		}
	}
}
