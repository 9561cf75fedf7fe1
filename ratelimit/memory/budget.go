package memory

import "slices"

// maxEntries bounds what one limit remembers. With more, neighbours are merged;
// the state stays some 1 KiB however fast the limit is used.
const maxEntries = 64

// An entry is a charge that ends: count units are held until then. Times are
// microseconds of the ledger's clock.
type entry struct {
	until, count int64
}

// A budget is what was spent of one limit. The quota is no part of it: it comes
// with each ask, so that a raised or lowered limit acts at once.
type budget struct {
	name    string
	per     int64 // the window that the entries are held for
	spent   int64 // the sum of the entries
	entries []entry
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

// hold changes the window. An entry ends one window after the last instant at
// which its units may have been admitted, so that a longer window moves every
// end outward, and the new promise covers all that is still charged; what the
// shorter window has already let go was never promised to it. A shorter window
// moves the ends inward by the same reasoning, and nothing is ever reset.
func (b *budget) hold(per int64) {
	for i := range b.entries {
		b.entries[i].until += per - b.per
	}
	b.per = per
}

// freed is when need more units are free than now, if nothing else is spent:
// a walk over the charges in the order of their end. Sessions are charged until
// a window after their expiry, as if they were spent to the last unit at the
// last moment. It reports false where not even the end of all charges frees enough.
func (b *budget) freed(sessions []session, need int64) (at int64, ok bool) {
	i, j := 0, 0
	for need > 0 {
		switch {
		case i < len(b.entries) && (j == len(sessions) || b.entries[i].until <= sessions[j].exp+b.per):
			at = b.entries[i].until
			need -= b.entries[i].count
			i++
		case j < len(sessions):
			if left := sessions[j].left(); left > 0 {
				at = sessions[j].exp + b.per
				need -= left
			}
			j++
		default:
			return 0, false
		}
	}
	return at, true
}
