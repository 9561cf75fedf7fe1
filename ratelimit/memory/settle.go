package memory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keygate/ratelimit"
)

// maxCorrections bounds the series of corrections that a holder remembers, one
// for each replica that settled lately. More are not begun: forgetting one early
// would let a copy of its first message count again.
const maxCorrections = 32

// A correction is what one series has corrected so far, cumulative.
type correction struct {
	session                 string
	reserved, actual, until int64
}

var _ ratelimit.Settler = (*Ledger)(nil)

// Settle implements [ratelimit.Settler].
func (l *Ledger) Settle(ctx context.Context, rs []ratelimit.Reservation, errs []error) {
	for i := range rs {
		if errs[i] = ctx.Err(); errs[i] == nil {
			errs[i] = l.settle(&rs[i])
		}
	}
}

func (l *Ledger) settle(r *ratelimit.Reservation) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("memory ledger: %w", err)
	}
	a := r.Ask()
	claims, err := l.shard(&a).settle(l, &a, r)
	if err == nil && len(claims) > 0 {
		err = l.journal.add(claims, l.date)
	}
	if err != nil {
		return fmt.Errorf("memory ledger: %w", err)
	}
	return nil
}

func (sh *shard) settle(l *Ledger, a *ratelimit.Ask, r *ratelimit.Reservation) (claims []claim, err error) {
	clock, wall := l.time()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l.closed.Load() {
		return nil, errClosed
	}
	var g ratelimit.Grant
	before := len(sh.order)
	sh.locate(a)
	sh.step.ask, sh.step.grant = a, &g
	sh.step.present(clock, wall)
	if sh.step.forgot(r) {
		err = ratelimit.ErrForgotten
	} else if err = sh.step.begin(); err == nil {
		for _, h := range sh.step.holders {
			sh.step.correct(h, r)
		}
		if l.journal != nil {
			claims = sh.step.behind()
		}
	}
	sh.leave(clock, before)
	return claims, err
}

// forgot reports whether some holder does not know what was corrected before. All
// are corrected or none: each knows the series equally well, unless a limit was
// added since. Nothing must come of the question: it makes no budget.
func (s *step) forgot(r *ratelimit.Reservation) bool {
	return r.Seen > 0 && slices.ContainsFunc(s.holders, func(h *holder) bool { return h.correction(r.Session) == nil })
}

func (h *holder) correction(session string) *correction {
	for i := range h.corrections {
		if h.corrections[i].session == session {
			return &h.corrections[i]
		}
	}
	return nil
}

func (s *step) correct(h *holder, r *ratelimit.Reservation) {
	var c correction
	if held := h.correction(r.Session); held != nil {
		c = *held
	} else if len(h.corrections) == maxCorrections {
		return
	} else {
		c.session = strings.Clone(r.Session)
	}
	if r.Reserved <= c.reserved {
		return // repeated, or overtaken by a later one
	}
	back := r.Reserved - c.reserved - (r.Actual - c.actual)
	for k := range s.places {
		p := &s.places[k]
		if p.h != h {
			continue
		}
		if back > 0 {
			s.refund(p, r.At.UnixMicro(), back)
		} else if until := p.budget().until(s.now); back < 0 && until > s.now {
			p.budget().charge(until, -back)
			h.end = max(h.end, until)
		}
	}
	c.reserved, c.actual = r.Reserved, r.Actual
	c.until = s.now + ratelimit.SettleWithin.Microseconds()
	h.corrections = slices.DeleteFunc(h.corrections, func(o correction) bool { return o.session == c.session })
	h.corrections = append(h.corrections, c)
	h.end = max(h.end, c.until)
}

// refund returns units that were charged at the time at or later, if that charge
// is still held. It may not reach past what a session holds: these may be the
// very units, and when they are reported their charge ends a window from then,
// which may be before the charges of others that were taken for them.
func (s *step) refund(p *place, at, n int64) {
	if at+ratelimit.SettleWithin.Microseconds() <= s.now || at > s.now {
		return
	}
	b, last := p.budget(), int64(1<<62)
	if p.h.leased() > 0 {
		last = b.until(s.now)
	}
	if from := b.until(at); from > s.now && (!b.calendar() || at >= p.begin) {
		b.refund(from, last, n)
	}
}
