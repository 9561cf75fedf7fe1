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
}

func replicaOf(r *keys.Replica) Replica {
	return Replica{ID: r.ID, Name: r.Name, Version: r.Version, Rules: r.Rules, StartedAt: r.StartedAt, SeenAt: r.SeenAt}
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
