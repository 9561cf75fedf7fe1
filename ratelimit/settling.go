package ratelimit

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// settleEvery is how often corrections go to the ledger: often enough for a
	// budget to be right, and later than a leasing client reports what it spent,
	// which must be known before any of it can return.
	settleEvery = time.Second
	// maxCorrections bounds the corrections that wait, maxSeries the budgets that
	// they are about. What does not fit stays as it was reserved.
	maxCorrections = 10_000
	maxSeries      = 10_000
	// seriesIdle is after how long without a correction a series ends; its ledger
	// remembers it for longer.
	seriesIdle = SettleWithin - time.Minute
	// settleTimeout bounds one call, settleRound those of one time. Calls are their own,
	// of as many series as leave together, and one after the other: with the renewals
	// they would keep requests waiting.
	settleTimeout = CallTimeout
	settleRound   = 800 * time.Millisecond
)

// Settling brings to the ledger what requests cost whose cost showed only in the
// answer. It is never in the way of a request: what cannot be corrected stays as
// it was reserved, which is never less than promised to others.
// Safe for concurrent use.
type Settling struct {
	ledger Settler
	now    func() time.Time
	name   string // of this process; part of the names of its series
	names  uint64
	queue  chan correction
	series map[string][]*series // of a holder, a key or an organization

	dropped, failed atomic.Uint64
}

// A correction is what one request came to.
type correction struct {
	ask              Ask
	at               time.Time
	reserved, actual int64
}

// A series is the corrections of one holder under the same limits, summed up: those of
// all keys that share them are one. A ledger remembers only some series of a holder.
type series struct {
	Reservation
	seenActual int64
	used       time.Time
}

// NewSettling returns one for a process with a name of its own: no other process
// may ever have the same.
func NewSettling(ledger Settler, process string, now func() time.Time) *Settling {
	return &Settling{
		ledger: ledger, now: now, name: process,
		queue: make(chan correction, maxCorrections), series: make(map[string][]*series),
	}
}

// Add notes what a request of cost ask.Cost came to. It does not block. A decision
// that no ledger made is not corrected.
func (s *Settling) Add(ask *Ask, d *Decision, actual int64) {
	if d.At.IsZero() || actual == ask.Cost {
		return
	}
	select {
	case s.queue <- correction{*ask, d.At, ask.Cost, actual}:
	default:
		s.dropped.Add(1)
	}
}

// Dropped counts the corrections that were not noted because too many waited, and
// Failed those that a ledger did not take in, to be tried again.
func (s *Settling) Dropped() uint64 { return s.dropped.Load() }

// Failed counts how often a correction did not reach the ledger; it is sent again
// with the next ones.
func (s *Settling) Failed() uint64 { return s.failed.Load() }

// Run brings corrections to the ledger until ctx ends, and then once more.
func (s *Settling) Run(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		s.round(context.WithoutCancel(ctx))
		if ctx.Err() != nil {
			return
		}
	}
}

// round sums up what waits and sends it. A ledger that fails is left alone until
// the next time: its corrections are cumulative.
func (s *Settling) round(ctx context.Context) {
	idle := s.now().Add(-seriesIdle)
	for holder, all := range s.series {
		all = slices.DeleteFunc(all, func(r *series) bool { return r.used.Before(idle) })
		if s.series[holder] = all; len(all) == 0 {
			delete(s.series, holder)
		}
	}
	for range len(s.queue) {
		s.sum(<-s.queue)
	}
	ctx, cancel := context.WithTimeout(ctx, settleRound)
	defer cancel()
	var due []*series
	for _, all := range s.series {
		for _, r := range all {
			if r.Reserved != r.Seen {
				due = append(due, r)
			}
		}
	}
	for batch := range slices.Chunk(due, maxBatch) {
		if ctx.Err() != nil || !s.send(ctx, batch) {
			return // the others would only wait as well
		}
	}
}

// sum adds a correction to the series of each holder that it is about.
func (s *Settling) sum(c correction) {
	for rest := c.ask.Limits; len(rest) > 0; {
		holder := rest[0].Holder
		var own, others []Limit
		for _, l := range rest {
			if l.Holder == holder {
				own = append(own, l)
			} else {
				others = append(others, l)
			}
		}
		s.sumOf(holder, own, &c)
		rest = others
	}
}

func (s *Settling) sumOf(holder string, limits []Limit, c *correction) {
	all := s.series[holder]
	var r *series
	for _, held := range all {
		if sameBudgets(held.Limits, limits) {
			r = held
		}
	}
	if r == nil {
		if len(s.series) >= maxSeries {
			s.dropped.Add(1)
			return
		}
		r = &series{Reservation: Reservation{Organization: c.ask.Organization, Key: c.ask.Key, Limits: limits}}
		s.rename(r)
		s.series[holder] = append(all, r)
	}
	if r.Reserved == r.Seen || c.at.Before(r.At) {
		r.At = c.at
	}
	r.Reserved, r.Actual, r.used = r.Reserved+c.reserved, r.Actual+c.actual, s.now()
}

// rename begins a series anew with what is not settled yet.
func (s *Settling) rename(r *series) {
	s.names++
	r.Session = s.name + "." + strconv.FormatUint(s.names, 36)
	r.Reserved, r.Actual = r.Reserved-r.Seen, r.Actual-r.seenActual
	r.Seen, r.seenActual = 0, 0
}

// send has the ledger take in what these series have come to, those that it has
// forgotten under another name. It reports whether the ledger can be reached.
func (s *Settling) send(ctx context.Context, batch []*series) (reached bool) {
	forgotten, reached := s.call(ctx, batch)
	if len(forgotten) == 0 {
		return reached
	}
	for _, r := range forgotten {
		s.rename(r)
	}
	_, reached = s.call(ctx, forgotten)
	return reached
}

// call makes one call and notes what was taken in.
func (s *Settling) call(ctx context.Context, batch []*series) (forgotten []*series, reached bool) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	rs, errs := make([]Reservation, len(batch)), make([]error, len(batch))
	for i, r := range batch {
		rs[i] = r.Reservation
	}
	s.ledger.Settle(ctx, rs, errs)
	for i, r := range batch {
		switch err := errs[i]; {
		case errors.Is(err, ErrForgotten):
			forgotten, reached = append(forgotten, r), true
		case err != nil:
			s.failed.Add(1)
		default:
			reached = true
			if r.Seen, r.seenActual = r.Reserved, r.Actual; r.Reserved > MaxQuota/2 || r.Actual > MaxQuota/2 {
				s.rename(r)
			}
		}
	}
	return forgotten, reached
}

// sameBudgets reports whether two lists are of the same limits, in the same
// periods: a correction under other limits would return what was never charged.
func sameBudgets(a, b []Limit) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if x.Name != y.Name || x.Holder != y.Holder || x.Per != y.Per || !x.Start.Equal(y.Start) || !x.End.Equal(y.End) {
			return false
		}
	}
	return true
}
