package ratelimit

import (
	"sync"
	"time"
)

// ManyClocks is a ledger that is kept on several machines.
type ManyClocks interface {
	// Clock says, by a small number, which clock may decide over what is kept in a
	// place (see [Place]): clocks that differ have different numbers. one says that
	// there is no other.
	Clock(place string) (number uint32, one bool)
}

// clockWatches has a watch for each clock of the ledger: that one machine's differs
// from another's is no step of either. They are as many as a ledger has numbers for.
type clockWatches struct {
	clocks ManyClocks // nil: there is one
	mu     sync.Mutex
	all    map[uint32]*clockWatch
}

// note takes in one answer and returns the loss that it is a sign of, of which Step
// is 0 as a rule.
func (c *clockWatches) note(sent, received time.Time, a *Ask, g *Grant) (l Loss) {
	number, one := uint32(0), true
	if c.clocks != nil {
		number, one = c.clocks.Clock(Place(a.Organization, a.Key))
	}
	c.mu.Lock()
	w := c.all[number]
	if w == nil {
		if c.all == nil {
			c.all = make(map[uint32]*clockWatch)
		}
		w = new(clockWatch)
		c.all[number] = w
	}
	c.mu.Unlock()
	if l.Step, l.Since = w.note(sent, received, g.Now); l.Step != 0 && !one {
		l.Organization, l.Key = a.Organization, a.Key
	}
	return l
}

// A clockWatch notices when the ledger's clock is set. The windows of all limits
// move with it, so that a step forward frees what is still in some window.
//
// Each answer says what the ledger's time was at some moment between the sending
// and the receipt, which bounds the offset of the two clocks. The bounds of
// several answers overlap, as wide as drift makes them, unless a clock was set.
// This process has two clocks: the wall clock may be set itself, and the
// monotonic one stands still while the machine sleeps. Only what neither can
// explain is the ledger's doing.
type clockWatch struct {
	mu         sync.Mutex
	origin     time.Time
	mono, wall offsets
}

// offsets bounds the ledger's clock less one of this process's.
type offsets struct {
	low, high time.Duration
	at        time.Duration
	known     bool
}

// offsetSlack is for clocks that are read in whole microseconds.
const offsetSlack = time.Millisecond

// note takes in one answer and returns by how much the ledger's clock was set
// since the former, 0 as a rule, and what it would have shown at that one if it had
// been set before.
func (c *clockWatch) note(sent, received, ledger time.Time) (step time.Duration, since time.Time) {
	if ledger.IsZero() {
		return 0, since
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.origin.IsZero() {
		c.origin = sent
	}
	theirs := ledger.Sub(c.origin.Round(0))
	former := c.mono.at
	byMono := c.mono.note(theirs, sent.Sub(c.origin), received.Sub(c.origin))
	origin := c.origin.Round(0)
	byWall := c.wall.note(theirs, sent.Round(0).Sub(origin), received.Round(0).Sub(origin))
	if byMono == 0 || byWall == 0 {
		return 0, since
	}
	return byMono, ledger.Add(former - received.Sub(c.origin))
}

func (o *offsets) note(theirs, sent, received time.Duration) (step time.Duration) {
	low, high := theirs-received-offsetSlack, theirs-sent+offsetSlack
	drift := time.Duration(2 * Drift * float64(max(0, received-o.at)))
	formerLow, formerHigh := o.low-drift, o.high+drift
	switch {
	case !o.known:
	case low > formerHigh:
		step = low - formerHigh
	case high < formerLow:
		step = high - formerLow
	default:
		low, high = max(low, formerLow), min(high, formerHigh)
	}
	*o = offsets{low: low, high: high, at: received, known: true}
	return step
}
