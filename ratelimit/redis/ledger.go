// Package redis is the ledger that any number of replicas share: budgets live in
// Redis, 6.2 or later, where one script decides over all limits of an ask at once.
// It gives exactly the grants of the ledger in memory.
//
// Every key of one organization carries the same hash tag, {l0} to {l1023}, so
// that in a cluster an ask is one node's business. The values are:
//
//	kg:l:{l<n>}:<organization>:<holder>  what a key or organization has spent
//	kg:c:{l<n>}:<organization>:<holder>  its requests in flight
//	kg:s:{l<n>}:<organization>:<key>     the stop mark of a key: a version
//	kg:m:{l<n>}                          the marker of the tag: see [Ledger.Mark]
//
// A key without an organization stands in for it. Each value but the markers has
// a time to live: a holder's ends when its last charge has, a mark's after
// [ratelimit.StopLife].
//
// A value that is not of this ledger's making is never read as "nothing spent":
// asks that need it fail with [ErrDamaged], which names it, until an operator has
// removed it with DEL. Its holder then starts anew, as if it had spent nothing.
package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"keygate/ratelimit"
)

// ErrDamaged marks an answer that could not be given because a stored value is
// none of the ledger's.
var ErrDamaged = errors.New("stored value is damaged: remove it with DEL")

var (
	//go:embed marker.lua
	markerSource string
	//go:embed holder.lua
	holderSource string
	//go:embed lease.lua
	leaseSource string
	//go:embed stop.lua
	stopSource string
	//go:embed mark.lua
	markSource string
)

// Ledger implements [ratelimit.Ledger] and [ratelimit.Stopper].
type Ledger struct {
	client goredis.UniversalClient
	lease  script
	stop   script
	mark   script
}

var (
	_ ratelimit.Ledger     = (*Ledger)(nil)
	_ ratelimit.Stopper    = (*Ledger)(nil)
	_ ratelimit.Settler    = (*Ledger)(nil)
	_ ratelimit.ManyClocks = (*Ledger)(nil)
)

// New returns a ledger on a client made with what [Options] returns. The client
// stays the caller's, who closes it.
func New(client goredis.UniversalClient) *Ledger {
	return &Ledger{
		client: client,
		lease:  newScript(markerSource + holderSource + leaseSource), stop: newScript(stopSource), mark: newScript(markerSource + markSource),
	}
}

// Lease implements [ratelimit.Ledger]. Several asks go out as one pipeline. Each
// is sent once: if its answer is lost, whether it took effect stays unknown. How
// long a call may last is the context's to say; the client's time-outs bound
// single steps of it.
func (l *Ledger) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	if len(asks) != len(grants) {
		return fmt.Errorf("redis ledger: %d asks, memory for %d grants", len(asks), len(grants))
	}
	for i := range asks {
		if err := asks[i].Validate(); err != nil {
			return fmt.Errorf("redis ledger: %w", err)
		}
	}
	calls := make([]*call, len(asks))
	for i := range asks {
		mode := modeLease
		if asks[i].Release {
			mode = modeRelease
		}
		calls[i] = newCall(ctx, l.lease.asked(&asks[i], mode))
	}
	if err := l.run(ctx, &l.lease, calls); err != nil {
		return err
	}
	for i := range asks {
		if err := answer(&asks[i], calls[i].Val(), &grants[i]); err != nil {
			return err
		}
	}
	return nil
}

// Peek implements [ratelimit.Ledger]. It runs the same script, which then writes
// nothing: EVALSHA_RO would say so to Redis as well, but is not known before 7.0.
func (l *Ledger) Peek(ctx context.Context, a ratelimit.Ask) (ratelimit.Grant, error) {
	if err := a.Validate(); err != nil {
		return ratelimit.Grant{}, fmt.Errorf("redis ledger: %w", err)
	}
	c := newCall(ctx, l.lease.asked(&a, modePeek))
	if err := l.run(ctx, &l.lease, []*call{c}); err != nil {
		return ratelimit.Grant{}, err
	}
	g := ratelimit.Grant{Limits: make([]ratelimit.State, 0, len(a.Limits))}
	err := answer(&a, c.Val(), &g)
	return g, err
}

// Settle implements [ratelimit.Settler].
func (l *Ledger) Settle(ctx context.Context, rs []ratelimit.Reservation, errs []error) {
	calls, of := make([]*call, 0, len(rs)), make([]int, 0, len(rs))
	for i := range rs {
		if err := rs[i].Validate(); err != nil {
			errs[i] = fmt.Errorf("redis ledger: %w", err)
			continue
		}
		calls, of = append(calls, newCall(ctx, l.lease.settled(&rs[i]))), append(of, i)
	}
	_ = l.run(ctx, &l.lease, calls) // each has its own
	for k, c := range calls {
		switch said, err := c.Result(); {
		case err != nil:
			errs[of[k]] = failure(err)
		case len(said) > 0 && ratelimit.Status(said[0]) == ratelimit.Expired:
			errs[of[k]] = fmt.Errorf("redis ledger: %w", ratelimit.ErrForgotten)
		default:
			errs[of[k]] = nil
		}
	}
}

// Stop implements [ratelimit.Stopper]. It may be repeated where it failed.
func (l *Ledger) Stop(ctx context.Context, organization, key string, version int64) error {
	if err := ratelimit.ValidateStop(key, version); err != nil {
		return fmt.Errorf("redis ledger: %w", err)
	}
	name := newNames(organization, key).mark(key)
	c := newCall(ctx, []any{"evalsha", l.stop.hash, 1, name, version, ratelimit.StopLife.Milliseconds()})
	return l.run(ctx, &l.stop, []*call{c})
}

// Clock implements [ratelimit.ManyClocks]. The nodes of a cluster have a clock each,
// and a hash tag is on one of them. That one is replaced by another is a step like any
// other: charges end by the new one's clock.
func (l *Ledger) Clock(place string) (number uint32, one bool) {
	if _, cluster := l.client.(*goredis.ClusterClient); cluster {
		return tagOf(place), false
	}
	return 0, true
}

// run sends the calls, and those again as text whose script Redis did not know:
// they had no effect.
func (l *Ledger) run(ctx context.Context, s *script, calls []*call) error {
	l.send(ctx, calls)
	var unknown []*call
	for _, c := range calls {
		if c.Err() != nil && goredis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
			c.inFull(ctx, s)
			unknown = append(unknown, c)
		}
	}
	l.send(ctx, unknown)
	for _, c := range calls {
		if err := c.Err(); err != nil {
			return failure(err)
		}
	}
	return nil
}

func (l *Ledger) send(ctx context.Context, calls []*call) {
	switch len(calls) {
	case 0:
	case 1:
		_ = l.client.Process(ctx, calls[0]) // the error is the call's
	default:
		_, _ = l.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, c := range calls {
				_ = p.Process(ctx, c)
			}
			return nil
		})
	}
}

// isReply reports whether Redis itself refused a call: it would again.
func isReply(err error) bool {
	_, ok := errors.AsType[goredis.Error](err)
	return ok || errors.Is(err, ErrDamaged)
}

// failure says what became of a call, without what was sent.
func failure(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "DAMAGED "); ok {
		return fmt.Errorf("redis ledger: %s: %w", name, ErrDamaged)
	}
	return fmt.Errorf("redis ledger: %w", err)
}
