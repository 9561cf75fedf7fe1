package memory

import (
	"time"

	"keygate/ratelimit"
)

// callTimeout is D in microseconds.
const callTimeout = int64(ratelimit.CallTimeout / time.Microsecond)

// A place is where one limit of an ask is kept: a budget of a holder.
type place struct {
	h     *holder
	i     int
	avail int64 // what may still be given; negative once a quota was lowered
}

// A step is one decision, taken while the shard is locked: it sees and changes
// the holders of one ask and nothing else.
type step struct {
	now     int64
	ask     *ratelimit.Ask
	grant   *ratelimit.Grant
	places  []place   // one for each limit asked, in their order
	holders []*holder // the distinct ones, in order of first use
}

// begin brings all holders of the ask to one present: the clock's, or the
// latest at which one of them was decided about. Only then does it make the
// budgets that are missing and set the windows, so that what has ended by the
// former policy has ended, whether or not anybody looked in between.
func (s *step) begin(clock int64) {
	s.now = clock
	for _, h := range s.holders {
		s.now = max(s.now, h.hwm)
	}
	for _, h := range s.holders {
		h.advance(s.now)
		h.tidy(s.ask)
	}
	for k := range s.places {
		l := &s.ask.Limits[k]
		s.places[k].i = s.places[k].h.add(s.now, l.Name, l.Per.Microseconds())
	}
	*s.grant = ratelimit.Grant{
		Admit:  ratelimit.CallTimeout,
		Now:    time.UnixMicro(s.now),
		Limits: s.grant.Limits[:0],
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
	g.Taken = s.take(room)
	n := s.extend(id, known)
	short := g.Taken < a.Take || a.Want > 0 && n == 0
	switch {
	case expired:
		g.Status = ratelimit.Expired
	case g.Taken == 0 && n == 0 && a.Take+a.Want > 0:
		g.Status = ratelimit.Denied
	default:
		g.Status = ratelimit.Granted
	}
	s.finish(id, short)
}

// peek answers what lease would for a request of the ask's cost.
func (s *step) peek() {
	short := s.measure() < s.ask.Cost
	if !short {
		s.grant.Status = ratelimit.Granted
	}
	s.finish("", short)
}

// session takes in what the ask reports and says which session it may lease to:
// "" where there is none. A session that the ledger does not know, or knows with
// less than the replica was given, is never taken up again: the replica may
// still hold tokens of it that have meanwhile been charged and let go. Its
// successor is opened instead, in the same step.
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
		p.avail = s.ask.Limits[k].Quota - p.h.budgets[p.i].spent - p.h.leased()
		room = min(room, p.avail)
	}
	return room
}

// take books as many of the waiting requests as fit all limits. They may be
// admitted until callTimeout from now, so that is when their windows begin.
func (s *step) take(room int64) int64 {
	cost := s.ask.Cost
	if room < cost || s.ask.Take < cost {
		return 0
	}
	n := min(s.ask.Take, room)
	n -= n % cost
	for k := range s.places {
		p := &s.places[k]
		b := &p.h.budgets[p.i]
		until := s.now + callTimeout + b.per
		b.charge(until, n)
		p.h.end = max(p.h.end, until)
		p.avail -= n
	}
	return n
}

// extend leases tokens to a session and prolongs its life. What one session
// gets of a limit is bounded by a twentieth of the quota and by an equal share
// of what is left, but one request's cost may always pass.
func (s *step) extend(id string, known bool) (n int64) {
	if id == "" {
		return 0
	}
	n = s.ask.Want
	ttl := int64(1<<63 - 1)
	for k := range s.places {
		p, l := &s.places[k], &s.ask.Limits[k]
		active := int64(len(p.h.sessions))
		if !known {
			active++
		}
		if p.avail < s.ask.Cost {
			n = 0
		}
		n = min(n, max(s.ask.Cost, l.Quota/20), max(s.ask.Cost, p.avail/active))
		ttl = min(ttl, ratelimit.LeaseTime(l.Per).Microseconds())
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
		p, l := &s.places[k], &s.ask.Limits[k]
		b := &p.h.budgets[p.i]
		st := ratelimit.State{Name: l.Name, Quota: l.Quota, Remaining: max(0, p.avail)}
		if p.avail < l.Quota {
			at, _ := b.freed(p.h.sessions, st.Remaining+1-p.avail)
			st.NextUnit = micros(at - s.now)
		}
		if short && p.avail < s.ask.Cost {
			st.Violated = true
			// A cost above the quota never fits. Such a client may as well come
			// back once per window, in case the quota is raised.
			st.RetryAfter = l.Per
			if at, ok := b.freed(p.h.sessions, s.ask.Cost-p.avail); ok {
				st.RetryAfter = micros(at - s.now)
			}
		}
		g.Limits = append(g.Limits, st)
	}
	for _, h := range s.holders {
		for i := range h.sessions {
			if h.sessions[i].id != id && h.sessions[i].left() > 0 {
				g.OthersHold = true
				return
			}
		}
	}
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
