package admin

import (
	"context"
	"net/http"
	"time"

	"keygate/internal/keys"
)

// Replica is one running keygate of those that share a store.
type Replica struct {
	_         struct{}  `json:"-" additionalProperties:"true"`
	ID        string    `json:"id" doc:"Made anew at each start."`
	Name      string    `json:"name" doc:"The host's name."`
	Version   string    `json:"version"`
	Rules     int64     `json:"rules" doc:"Number of the policy in force; each load of another policy gets the next, so that replicas with the same number have the same policy."`
	StartedAt time.Time `json:"started_at"`
	SeenAt    time.Time `json:"seen_at" doc:"When it last reported, by the store's clock."`
	// Limits is absent while limits are what they promise.
	Limits *LimitSigns `json:"limits,omitempty" doc:"Where limits were not what they promise, as in the body of its /readyz; absent while there is nothing to say."`
}

// LimitSigns counts, since a replica's start, where limits were not what they
// promise.
type LimitSigns struct {
	_          struct{} `json:"-" additionalProperties:"true"`
	Lost       uint64   `json:"signs_of_loss" doc:"Signs that the ledger lost what was spent."`
	ClockSteps uint64   `json:"clock_steps" doc:"Those of them that were steps of the ledger's clock."`
	Held       uint64   `json:"held_after_loss" doc:"Answers of a ledger that waits after a possible loss."`
	Degraded   uint64   `json:"decided_alone" doc:"Decisions that the replica made by itself (outage.mode: open)."`
	Late       uint64   `json:"late" doc:"Decisions for which the ledger took too long."`
}

func replicaOf(r *keys.Replica) Replica {
	out := Replica{ID: r.ID, Name: r.Name, Version: r.Version, Rules: r.Rules, StartedAt: r.StartedAt, SeenAt: r.SeenAt}
	if l := r.Limits; l != (keys.LimitSigns{}) {
		out.Limits = &LimitSigns{Lost: l.Lost, ClockSteps: l.ClockSteps, Held: l.Held, Degraded: l.Degraded, Late: l.Late}
	}
	return out
}

// Replicas are all that reported within the last minute.
type Replicas struct {
	_     struct{}  `json:"-" additionalProperties:"true"`
	Items []Replica `json:"items" nullable:"false"`
}

func (h *handler) registerReplicas() {
	register(h, operation{
		method: http.MethodGet, path: "/v1/replicas", id: "list-replicas", tag: "Instance", status: http.StatusOK,
		summary: "List the running replicas", detail: "All that reported within the last minute, in the order of their start. Operators only.",
		example: Replicas{Items: []Replica{exampleReplica}},
	}, func(ctx context.Context, by *call, _ *struct{}) (*body[Replicas], error) {
		if err := h.Service.MayOperate(by.actor, "list the replicas"); err != nil {
			return nil, err
		}
		found, err := h.Replicas(ctx)
		out := Replicas{Items: make([]Replica, len(found))}
		for i := range found {
			out.Items[i] = replicaOf(&found[i])
		}
		return &body[Replicas]{out}, err
	})
}
