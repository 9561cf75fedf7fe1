package keys

import (
	"context"
	"time"
)

// Replica is one running keygate of several on one store.
type Replica struct {
	// ID is made anew at each start.
	ID      string
	Name    string
	Version string
	// Rules is the number of the policy in force.
	Rules     int64
	StartedAt time.Time
	// SeenAt is when it registered last, by the store's clock.
	SeenAt time.Time
	// Confirmed is the FeedNumber of the last change on which it has acted.
	Confirmed int64
	Limits    LimitSigns
}

// LimitSigns counts, since a replica's start, where limits were not what they
// promise.
type LimitSigns struct {
	// Lost are signs that the ledger lost what was spent, ClockSteps those of
	// them that were steps of its clock.
	Lost       uint64 `json:"signs_of_loss"`
	ClockSteps uint64 `json:"clock_steps"`
	// Held are answers of a ledger that waits after a possible loss.
	Held uint64 `json:"held_after_loss"`
	// Degraded are decisions that the replica made by itself, Late those for which
	// the ledger took too long.
	Degraded uint64 `json:"decided_alone"`
	Late     uint64 `json:"late"`
}

// NewReplicaID returns an id for a replica that starts.
func NewReplicaID() string { return newID("rep_") }

// ReplicaRegistry is what a Store that replicas share does besides.
type ReplicaRegistry interface {
	// RegisterReplica notes that a replica is alive; it is forgotten a minute
	// after the last time. SeenAt is ignored.
	RegisterReplica(ctx context.Context, r Replica) error
	// Replicas lists those alive in the order of their ids.
	Replicas(ctx context.Context) ([]Replica, error)
}

// Confirmation says whether a replica has acted on a change.
type Confirmation struct {
	ID, Name  string
	Confirmed bool
}
