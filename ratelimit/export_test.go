package ratelimit

import "time"

// A Replica is what the [Limiter] runs, without what runs it: no goroutine, no
// channel that is waited for, no call. Tests carry its asks through networks of
// their own.
type Replica struct {
	client
	holders map[string]*holder
	// Returns are leases on their way back.
	Returns []Ask
	// Rouse is when the next look is due, if something asked for it.
	Rouse time.Duration
	// Alarms are the signs of loss.
	Alarms []Loss
}

// A Round is one ask on its way.
type Round = round

// A Waiter is a request that waits.
type Waiter = waiter

// NewReplica returns one with a clock of its own and a name that no other has.
func NewReplica(name string, now func() time.Time) *Replica {
	r := &Replica{holders: make(map[string]*holder)}
	r.now, r.names.prefix = now, name+"."
	r.release = func(a Ask) { r.Returns = append(r.Returns, a) }
	r.rouse = func(_ *holder, after time.Duration) { r.Rouse = min(r.Rouse, after) }
	r.Rouse = never
	r.alarm = func(l Loss) { r.Alarms = append(r.Alarms, l) }
	return r
}

func (r *Replica) holder(key string) *holder {
	h := r.holders[key]
	if h == nil {
		h = newHolder(key)
		r.holders[key] = h
	}
	return h
}

// Request decides, or says that the request waits. renew: a round is due.
func (r *Replica) Request(a *Ask) (d Decision, w *Waiter, renew bool, err error) {
	h, cost := r.holder(a.Key), max(1, a.Cost)
	if renew, ok := h.spend(&r.client, a, cost, nil, &d); ok {
		return d, nil, renew, nil
	}
	if d, err, ok := h.recall(&r.client, a, cost, nil); ok {
		return d, nil, false, err
	}
	w = &waiter{done: make(chan struct{}, 1)}
	if h.join(&r.client, a, cost, w) {
		return d, w, true, nil
	}
	return w.decision, nil, false, w.err
}

// Answer is what a waiter was told, if it was.
func Answer(w *Waiter) (d Decision, err error, ok bool) {
	return w.decision, w.err, len(w.done) > 0
}

// Abandon has a request's client go away.
func (r *Replica) Abandon(key string, w *Waiter) bool { return r.holder(key).abandon(w) }

// Compose makes the next round of a key.
func (r *Replica) Compose(key string) *Round { return r.holder(key).compose(&r.client) }

// AskOf is what a round asks.
func AskOf(r *Round) Ask { return r.ask }

// Busy reports whether a round of the key is under way.
func (r *Replica) Busy(key string) bool { return r.holder(key).round != nil }

// Receive hands over an answer; it reports whether it was taken in, and whether
// somebody waits.
func (r *Replica) Receive(key string, rd *Round, g *Grant) (accepted, again bool) {
	h := r.holder(key)
	accepted = h.round == rd
	h.receive(&r.client, rd, g)
	return accepted, len(h.waiting) > 0
}

// Fail hands over that there was none; it reports whether somebody waits.
func (r *Replica) Fail(key string, rd *Round, err error) (again bool) {
	h := r.holder(key)
	h.fail(&r.client, rd, err)
	return len(h.waiting) > 0
}

// Tick looks after the key's lease.
func (r *Replica) Tick(key string) (send bool, after time.Duration) {
	h := r.holder(key)
	if h.terms == nil {
		return false, maxLease
	}
	send, after, _ = h.tick(&r.client)
	return send, after
}

// Lease is what the replica holds for a key.
func (r *Replica) Lease(key string) (session string, granted, total int64, live bool) {
	le := r.holder(key).lease.Load()
	if le == nil {
		return "", 0, 0, false
	}
	v := le.view.Load()
	return le.session, v.granted, le.spent(), v.live(r.now())
}

// Holds is Lease without a look at the clock.
func (r *Replica) Holds(key string) (session string, granted, total int64) {
	le := r.holder(key).lease.Load()
	if le == nil {
		return "", 0, 0
	}
	return le.session, le.view.Load().granted, le.spent()
}

// SetClock replaces the replica's clock.
func (r *Replica) SetClock(now func() time.Time) { r.now = now }

// Spent is what was ever spent of leases.
func (r *Replica) Spent() int64 {
	n := int64(r.stats.Leased.Load())
	for _, h := range r.holders {
		if le := h.lease.Load(); le != nil {
			n += le.spent() - h.demand.seen
		}
	}
	return n
}

// Counts are the replica's counters.
func (r *Replica) Counts() *Stats { return &r.stats }

// Elapsed is the time between two readings of both clocks.
var Elapsed = elapsed

// Look does what Run does when something is due.
func (l *Limiter) Look() { l.look() }

// Close gives back all leases.
func (l *Limiter) Close() { l.close() }

// A ClockWatch notices when the ledger's clock is set.
type ClockWatch struct{ clockWatch }

// Note takes in one answer.
func (c *ClockWatch) Note(sent, received, ledger time.Time) time.Duration {
	step, _ := c.note(sent, received, ledger)
	return step
}
