package ratelimit_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// replaceable is a ledger that may be exchanged for another.
type replaceable struct{ atomic.Pointer[memory.Ledger] }

func (r *replaceable) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	return r.Load().Lease(ctx, asks, grants)
}

func (r *replaceable) Peek(ctx context.Context, a ratelimit.Ask) (ratelimit.Grant, error) {
	return r.Load().Peek(ctx, a)
}

// The ledger's values were evicted under a replica that held a lease. The answer
// to its next ask was that the lease is unknown, which hides that nothing is given
// after a loss; the replica took it for a denial and remembered it for the whole
// wait: 429 where 503 is documented.
func TestEmptiedLedgerIsNoDenial(t *testing.T) {
	var now atomic.Int64
	clock := func() time.Time { return time.UnixMicro(epoch).Add(time.Duration(now.Load())) }
	ledger := func() *memory.Ledger { return memory.New(memory.Options{Now: clock}) }
	var r replaceable
	r.Store(ledger())
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: &r, Now: clock})
	ask := of("key_a", 1000)
	decide := func() (ratelimit.Decision, error) {
		now.Add(int64(50 * time.Millisecond))
		return l.Decide(t.Context(), ask, nil)
	}
	for range 60 {
		if d, err := decide(); err != nil || !d.Allowed {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	emptied := ledger()
	now.Add(1) // 0 would be no loss
	emptied.Lose()
	r.Store(emptied)
	held := 0
	for range 60 {
		d, err := decide()
		if lost, ok := errors.AsType[*ratelimit.LostError](err); ok {
			if held++; lost.RetryAfter < time.Second {
				t.Errorf("it is to be tried again after %v", lost.RetryAfter)
			}
		} else if err != nil || !d.Allowed {
			t.Fatalf("after a loss: %+v, %v", d, err)
		}
	}
	if held == 0 {
		t.Error("everything was admitted after a loss")
	}
}
