package ratelimit

import (
	"math"
	"slices"
	"time"
)

// A round is one ask of a holder on its way.
type round struct {
	ask    Ask
	terms  *terms
	lease  *lease // the one that is reported; nil: one to be opened, or none
	riders []*waiter
	sent   time.Time
	// before and told are when the lease was last asked about with success, and
	// what was reported then.
	before time.Time
	told   int64
	// retired says that the lease has ended since.
	retired bool
}

// compose makes the ask of the next round; nil if there is nothing to ask.
func (h *holder) compose(c *client) *round {
	h.queued = false
	if h.round != nil {
		return nil // whoever waits is asked for when it is back
	}
	riders := h.board()
	r := &round{terms: h.terms, riders: riders, sent: c.now()}
	cost := int64(1)
	if len(riders) > 0 {
		r.terms, cost = riders[0].terms, riders[0].cost
	}
	r.ask = r.terms.ask(cost)
	r.ask.Take = cost * int64(len(riders))
	if r.terms == h.terms && (len(riders) == 0 || !riders[0].exact) {
		h.addLease(c, r)
	}
	if r.ask.Take == 0 && r.ask.Session == "" {
		return nil
	}
	if len(riders) == 0 {
		c.stats.Renewals.Add(1)
	}
	h.round = r
	return r
}

// addLease adds to an ask what is to be said of the lease, and what is wanted.
func (h *holder) addLease(c *client, r *round) {
	report := h.report
	h.report = false
	le := h.lease.Load()
	if le != nil && (!le.view.Load().live(r.sent) || le.spent() > MaxQuota/2) {
		h.retire(c, r.sent) // past its deadline a session is never taken up again
		le = nil
	}
	h.sample(c, r.sent)
	want := h.demand.want(r.terms.most, h.crowd)
	h.crowd = false
	if c.closing.Load() {
		want = 0
	}
	if le == nil {
		if want > 0 {
			r.ask.Session, r.ask.NextSession, r.ask.Want = h.successor(c, r.sent), c.names.next(), want
		}
		return
	}
	seen, total := le.view.Load().granted, le.spent()
	more := max(0, want-(seen-total))
	if more == 0 && !report && len(r.riders) == 0 {
		return
	}
	r.lease = le
	r.ask.Session, r.ask.NextSession = le.session, h.successor(c, r.sent)
	r.ask.Spent, r.ask.Seen, r.ask.Want = total, seen, more
	r.before, r.told = h.asked, h.told
	h.asked, h.told = r.sent, total
}

// successor is the session that the next lease opens under. An answer that was
// lost may have opened it: asked again under the same name, the ledger says what
// it holds. It is given up before it can have ended unheard of.
func (h *holder) successor(c *client, now time.Time) string {
	if h.opening == "" || elapsed(h.opened, now) >= Less2Drift(h.terms.tau) {
		h.opening, h.opened = c.names.next(), now
	}
	return h.opening
}

// receive takes in the ledger's answer to a round. One that is not the round
// under way was given up: it may speak of a session that has ended since.
func (h *holder) receive(c *client, r *round, g *Grant) {
	if h.round != r {
		return
	}
	h.round = nil
	h.alone.Store(false)
	now := c.now()
	switch g.Status {
	case Denied, Granted, Expired:
		h.settle(c, r, g, now)
		h.remember(c, r, g, now)
		h.serve(c, r, g, now)
	case Stopped:
		h.stop(c, r, g, now)
	case Stale:
		c.stats.Stale.Add(1)
		h.newest = max(h.newest, g.Version)
		h.refuse(c, r, ErrStale)
	case Lost:
		h.hold(c, r, g, now)
	}
}

// fail takes in that there was no answer. What the ledger made of the ask stays
// unknown; the next one is told everything anew.
func (h *holder) fail(c *client, r *round, err error) {
	if h.round != r {
		return
	}
	h.round = nil
	h.alone.Store(true)
	if r.lease != nil {
		h.asked, h.told = r.before, r.told // so that it is tried again before the lease ends
	}
	h.refuse(c, r, err)
}

// refuse answers all riders with an error.
func (h *holder) refuse(c *client, r *round, err error) {
	if r.retired {
		h.giveBack(c, r.terms, r.lease.session, r.lease.spent(), r.lease.view.Load().granted)
	}
	for _, w := range r.riders {
		if !w.gone {
			w.answer(Decision{}, err)
		}
	}
}

// stop ends the lease of a key that has changed, and gives it back.
func (h *holder) stop(c *client, r *round, g *Grant, now time.Time) {
	h.stopped = max(h.stopped, g.Version)
	h.retire(c, now)
	h.refuse(c, r, &StoppedError{Version: g.Version})
}

// hold answers while the ledger waits after a possible loss. A lease that it still
// knows is charged, and may be spent; of one that it does not know it says so.
func (h *holder) hold(c *client, r *round, g *Grant, now time.Time) {
	c.stats.Held.Add(1)
	h.settle(c, r, g, now)
	h.keep(deny(r.terms, r.ask.Cost, g, r.sent, now), now)
	r.retired = false // settle has seen to that
	h.refuse(c, r, &LostError{RetryAfter: retryAfter(g.Limits)})
}

// settle takes in what the answer says of the lease. What a ledger cannot have meant,
// more than a quota or for longer than a lease lives, is cut off: a reply that was made
// or damaged on the way opens no limit.
func (h *holder) settle(c *client, r *round, g *Grant, now time.Time) {
	most := r.terms.least
	if g.Status != Expired {
		most = max(r.ask.Seen, r.ask.Spent+most)
	}
	g.Leased, g.TTL = min(g.Leased, most), min(g.TTL, r.terms.tau)
	switch {
	case r.ask.Session == "":
	case g.Status == Expired:
		if r.lease != nil && r.lease == h.lease.Load() {
			h.forsake(c, now)
			if v := r.lease.view.Load(); v.live(now) {
				c.lost(Loss{Organization: r.terms.organization, Key: r.terms.key, Since: v.now, Forgotten: r.lease.spent()})
			}
		}
		h.open(c, r, r.ask.NextSession, g, now)
	case r.retired:
		h.giveBack(c, r.terms, r.ask.Session, r.lease.spent(), max(r.ask.Seen, g.Leased))
	case r.lease == nil:
		h.open(c, r, r.ask.Session, g, now)
	case r.lease == h.lease.Load():
		r.lease.view.Store(extended(r, g))
	}
}

// open begins a lease under a name that the ledger has given units to. Where
// they are of no use any more they go back.
func (h *holder) open(c *client, r *round, session string, g *Grant, now time.Time) {
	if g.Leased == 0 {
		return
	}
	h.opening = ""
	v := &view{granted: g.Leased, sent: r.sent, span: Less2Drift(g.TTL), states: passed(slices.Clone(g.Limits)), now: g.Now}
	if h.lease.Load() != nil || c.closing.Load() || !v.live(now) || !h.terms.same(&r.ask) {
		h.giveBack(c, r.terms, session, 0, g.Leased)
		return
	}
	v.renew = renewAt(0, v.granted, r.ask.Want)
	le := &lease{session: session}
	le.terms.Store(h.terms)
	le.view.Store(v)
	h.asked, h.told, h.demand.seen = r.sent, 0, 0
	h.lease.Store(le)
	c.rouse(h, h.terms.tau/3)
}

// extended is the view of a lease after an answer. The later deadline holds:
// either was given by the ledger for this session. The former is counted anew
// from this ask; two spans added are never less than the one over both.
func extended(r *round, g *Grant) *view {
	former := r.lease.view.Load()
	return &view{
		granted: max(former.granted, g.Leased),
		sent:    r.sent,
		span:    max(former.span-elapsed(former.sent, r.sent), Less2Drift(g.TTL)),
		states:  passed(slices.Clone(g.Limits)),
		now:     g.Now,
		renew:   renewAt(r.lease.spent(), max(former.granted, g.Leased), r.ask.Want),
	}
}

// renewAt is the spending at which a lease is half used up. Where the ledger gave
// less than was wanted there is no more, and no use in asking before the lease is
// used up: it would cost a trip and break what is spent into smaller charges,
// which come free in smaller pieces.
func renewAt(total, granted, wanted int64) int64 {
	if granted <= total || granted-total < wanted {
		return math.MaxInt64
	}
	return total + (granted-total+1)/2
}

// remember keeps what is refused from now on: a limit that has less left than
// one request of this cost refuses the next one too. Where the answer gave
// something, what was remembered before says too little: a limit that had enough
// for a larger request may have no more. That a session is unknown says nothing of
// why there is nothing: a ledger that waits after a loss would seem to deny.
func (h *holder) remember(c *client, r *round, g *Grant, now time.Time) {
	if g.Taken > 0 || g.Leased > r.ask.Seen {
		h.denied.Store(nil)
	}
	if g.Status == Expired {
		return
	}
	for i := range g.Limits {
		if g.Limits[i].Violated {
			h.keep(deny(r.terms, r.ask.Cost, g, r.sent, now), now)
			return
		}
	}
}

func (h *holder) keep(d denial, now time.Time) {
	if d.over(now) {
		return
	}
	var held denials
	if p := h.denied.Load(); p != nil {
		held = *p
	}
	next := held.with(d, now)
	h.denied.Store(&next)
}

// serve answers the riders, first come first served, as far as what was taken
// goes and if the answer came in time: the ledger may forget a request that is
// admitted later while it is still in some window. What it booked stays booked:
// nobody else can know that it was not used.
func (h *holder) serve(c *client, r *round, g *Grant, now time.Time) {
	cost, taken := r.ask.Cost, g.Taken
	inTime := elapsed(r.sent, now) < Less2Drift(g.Admit)
	var again []*waiter
	for _, w := range r.riders {
		booked := taken >= cost
		if booked {
			taken -= cost
		}
		switch {
		case w.gone || booked && !inTime:
			if booked {
				c.stats.Burnt.Add(uint64(cost))
			}
			if w.gone {
				continue
			}
			if w.tries++; w.tries < attempts {
				again = append(again, w)
			} else {
				w.answer(Decision{}, ErrLate)
			}
		case booked:
			c.stats.Taken.Add(uint64(cost))
			w.answer(Decision{Allowed: true, Limits: passed(h.beside(w.states[:0], g, taken, now)), At: g.Now}, nil)
		default:
			if h.fits(c, w, r, g, now) {
				again = append(again, w)
			}
		}
	}
	if len(again) > 0 {
		h.waiting = append(again, h.waiting...)
	}
}

// fits answers a rider for whom the ledger had nothing. It may be that the lease
// does: units that came meanwhile, or a rest that is too small for this request
// and that the ledger could do more with. Then it reports true: once that is
// given back, the rider is to ask again.
func (h *holder) fits(c *client, w *waiter, r *round, g *Grant, now time.Time) bool {
	le := h.lease.Load()
	var rest int64
	if le != nil && w.exact {
		if v := le.view.Load(); v.live(now) {
			rest = v.granted - le.spent()
		}
	} else if le != nil && le.terms.Load() == w.terms {
		if v, total, age, o := le.spend(w.cost, c.now); o == spent {
			w.answer(Decision{Allowed: true, Limits: v.show(w.states, total, age), At: v.now}, nil)
			return false
		} else if o == burnt {
			c.stats.Burnt.Add(uint64(w.cost))
		} else if v.live(now) {
			rest = v.granted - total
		}
	}
	w.tries++
	if g.Status == Expired && w.tries < attempts {
		return true // asked without the session, the ledger says why
	}
	if rest > 0 && w.tries < attempts && enough(g.Limits, w.cost-rest) {
		h.retire(c, now)
		return true
	}
	states := h.beside(w.states[:0], g, 0, now)
	w.answer(Decision{RetryAfter: retryAfter(states), Limits: states}, nil)
	return false
}

// passed are the states of a request that was admitted, whatever they say to the
// next one.
func passed(states []State) []State {
	for i := range states {
		states[i].Violated, states[i].RetryAfter = false, 0
	}
	return states
}

// enough reports whether every limit has as much left.
func enough(states []State, units int64) bool {
	for i := range states {
		if states[i].Remaining < units {
			return false
		}
	}
	return true
}

// beside appends the states of an answer with what this replica holds beside
// them: the units of the riders after this one, and the lease.
func (h *holder) beside(dst []State, g *Grant, units int64, now time.Time) []State {
	if le := h.lease.Load(); le != nil {
		if v := le.view.Load(); v.live(now) {
			units += max(0, v.granted-le.spent())
		}
	}
	for i := range g.Limits {
		s := g.Limits[i]
		s.Remaining += units
		dst = append(dst, s)
	}
	return dst
}
