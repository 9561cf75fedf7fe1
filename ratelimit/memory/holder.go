package memory

import (
	"slices"
	"strings"

	"keygate/ratelimit"
)

// A session is a lease: granted units may be spent by one replica until exp;
// acked of them were reported as spent and are charged as entries. Both are
// cumulative, so that lost and repeated messages change nothing.
type session struct {
	id                  string
	granted, acked, exp int64
}

// left is what may still be spent, or was and is not reported.
func (s *session) left() int64 { return s.granted - s.acked }

// holderKey is the organization (or key) that places a holder, and Limit.Holder.
// Requests in flight are held apart: their sessions are no charge of windows.
type holderKey struct {
	place, holder string
	concurrent    bool
}

func keyOf(a *ratelimit.Ask, l *ratelimit.Limit) holderKey {
	return holderKey{placeOf(a), l.Holder, l.Concurrent}
}

// A holder is a key or an organization with what it spent. Its sessions are
// charged to all of its limits.
type holder struct {
	key  holderKey
	slot int // in shard.order
	// hwm is the latest time a decision was made at: a clock that steps back
	// must not let the charges of one time end at another.
	hwm int64
	// end is when the last charge is over, at the latest; an idle holder may
	// be forgotten from then on.
	end         int64
	rules       int64 // of the newest policy that asked
	budgets     []budget
	sessions    []session    // in the order of exp
	corrections []correction // in the order of until
}

// index finds the budget of a limit, -1 if there is none.
func (h *holder) index(name string) int {
	for i := range h.budgets {
		if h.budgets[i].name == name {
			return i
		}
	}
	return -1
}

// session finds a session, nil if there is none.
func (h *holder) session(id string) *session {
	for i := range h.sessions {
		if h.sessions[i].id == id {
			return &h.sessions[i]
		}
	}
	return nil
}

// advance brings the holder to the present: ended charges go, and a session
// past its expiry is charged as if all of it had been spent at that moment.
func (h *holder) advance(now int64) {
	h.hwm = now
	for i := range h.budgets {
		h.budgets[i].drop(now)
	}
	n := 0
	for ; n < len(h.sessions) && h.sessions[n].exp <= now; n++ {
		h.expire(now, &h.sessions[n])
	}
	if n > 0 {
		h.sessions = slices.Delete(h.sessions, 0, n)
	}
	n = 0
	for n < len(h.corrections) && h.corrections[n].until <= now {
		n++
	}
	if n > 0 {
		h.corrections = slices.Delete(h.corrections, 0, n)
	}
}

// expire charges what a session has left.
func (h *holder) expire(now int64, s *session) {
	left := s.left()
	if left == 0 {
		return
	}
	h.charge(now, s.exp, left)
	for i := range h.budgets {
		if b := &h.budgets[i]; b.calendar() && b.until(s.exp) > now {
			b.close(s, b.until(s.exp))
		}
	}
}

// charge books units of a session that may have been spent until the instant
// last. Leased units were granted against every limit of the holder, and are
// charged to all, asked about or not.
func (h *holder) charge(now, last, count int64) {
	for i := range h.budgets {
		if until := h.budgets[i].until(last); until > now {
			h.budgets[i].charge(until, count)
			h.end = max(h.end, until)
		}
	}
}

// leased is what all sessions may still spend.
func (h *holder) leased() (sum int64) {
	for i := range h.sessions {
		sum += h.sessions[i].left()
	}
	return sum
}

// others counts the sessions but one that hold something.
func (h *holder) others(id string) (n int64) {
	for i := range h.sessions {
		if s := &h.sessions[i]; s.id != id && s.left() > 0 {
			n++
		}
	}
	return n
}

// report charges what a session says to have spent. A report that arrives twice
// or late has nothing new and changes nothing. granted never falls below what
// was spent: the difference is a charge, and a negative one would be a gift.
func (h *holder) report(now int64, s *session, spent int64) {
	d := spent - s.acked
	if d <= 0 {
		return
	}
	h.charge(now, now, d)
	s.acked += d
	s.granted = max(s.granted, s.acked)
}

// grant adds n units to a session, opening it if need be, and lets it live for
// ttl from now at least. It returns the session's expiry.
func (h *holder) grant(now int64, id string, n, ttl int64) (exp int64) {
	i := slices.IndexFunc(h.sessions, func(s session) bool { return s.id == id })
	var s session
	if i >= 0 {
		s = h.sessions[i]
		h.sessions = slices.Delete(h.sessions, i, i+1)
	} else {
		s.id = strings.Clone(id) // it outlives the message it came in
	}
	s.granted += n
	s.exp = max(s.exp, now+ttl)
	at := len(h.sessions)
	for at > 0 && h.sessions[at-1].exp > s.exp {
		at--
	}
	h.sessions = slices.Insert(h.sessions, at, s)
	for i := range h.budgets {
		h.end = max(h.end, h.budgets[i].until(s.exp))
	}
	return s.exp
}

// release ends a session whose final spending was reported: the rest returns.
func (h *holder) release(id string) {
	h.sessions = slices.DeleteFunc(h.sessions, func(s session) bool { return s.id == id })
}

// reopen takes in the last word of a session that ended without it.
func (h *holder) reopen(id string, spent int64) {
	for i := range h.budgets {
		h.budgets[i].reopen(id, spent)
	}
}

// unused says that nothing depends on the terms that a budget has.
func (h *holder) unused(i int, now int64) bool {
	b := &h.budgets[i]
	return len(h.sessions) == 0 && len(b.entries) == 0 || b.calendar() && b.end <= now
}

// empty says that nothing is charged, nor need be remembered: a correction that
// returned all there was might come again.
func (h *holder) empty() bool {
	if len(h.sessions) > 0 || len(h.corrections) > 0 {
		return false
	}
	for i := range h.budgets {
		if len(h.budgets[i].entries) > 0 {
			return false
		}
	}
	return true
}

// add returns the index of a limit's budget, whose term it sets, and makes one
// where it is missing.
func (h *holder) add(now int64, name string, t term) int {
	i := h.index(name)
	if i < 0 {
		if h.budgets == nil {
			h.budgets = make([]budget, 0, 1)
		}
		h.budgets = append(h.budgets, budget{name: strings.Clone(name), term: t})
		i = len(h.budgets) - 1
	}
	b := &h.budgets[i]
	if b.per != t.per || b.end != t.end {
		b.hold(now, t)
		b.drop(now)
	}
	b.next, b.wall = t.next, t.wall
	// Also a new limit is charged for sessions that were opened before it came.
	for i := range h.sessions {
		h.end = max(h.end, b.until(h.sessions[i].exp))
	}
	if n := len(b.entries); n > 0 {
		h.end = max(h.end, b.entries[n-1].until)
	}
	return i
}

// copy is a holder to look at and throw away; of none, an empty one.
func (h *holder) copy(key holderKey) *holder {
	if h == nil {
		return &holder{key: key}
	}
	c := *h
	c.budgets = slices.Clone(h.budgets)
	for i := range c.budgets {
		c.budgets[i].entries = slices.Clone(c.budgets[i].entries)
		c.budgets[i].closed = slices.Clone(c.budgets[i].closed)
	}
	c.sessions = slices.Clone(h.sessions)
	c.corrections = slices.Clone(h.corrections)
	return &c
}

// tidy forgets limits that nothing is charged to and that are not asked about.
// A session's units are charged to the limits that are there when it ends, so
// that none may go before.
func (h *holder) tidy(a *ratelimit.Ask) {
	if len(h.sessions) > 0 {
		return
	}
	h.budgets = slices.DeleteFunc(h.budgets, func(b budget) bool {
		return len(b.entries) == 0 && !slices.ContainsFunc(a.Limits, func(l ratelimit.Limit) bool {
			return l.Holder == h.key.holder && l.Name == b.name
		})
	})
}
