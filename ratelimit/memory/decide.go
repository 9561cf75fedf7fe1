package memory

import (
	"fmt"
	"time"

	"keygate/ratelimit"
)

// callTimeout is D in microseconds.
const callTimeout = int64(ratelimit.CallTimeout / time.Microsecond)

// A place is where one limit of an ask is kept: a budget of a holder.
type place struct {
	h     *holder
	i     int
	quota int64
	tau   int64
	begin int64 // of the calendar period, later than now where it is not known
	lost  int64 // when the limit gives again after a loss; 0: it does
	avail int64 // what may still be given; negative once a quota was lowered
}

func (p *place) budget() *budget { return &p.h.budgets[p.i] }

// largest is the most that one ask may lease of a window or calendar quota.
func (p *place) largest(cost int64) int64 { return max(cost, p.quota/20) }

// A step is one decision, taken while the shard is locked: it sees and changes
// the holders of one ask and nothing else.
type step struct {
	now     int64
	wall    lag   // what calendar periods are ahead by
	admit   int64 // how long after now a taken unit may be admitted
	lostAt  int64 // 0: nothing was lost
	ask     *ratelimit.Ask
	grant   *ratelimit.Grant
	places  []place   // one for each limit asked, in their order
	holders []*holder // the distinct ones, in order of first use
}

// present brings all holders of the ask to one present: the clock's, or the
// latest at which one of them was decided about.
func (s *step) present(clock int64, wall lag) {
	s.now, s.wall, s.admit = clock, wall, callTimeout
	for _, h := range s.holders {
		s.now = max(s.now, h.hwm)
	}
	for _, h := range s.holders {
		h.advance(s.now)
	}
}

// stale answers an ask that goes by an older policy than the last one about any
// of its budgets. Of what is over, nobody need know by which policy it was.
func (s *step) stale() bool {
	rules := int64(0)
	for _, h := range s.holders {
		if !h.empty() {
			rules = max(rules, h.rules)
		}
	}
	if s.ask.Stored || s.ask.Release || rules <= s.ask.Rules {
		return false
	}
	*s.grant = ratelimit.Grant{Status: ratelimit.Stale, Now: time.UnixMicro(s.now), Version: rules, Limits: s.grant.Limits[:0]}
	return true
}

// begin makes the budgets that are missing and sets their terms, now that what
// has ended by the former policy has ended, whether or not anybody looked in
// between.
func (s *step) begin() error {
	for k := range s.places {
		if l := &s.ask.Limits[k]; l.Per == 0 && !l.Concurrent {
			if _, _, _, ok := l.Present(s.now + s.wall.by); !ok {
				return fmt.Errorf("limit %q of %q: the period that the ask calls present and the next one are over", l.Name, l.Holder)
			}
		}
	}
	for _, h := range s.holders {
		if h.empty() {
			h.rules = 0
		}
		h.tidy(s.ask)
	}
	for k := range s.places {
		s.place(k)
	}
	for _, h := range s.holders {
		h.rules = max(h.rules, s.ask.Rules)
	}
	*s.grant = ratelimit.Grant{
		Admit:  micros(s.admit),
		Now:    time.UnixMicro(s.now),
		Limits: s.grant.Limits[:0],
	}
	return nil
}

// place finds or makes the budget of a limit and its terms: those of the ask, or
// those that a newer policy has brought, if the ask accepts them.
func (s *step) place(k int) {
	p, l := &s.places[k], &s.ask.Limits[k]
	p.tau, p.lost = l.LeaseTime().Microseconds(), 0
	t := term{per: l.Per.Microseconds()}
	p.begin = 1 << 62
	if l.Per == 0 && !l.Concurrent {
		p.begin, t.end, t.next, _ = l.Present(s.now + s.wall.by)
		t.wall = t.end
		p.begin, t.end, t.next = max(p.begin-s.wall.by, s.wall.since+1), t.end-s.wall.by, t.next-s.wall.by
	}
	if p.i = p.h.index(l.Name); p.i >= 0 {
		p.budget().turn(s.now + s.wall.by)
	}
	if p.i < 0 || s.ask.Rules >= p.h.rules || p.h.unused(p.i, s.now) {
		p.i = p.h.add(s.now, l.Name, t)
		p.budget().quota = l.Quota
	}
	b := p.budget()
	p.quota = b.quota
	if b.per > 0 {
		p.tau = ratelimit.LeaseTime(micros(b.per)).Microseconds()
	}
	if b.calendar() {
		p.tau = min(p.tau, b.end-s.now)
		s.admit = min(s.admit, b.end-s.now)
	} else if s.lostAt > 0 && !s.ask.Open {
		if until := s.lostAt + b.per + p.tau; until > s.now {
			p.lost = until
		}
	}
}

// lease answers the ask.
func (s *step) lease() {
	a, g := s.ask, s.grant
	id, known, expired := s.session()
	if known && a.Release {
		g.Status, g.Leased = ratelimit.Granted, s.holders[0].session(id).granted
		for _, h := range s.holders {
			h.release(id)
		}
		s.measure()
		s.finish(id, false)
		return
	}
	room := s.measure()
	lost := s.lost()
	if lost {
		room = 0
	}
	g.Taken = s.take(room)
	n := s.extend(id, known, lost)
	asked, short := a.Take > 0 || a.Want > 0, g.Taken < a.Take || a.Want > 0 && n == 0
	switch {
	case expired:
		g.Status = ratelimit.Expired
	case lost && asked:
		g.Status = ratelimit.Lost
	case g.Taken == 0 && n == 0 && asked:
		g.Status = ratelimit.Denied
	default:
		g.Status = ratelimit.Granted
	}
	s.finish(id, short)
}

// peek answers what lease would for a request of the ask's cost.
func (s *step) peek() {
	short := s.measure() < s.ask.Cost || s.lost()
	switch {
	case s.lost():
		s.grant.Status = ratelimit.Lost
	case !short:
		s.grant.Status = ratelimit.Granted
	}
	s.finish("", short)
}

// lost reports whether some limit gives nothing because charges may be missing.
func (s *step) lost() bool {
	for k := range s.places {
		if s.places[k].lost > 0 {
			return true
		}
	}
	return false
}

// session takes in what the ask reports and says which session it may lease to:
// "" where there is none. A session that the ledger does not know, or knows with
// less than the replica was given, is never taken up again: the replica may
// still hold tokens of it that have meanwhile been charged and let go. Its
// successor is opened instead, in the same step. The last word of one that ended
// is taken in where its charge is still held.
func (s *step) session() (id string, known, expired bool) {
	a := s.ask
	if a.Session == "" {
		return "", false, false
	}
	granted, found, same := s.find(a.Session)
	switch {
	case same && a.Seen <= granted:
		for _, h := range s.holders {
			h.report(s.now, h.session(a.Session), a.Spent)
		}
		return a.Session, true, false
	case !found && a.Spent == 0 && a.Seen == 0 && !a.Release:
		return a.Session, false, false
	case a.Release:
		for _, h := range s.holders {
			h.reopen(a.Session, a.Spent)
		}
	}
	_, found, same = s.find(a.NextSession)
	if a.NextSession == "" || found != same {
		return "", false, true
	}
	return a.NextSession, same, true
}

// find looks a session up. It is the same only if every holder of the ask knows
// it with as much granted: a limit that a new policy added, or took away for a
// while, was not asked when some of the tokens were given.
func (s *step) find(id string) (granted int64, found, same bool) {
	same = true
	for k, h := range s.holders {
		held := h.session(id)
		if held == nil {
			same = false
			continue
		}
		if k > 0 && held.granted != granted {
			same = false
		}
		granted, found = held.granted, true
	}
	return granted, found, same
}

// measure fills in what every limit has left and returns the least of it.
func (s *step) measure() (room int64) {
	room = ratelimit.MaxQuota
	for k := range s.places {
		p := &s.places[k]
		p.avail = p.quota - p.budget().spent - p.h.leased()
		room = min(room, p.avail)
	}
	return room
}

// take books as many of the waiting requests as fit all limits. They may be
// admitted until the end of the call's time, or of a calendar period, so that is
// when their windows begin.
func (s *step) take(room int64) int64 {
	cost := s.ask.Cost
	if room < cost || s.ask.Take < cost {
		return 0
	}
	n := min(s.ask.Take, room)
	n -= n % cost
	for k := range s.places {
		p := &s.places[k]
		until := p.budget().until(s.now + s.admit)
		p.budget().charge(until, n)
		p.h.end = max(p.h.end, until)
		p.avail -= n
	}
	return n
}

// extend leases tokens to a session and prolongs its life. What one session
// gets of a limit is bounded by a twentieth of the quota and by an equal share
// of what is left among all that hold something. A hundredth of the quota is not
// shared any further, nor is one request's cost: where demand is far above the
// limit, each crumb would cost a trip. Of requests in flight it is the share alone:
// they come back and are not used up.
func (s *step) extend(id string, known, lost bool) (n int64) {
	if id == "" {
		return 0
	}
	n = s.ask.Want
	ttl := int64(1<<63 - 1)
	for k := range s.places {
		p := &s.places[k]
		active := 1 + p.h.others(id)
		if p.avail < s.ask.Cost || lost {
			n = 0
		}
		share := max(s.ask.Cost, p.avail/active)
		if !p.h.key.concurrent {
			share = min(max(share, min(p.avail, p.quota/100)), p.largest(s.ask.Cost))
		}
		n = min(n, share)
		ttl = min(ttl, p.tau)
	}
	unspent := false
	if known {
		for _, h := range s.holders {
			held := h.session(id)
			unspent = unspent || held.left() > 0
			s.grant.Leased = held.granted
		}
	}
	if n == 0 && !unspent {
		return 0 // its expiry stays, and a session without tokens is not opened
	}
	exp := int64(1<<63 - 1)
	for _, h := range s.holders {
		exp = min(exp, h.grant(s.now, id, n, ttl))
	}
	for k := range s.places {
		s.places[k].avail -= n
	}
	s.grant.Leased += n
	s.grant.TTL = micros(exp - s.now)
	return n
}

// finish fills in the state of every limit; short says that not all could be
// given. The ask's own session is the one that others are other than.
func (s *step) finish(id string, short bool) {
	g := s.grant
	for k := range s.places {
		p := &s.places[k]
		b := p.budget()
		st := ratelimit.State{Name: s.ask.Limits[k].Name, Quota: p.quota, Remaining: max(0, p.avail)}
		if p.avail < p.quota {
			at, _ := b.freed(p.h.sessions, st.Remaining+1-p.avail)
			st.NextUnit = micros(at - s.now)
		}
		if short && (p.avail < s.ask.Cost || p.lost > 0) {
			st.Violated = true
			st.RetryAfter = s.retry(p)
		}
		g.Limits = append(g.Limits, st)
	}
	for _, h := range s.holders {
		g.OthersHold = g.OthersHold || h.others(id) > 0
	}
}

// retry is how long it takes until one request of the ask's cost fits a limit.
func (s *step) retry(p *place) time.Duration {
	b := p.budget()
	at, ok := b.freed(p.h.sessions, max(0, s.ask.Cost-p.avail))
	switch {
	case ok:
		return micros(max(at, p.lost) - s.now)
	case b.calendar():
		// A cost above the quota never fits. Such a client may as well come back
		// once per window or period, in case the quota is raised.
		return micros(b.end - s.now)
	case b.per > 0:
		return micros(b.per)
	}
	return micros(p.tau)
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
