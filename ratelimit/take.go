package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DegradedLocal is the Decision.Degraded of a replica that decided by itself.
const DegradedLocal = "local"

// call is the memory that one question to the ledger needs; an Ask is too large
// to be allocated for every request.
type call struct {
	asks   [1]Ask
	grants [1]Grant
}

// take books one request at a ledger, without a holder: where this replica
// decides by itself, and where there is no room for one more key.
// stored has a ledger that has seen a newer policy decide by the limits of that.
func (l *Limiter) take(ctx context.Context, ledger Ledger, ask *Ask, stored bool, states []State) (Decision, error) {
	c := l.calls.Get().(*call)
	defer l.put(c)
	c.asks[0] = request(ask)
	c.asks[0].Take, c.asks[0].Stored = c.asks[0].Cost, stored
	g := &c.grants[0]
	g.Limits = states[:0]
	for range attempts {
		sent := l.now()
		if err := ledger.Lease(ctx, c.asks[:], c.grants[:]); err != nil {
			return Decision{}, err
		}
		switch {
		case g.Status == Denied:
			return decision(g), nil
		case g.Status == Stale && !c.asks[0].Stored:
			// Another replica has a newer policy, which this one has yet to load. Its
			// limits hold until then.
			l.stale()
			c.asks[0].Stored = true
			continue
		case g.Status != Granted:
			return Decision{}, undecided(g)
		case elapsed(sent, l.now()) < Less2Drift(g.Admit):
			return decision(g), nil
		}
		l.stats.Burnt.Add(uint64(g.Taken)) // see holder.serve
	}
	return Decision{}, ErrLate
}

func (l *Limiter) put(c *call) {
	*c = call{} // the pool must not keep limits, names and states alive
	l.calls.Put(c)
}

// Peek says what Decide would, errors included, and spends nothing. What this
// replica holds counts as what is left.
func (l *Limiter) Peek(ctx context.Context, ask *Ask) (Decision, error) {
	if len(ask.Limits) == 0 {
		return Decision{Allowed: true}, nil
	}
	d, held, err, done := l.peekHere(ask)
	if !done {
		d, err = l.peekThere(ctx, ask, held)
	}
	if l.fallsBack(ctx, ask, err) {
		d, err = peek(ctx, l.local, ask, 0, false)
		d.Degraded, d.At = DegradedLocal, time.Time{}
	}
	return d, about(ask, err)
}

// about says whose limit could not be decided.
func about(ask *Ask, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("limit of key %s: %w", ask.Key, err)
}

// peekHere answers from a lease or from memory, if Decide would; held is what is
// left of the lease otherwise.
func (l *Limiter) peekHere(ask *Ask) (d Decision, held int64, err error, done bool) {
	h := l.table.find(ask)
	if h == nil {
		return d, 0, nil, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if oldest := max(h.stopped, h.version()); ask.Version < oldest {
		return d, 0, &StoppedError{Version: oldest}, true
	}
	cost := max(1, ask.Cost)
	if le := h.lease.Load(); le != nil && le.terms.Load().same(ask) {
		now, v, total := l.now(), le.view.Load(), le.spent()
		if held = max(0, v.granted-total); !v.live(now) {
			held = 0
		} else if held >= cost {
			return Decision{Allowed: true, Limits: v.show(nil, total, elapsed(v.sent, now))}, held, nil, true
		}
	}
	d, err, done = h.recalled(ask, cost, nil, l.now)
	return d, held, err, done
}

func (l *Limiter) peekThere(ctx context.Context, ask *Ask, held int64) (Decision, error) {
	if l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	d, err := peek(ctx, l.ledger, ask, held, false)
	if errors.Is(err, ErrStale) {
		return peek(ctx, l.ledger, ask, 0, true)
	}
	return d, err
}

func peek(ctx context.Context, ledger Ledger, ask *Ask, held int64, stored bool) (Decision, error) {
	a := request(ask)
	a.Stored = stored
	g, err := ledger.Peek(ctx, a)
	if err != nil {
		return Decision{}, err
	}
	if g.Status != Denied && g.Status != Granted {
		return Decision{}, undecided(&g)
	}
	for i := range g.Limits {
		g.Limits[i].Remaining += held
	}
	if g.Status == Denied && held > 0 && enough(g.Limits, a.Cost) {
		g.Status, g.Limits = Granted, passed(g.Limits) // Decide would give the lease back first
	}
	return decision(&g), nil
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
func undecided(g *Grant) error {
	switch g.Status {
	case Stopped:
		return &StoppedError{Version: g.Version}
	case Stale:
		return ErrStale
	case Lost:
		return &LostError{RetryAfter: retryAfter(g.Limits)}
	default:
		return fmt.Errorf("unexpected status %d", g.Status)
	}
}

func decision(g *Grant) Decision {
	return Decision{Allowed: g.Status == Granted, RetryAfter: retryAfter(g.Limits), Limits: g.Limits, At: g.Now}
}
