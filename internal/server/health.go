package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// pingTimeout bounds what /readyz waits for the store.
const pingTimeout = 2 * time.Second

// health answers /livez and /readyz. Liveness asks nothing: a restart would not
// bring a store back.
type health struct {
	ping         func(context.Context) error
	emptied      func() bool
	policy       *policyLoader
	unknownPlans func() []string
	feedAge      func() time.Duration
	limits       *ratelimit.Stats
	started      atomic.Bool
	draining     atomic.Bool
}

// readiness is the body of /readyz. Policy errors are shown but do not make the
// instance unready: the former policy is in force.
type readiness struct {
	Ready    bool   `json:"ready"`
	Draining bool   `json:"draining"`
	Store    string `json:"store"`
	// Emptied means that the shared store lacks the records of the first start.
	Emptied bool `json:"store_emptied,omitempty"`
	// ChangeFeed is how long ago, in seconds, the change feed of a shared store
	// last proved that no change was missed.
	ChangeFeed float64      `json:"change_feed_age_seconds,omitempty"`
	Policy     policyStatus `json:"policy"`
	// UnknownPlans are plans in use that the policy lacks: the default plan's
	// limits apply in their place.
	UnknownPlans []string `json:"unknown_plans,omitempty"`
	// Limits are left out while there is nothing to say of them.
	Limits keys.LimitSigns `json:"limits,omitzero"`
}

// limitSigns is what a limiter has counted.
func limitSigns(s *ratelimit.Stats) keys.LimitSigns {
	return keys.LimitSigns{
		Lost: s.Lost.Load(), ClockSteps: s.ClockSteps.Load(), Held: s.Held.Load(),
		Degraded: s.Degraded.Load(), Late: s.Late.Load(),
	}
}

func (h *health) livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // fails only if the asker is gone
}

func (h *health) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	body := readiness{Draining: h.draining.Load(), Store: "ok", Emptied: h.emptied(), Policy: h.policy.status(), UnknownPlans: h.unknownPlans(), Limits: limitSigns(h.limits)}
	err := h.ping(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		body.Store = fmt.Sprintf("did not answer within %s", pingTimeout)
	case err != nil:
		body.Store = err.Error()
	}
	if err == nil && !h.started.Load() {
		body.Store = "starting"
	}
	body.ChangeFeed = h.feedAge().Seconds()
	body.Ready = err == nil && !body.Draining && h.started.Load()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(body) // fails only if the asker is gone
}
