package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"keygate/internal/problem"
	"keygate/ratelimit"
)

// errCutOff is why a request under way was ended: the ledger could not be reached
// for so long that others may have its place.
var errCutOff = errors.New("the request's place among those in flight is over")

// board finds a place among the key's requests in flight. It comes before the
// other limits are asked: a request that is refused must not have spent them.
func (p *Proxy) board(x *exchange, known int64) *refusal {
	if p.inFlight == nil || x.principal.Plan.Concurrent == 0 {
		return nil
	}
	x.leave() // of the look before, at an older version of the key
	x.askFor(known)
	x.ask.Limits = x.principal.InFlight
	ctx, cut := context.WithCancelCause(x.r.Context())
	flight, decision, err := p.inFlight.Begin(x.r.Context(), &x.ask, func() { cut(errCutOff) })
	if flight == nil {
		cut(nil)
	}
	switch {
	case err != nil:
		return x.limiterFailed(err)
	case !decision.Allowed:
		return x.tooManyInFlight(decision)
	}
	x.flight, x.cut = flight, cut
	x.r = x.r.WithContext(ctx)
	return nil
}

// leave gives the place back.
func (x *exchange) leave() {
	if x.flight != nil {
		x.flight.End()
		x.cut(nil)
		x.flight = nil
	}
}

func (x *exchange) wasCutOff() bool {
	return x.flight != nil && errors.Is(context.Cause(x.r.Context()), errCutOff)
}

func (x *exchange) tooManyInFlight(d ratelimit.Decision) *refusal {
	return &refusal{decision: limited, retryAfter: ratelimit.RetryAfterSeconds(d), problem: problem.Problem{
		Type: problem.TypeQuotaExceeded, Status: http.StatusTooManyRequests, Error: "Rate limit exceeded",
		Detail: fmt.Sprintf("The plan %q allows each key %d requests at the same time, and that many are under way. Send the next one when one of them has ended, or ask for a larger plan.",
			x.principal.Plan.Name, x.principal.Plan.Concurrent),
		ViolatedPolicies: []string{ratelimit.ConcurrentName},
	}}
}
