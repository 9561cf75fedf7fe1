package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrLate says that the ledger's answers came too late to admit anything on
// them: it is out of reach for practical purposes.
var ErrLate = errors.New("ledger answered too late")

// A StoppedError says that the key has changed since it was read: it must be
// read again and, if it may still be used, the limits asked with its version.
// Nothing was spent.
type StoppedError struct {
	// Version is the lowest that the ledger answers for.
	Version int64
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("the key has changed, its version is %d by now", e.Version)
}

// attempts bounds how often one decision asks the ledger. The second is for an
// answer that a pause of this process made late; a ledger that is slow every
// time must not hold the request up further.
const attempts = 2

// LimiterOptions configures a [Limiter].
type LimiterOptions struct {
	// Ledger is where budgets are kept; required.
	Ledger Ledger
	// Timeout bounds one call of the ledger; 0 for a ledger that cannot be slow.
	Timeout time.Duration
	// Local, if there is one, decides for open plans (Ask.Open) while the
	// ledger fails: each replica then admits up to the limits by itself.
	Local Ledger
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Limiter is the side of the limits that stands in the request path. Every
// decision is one Take at the ledger, whose answer counts only if it is there
// before the ledger may assume that the request was admitted.
// Safe for concurrent use.
type Limiter struct {
	ledger  Ledger
	timeout time.Duration
	local   Ledger
	now     func() time.Time
	calls   sync.Pool // of *call

	burnt, late, degraded atomic.Uint64
}

// DegradedLocal is the Decision.Degraded of a replica that decided by itself.
const DegradedLocal = "local"

// call is the memory that one question to the ledger needs; an Ask is too large
// to be allocated for every request.
type call struct {
	asks   [1]Ask
	grants [1]Grant
}

// NewLimiter returns a limiter in front of o.Ledger.
func NewLimiter(o LimiterOptions) *Limiter {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Limiter{
		ledger:  o.Ledger,
		timeout: o.Timeout,
		local:   o.Local,
		now:     o.Now,
		calls:   sync.Pool{New: func() any { return new(call) }},
	}
}

// Decide books one request of cost ask.Cost (0 counts as 1) against all of
// ask.Limits or none, and says whether it may pass. Of the ask only
// Organization, Key, Version, Rules, Open, Limits and Cost are read. An ask
// without limits is allowed without touching the ledger.
//
// A [*StoppedError] means that the key must be read again. Any other error means
// that the ledger could not be asked: the request can be neither admitted nor
// said to be over its limits.
func (l *Limiter) Decide(ctx context.Context, ask *Ask) (Decision, error) {
	if len(ask.Limits) == 0 {
		return Decision{Allowed: true}, nil
	}
	d, err := l.bounded(ctx, ask)
	if !l.fallsBack(ctx, ask, err) {
		return d, err
	}
	l.degraded.Add(1)
	d, err = l.take(ctx, l.local, ask)
	d.Degraded, d.At = DegradedLocal, time.Time{}
	return d, err
}

// fallsBack reports whether this replica decides by itself after an error.
func (l *Limiter) fallsBack(ctx context.Context, ask *Ask, err error) bool {
	if err == nil || !ask.Open || l.local == nil || ctx.Err() != nil {
		return false
	}
	_, stopped := errors.AsType[*StoppedError](err)
	return !stopped
}

// bounded asks the ledger for no longer than the time-out.
func (l *Limiter) bounded(ctx context.Context, ask *Ask) (Decision, error) {
	if l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	d, err := l.take(ctx, l.ledger, ask)
	// A connection's deadline may be over before the context's.
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrLate) {
		l.late.Add(1)
	}
	return d, err
}

// take books the request at a ledger.
func (l *Limiter) take(ctx context.Context, ledger Ledger, ask *Ask) (Decision, error) {
	c := l.calls.Get().(*call)
	defer l.put(c)
	c.asks[0] = request(ask)
	c.asks[0].Take = c.asks[0].Cost
	g := &c.grants[0]
	g.Limits = make([]State, 0, len(ask.Limits)) // given away with the decision
	for range attempts {
		sent := l.now()
		if err := ledger.Lease(ctx, c.asks[:], c.grants[:]); err != nil {
			return Decision{}, fmt.Errorf("limit of key %s: %w", ask.Key, err)
		}
		switch {
		case g.Status == Denied:
			return decision(g), nil
		case g.Status == Stale && !c.asks[0].Stored:
			// Another replica has a newer policy, which this one has yet to load. Its
			// limits hold until then.
			c.asks[0].Stored = true
			continue
		case g.Status != Granted:
			return Decision{}, undecided(ask, g)
		case elapsed(sent, l.now()) < Less2Drift(g.Admit):
			return decision(g), nil
		}
		// The ledger may forget this request while it is still in some window.
		// What it booked stays booked: nobody else can know that it was not used.
		l.burnt.Add(uint64(g.Taken))
	}
	return Decision{}, fmt.Errorf("limit of key %s: %w", ask.Key, ErrLate)
}

// Peek says what Decide would, errors included, and spends nothing.
func (l *Limiter) Peek(ctx context.Context, ask *Ask) (Decision, error) {
	if len(ask.Limits) == 0 {
		return Decision{Allowed: true}, nil
	}
	d, err := l.peekBounded(ctx, ask)
	if !l.fallsBack(ctx, ask, err) {
		return d, err
	}
	d, err = peek(ctx, l.local, ask)
	d.Degraded = DegradedLocal
	return d, err
}

func (l *Limiter) peekBounded(ctx context.Context, ask *Ask) (Decision, error) {
	if l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	return peek(ctx, l.ledger, ask)
}

func peek(ctx context.Context, ledger Ledger, ask *Ask) (Decision, error) {
	a := request(ask)
	g, err := ledger.Peek(ctx, a)
	if err == nil && g.Status == Stale { // see take
		a.Stored = true
		g, err = ledger.Peek(ctx, a)
	}
	if err != nil {
		return Decision{}, fmt.Errorf("limit of key %s: %w", ask.Key, err)
	}
	if g.Status != Denied && g.Status != Granted {
		return Decision{}, undecided(ask, &g)
	}
	return decision(&g), nil
}

// Burnt is the summed cost that was booked and not admitted because the
// ledger's answer came too late.
func (l *Limiter) Burnt() uint64 { return l.burnt.Load() }

// Late counts the decisions for which the ledger took too long.
func (l *Limiter) Late() uint64 { return l.late.Load() }

// Degraded counts the decisions that this replica made by itself.
func (l *Limiter) Degraded() uint64 { return l.degraded.Load() }

func (l *Limiter) put(c *call) {
	*c = call{} // the pool must not keep limits, names and states alive
	l.calls.Put(c)
}

func request(ask *Ask) Ask {
	return Ask{
		Organization: ask.Organization,
		Key:          ask.Key,
		Version:      ask.Version,
		Rules:        ask.Rules,
		Open:         ask.Open,
		Limits:       ask.Limits,
		Cost:         max(1, ask.Cost),
	}
}

// undecided is the error for an answer that is neither yes nor no.
func undecided(ask *Ask, g *Grant) error {
	if g.Status == Stopped {
		return fmt.Errorf("limit of key %s: %w", ask.Key, &StoppedError{Version: g.Version})
	}
	return fmt.Errorf("limit of key %s: unexpected status %d", ask.Key, g.Status)
}

func decision(g *Grant) Decision {
	d := Decision{Allowed: g.Status == Granted, Limits: g.Limits, At: g.Now}
	for i := range g.Limits {
		if s := &g.Limits[i]; s.Violated && s.RetryAfter > d.RetryAfter {
			d.RetryAfter = s.RetryAfter
		}
	}
	return d
}

// elapsed is the larger of the monotonic and the wall time between two
// readings: the monotonic clock stands still while the machine sleeps, and the
// wall clock may be set back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}
