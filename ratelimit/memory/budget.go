package memory

import "slices"

// maxEntries bounds what one limit remembers. With more, neighbours are merged;
// the state stays some 1 KiB however fast the limit is used.
const maxEntries = 64

// maxClosed bounds the ended sessions of a calendar quota that a late report may
// still correct.
const maxClosed = 32

// An entry is a charge that ends: count units are held until then. Times are
// microseconds of the ledger's clock.
type entry struct {
	until, count int64
}

// A term is how long a limit holds what is charged: for a window of per, or to
// the end of the calendar period that ends at end, and the one after it at next;
// not at all if it has neither, which is what requests in flight have.
type term struct {
	per, end, next int64
	wall           int64 // end by the wall clock, see Ledger.time
}

func (t *term) calendar() bool { return t.end > 0 }

// until is when the charge of units ends that were spent at last, or may have been.
func (t *term) until(last int64) int64 {
	switch {
	case !t.calendar():
		return last + t.per
	case last <= t.end:
		return t.end
	}
	return t.next
}

// A closed session is one that ended without a last word: rest units were
// charged as if they had been spent.
type closed struct {
	id                 string
	acked, rest, until int64
}

// A budget is what was spent of one limit. The quota comes with each ask, so
// that a raised or lowered limit acts at once; it is kept for those who go by
// an older policy.
type budget struct {
	name string
	term
	quota   int64
	spent   int64 // the sum of the entries
	durable int64 // of a calendar quota: so much is claimed on disk for this period
	entries []entry
	closed  []closed // of a calendar quota only
}

// turn forgets a period that is over by the wall clock, though not by the ledger's.
func (b *budget) turn(date int64) {
	if b.calendar() && b.wall <= date {
		b.drop(b.end)
		b.durable = 0
	}
}

// drop forgets the charges that have ended.
func (b *budget) drop(now int64) {
	n := 0
	for n < len(b.entries) && b.entries[n].until <= now {
		b.spent -= b.entries[n].count
		n++
	}
	if n > 0 {
		b.entries = slices.Delete(b.entries, 0, n)
	}
	if len(b.closed) > 0 {
		b.closed = slices.DeleteFunc(b.closed, func(c closed) bool { return c.until <= now })
	}
}

// charge holds count units until the given time, which must lie ahead.
func (b *budget) charge(until, count int64) {
	i := len(b.entries)
	for i > 0 && b.entries[i-1].until > until {
		i--
	}
	b.spent += count
	if i > 0 && b.entries[i-1].until == until {
		b.entries[i-1].count += count
		return
	}
	b.grow()
	b.entries = slices.Insert(b.entries, i, entry{until, count})
	if len(b.entries) > maxEntries {
		b.merge()
	}
}

// grow keeps the array of an idle holder small and never makes it larger than
// the one entry beyond maxEntries that merge takes away again.
func (b *budget) grow() {
	if n := len(b.entries); n == cap(b.entries) {
		b.entries = append(make([]entry, 0, min(max(2, 2*n), maxEntries+1)), b.entries...)
	}
}

// merge moves the charge whose delay costs least (units × time) into the next
// later one: never into an earlier one, which would end a charge too soon. The
// products are compared as floating point because they exceed 63 bits, and
// because a Redis script has no other numbers and must choose the same pair.
func (b *budget) merge() {
	e := b.entries
	best, least := 0, float64(e[0].count)*float64(e[1].until-e[0].until)
	for i := 1; i < len(e)-1; i++ {
		if c := float64(e[i].count) * float64(e[i+1].until-e[i].until); c < least {
			best, least = i, c
		}
	}
	e[best+1].count += e[best].count
	b.entries = slices.Delete(e, best, best+1)
}

// refund takes back up to n units of charges that were to end at from or later,
// the earliest first, but none that ends after the time last. Units that were
// charged until some time at or after from stand, after any number of merges, no
// earlier than the first charge that is found here: taking that one instead
// leaves at every moment as much charged as must be (docs/limits.md).
func (b *budget) refund(from, last, n int64) {
	for i := 0; i < len(b.entries) && b.entries[i].until <= last && n > 0; i++ {
		if e := &b.entries[i]; e.until >= from {
			back := min(n, e.count)
			e.count -= back
			b.spent -= back
			n -= back
		}
	}
	b.entries = slices.DeleteFunc(b.entries, func(e entry) bool { return e.count == 0 })
}

// hold changes the term. An entry of a window ends one window after the last
// instant at which its units may have been admitted, so that a longer window
// moves every end outward, and the new promise covers all that is still charged;
// what the shorter window has already let go was never promised to it. A shorter
// window moves the ends inward by the same reasoning, and nothing is ever reset.
// Of charges in a calendar period nobody knows when they were made: they count
// as made now, or in the period that is now.
func (b *budget) hold(now int64, t term) {
	move := func(until int64) int64 {
		switch {
		case b.per > 0 && t.per > 0:
			return until + t.per - b.per
		case t.per > 0:
			return now + t.per
		case b.per > 0 || b.end <= now || until <= b.end:
			return t.end
		}
		return t.next
	}
	for i := range b.entries {
		b.entries[i].until = move(b.entries[i].until)
	}
	for i := len(b.entries) - 1; i > 0; i-- {
		if b.entries[i-1].until == b.entries[i].until {
			b.entries[i-1].count += b.entries[i].count
			b.entries = slices.Delete(b.entries, i, i+1)
		}
	}
	for i := range b.closed {
		b.closed[i].until = move(b.closed[i].until)
	}
	if !t.calendar() {
		b.closed = nil
	}
	b.term, b.durable = t, 0
}

// close remembers a session that was charged to the last unit, for the case that
// its last word comes late.
func (b *budget) close(s *session, until int64) {
	if len(b.closed) == maxClosed {
		b.closed = slices.Delete(b.closed, 0, 1)
	}
	b.closed = append(b.closed, closed{s.id, s.acked, s.left(), until})
}

// reopen takes in the last word of a session that ended without it: what it did
// not spend is returned. It happens once.
func (b *budget) reopen(id string, spent int64) (found bool) {
	i := slices.IndexFunc(b.closed, func(c closed) bool { return c.id == id })
	if i < 0 {
		return false
	}
	c := b.closed[i]
	b.closed = slices.Delete(b.closed, i, i+1)
	b.refund(c.until, 1<<62, c.rest-min(c.rest, max(0, spent-c.acked)))
	return true
}

// freed is when need more units are free than now, if nothing else is spent:
// a walk over the charges in the order of their end. Sessions are charged until
// a window after their expiry, as if they were spent to the last unit at the
// last moment. It reports false where not even the end of all charges frees enough.
func (b *budget) freed(sessions []session, need int64) (at int64, ok bool) {
	i, j := 0, 0
	for need > 0 {
		switch {
		case i < len(b.entries) && (j == len(sessions) || b.entries[i].until <= b.until(sessions[j].exp)):
			at = b.entries[i].until
			need -= b.entries[i].count
			i++
		case j < len(sessions):
			if left := sessions[j].left(); left > 0 {
				at = b.until(sessions[j].exp)
				need -= left
			}
			j++
		default:
			return 0, false
		}
	}
	return at, true
}
