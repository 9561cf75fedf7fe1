package ratelimit

import (
	"math"
	"sync/atomic"
	"time"
)

// closed is the bit of a lease's word that ends it. The rest of the word is what
// was spent: whoever closes the word learns its final value in the same step.
const closed = 1 << 63

// A lease is one session at the ledger: units that this replica may spend, until
// a deadline, without asking. Once its word is closed it stays so, and the
// session's name is never used again.
type lease struct {
	session string
	terms   atomic.Pointer[terms] // the same limits for all its life
	word    atomic.Uint64
	view    atomic.Pointer[view]
}

// A view is what the ledger last said of a lease. It never changes; the next
// answer brings another.
type view struct {
	granted int64 // may be spent, in total; the largest Grant.Leased received
	// renew is the spending at which it is time to ask for more.
	renew int64
	// sent is when the ask was sent whose answer this is. Nothing may be spent
	// once span has passed since then.
	sent time.Time
	span time.Duration
	// states are the limits at that time, beside the lease: what it holds is no
	// longer part of what they have left. None of them is violated: these are for
	// requests that pass.
	states []State
	now    time.Time // the ledger's
}

const never = math.MaxInt64

// live reports whether the lease may still be spent.
func (v *view) live(now time.Time) bool { return elapsed(v.sent, now) < v.span }

// outcome is what became of an attempt to spend.
type outcome uint8

const (
	unspent outcome = iota // there is not enough, or the lease is over
	spent
	burnt // spent too late to be used
)

// spend is the hot path: no lock, no allocation, one compare-and-swap, which is
// the instant of admission. Only after it the clock is read: a process that was
// stopped in between would otherwise admit on a lease that is long over. What
// was spent then is burnt, since nobody can take it back.
//
// total is what was spent of the lease by then, age how long ago v was asked for.
func (le *lease) spend(cost int64, now func() time.Time) (v *view, total int64, age time.Duration, o outcome) {
	for {
		w := le.word.Load()
		if v = le.view.Load(); w&closed != 0 || int64(w)+cost > v.granted {
			return v, int64(w &^ closed), 0, unspent
		}
		total = int64(w) + cost
		if !le.word.CompareAndSwap(w, uint64(total)) {
			continue
		}
		at := now()
		v = le.view.Load()
		if age = elapsed(v.sent, at); age >= v.span {
			return v, total, age, burnt
		}
		return v, total, age, spent
	}
}

// spent is what was spent so far, burnt units included.
func (le *lease) spent() int64 { return int64(le.word.Load() &^ closed) }

// close ends the lease and returns what was spent of it, which is final.
func (le *lease) close() int64 { return int64(le.word.Or(closed) &^ closed) }

// show puts into dst the states of the limits after total was spent of the lease, as
// this replica knows them so long after it asked: what the limits had left when the
// ledger last answered, and what was left of the lease. Others may have spent
// since then, by a third of the lease time or so; what became free meanwhile
// does not count. In front of a ledger of its own a replica so never claims more
// than there is.
func (v *view) show(dst []State, total int64, age time.Duration) []State {
	dst = append(dst[:0], v.states...)
	for i := range dst {
		s := &dst[i]
		s.Remaining += v.granted - total
		s.NextUnit = max(0, s.NextUnit-age)
	}
	return dst
}
