package ratelimit

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Requests in flight are leased like units of a window, except that they come back:
// a replica holds so many places of a key, and what has begun in one of them may go
// on until the lease's end without word from the ledger. The lease is prolonged
// long before; where it cannot be, what is in flight is cut off at its end, so that
// never more fly than the limit, whatever became of this replica's messages.
const (
	// flightTick is how often places are looked after: unused ones go back to the
	// others, and leases are prolonged after flightRenew of their life.
	flightTick  = 100 * time.Millisecond
	flightRenew = ConcurrentLease / 4
	// flightEarly is how long before the end of its lease a request is cut off: the
	// next tick may be late, and a call that is under way takes CallTimeout.
	flightEarly = 2 * flightTick
	// flightRound bounds the calls of one tick. It may be longer than flightEarly:
	// what is to be cut off needs no call.
	flightRound = time.Second
	// flightWait is what a client that is refused is told to wait: when one of the
	// others ends, nobody knows.
	flightWait = time.Second
)

// InFlight bounds the requests of a key that are in flight, over all replicas.
// Safe for concurrent use.
type InFlight struct {
	ledger  Ledger
	timeout time.Duration
	now     func() time.Time
	name    string // of this process; part of the names of its sessions
	names   atomic.Uint64

	mu      sync.Mutex
	holders map[string]*flights // by key

	cut, degraded atomic.Uint64
}

// NewInFlight returns one in front of a ledger, whose calls the time-out bounds (0:
// none). No other process may ever have the same name.
func NewInFlight(ledger Ledger, timeout time.Duration, process string, now func() time.Time) *InFlight {
	return &InFlight{ledger: ledger, timeout: timeout, now: now, name: process, holders: make(map[string]*flights)}
}

// flights are the places of one key.
type flights struct {
	asking chan struct{} // of 1: full while the ledger is asked; before mu

	mu             sync.Mutex
	ask            Ask // the last one
	session        string
	granted, spent int64         // cumulative; what is between them are places
	sent           time.Time     // when the call was sent that prolonged the lease last,
	span           time.Duration // and for how long from then
	flying         map[*Flight]struct{}
	local          int64 // of these, how many no ledger knows of
	waiting        int64 // requests that need a place
	calls          int   // begun so far
	last           Grant // of the last call, if err is nil
	err            error
	gone           bool // taken out of the table
}

// places is how many are held of the ledger, used or not.
func (h *flights) places() int64 { return h.granted - h.spent }

// ending says that what stands in a place must be gone before anybody looks again.
func (h *flights) ending(now time.Time) bool { return h.span-elapsed(h.sent, now) <= flightEarly }

// leased is how many of those in flight stand in a place.
func (h *flights) leased() int64 { return int64(len(h.flying)) - h.local }

// A Flight is one request in flight.
type Flight struct {
	all   *InFlight
	of    *flights
	local bool
	cut   func()
}

// Begin finds a place for a request of the key that the ask is about, whose only
// limit is Concurrent. The decision says whether there is one; the flight, which
// must be ended, is nil where there is none. cut is called, once at most, when the
// place is lost while the request is still in flight: its work must stop.
func (f *InFlight) Begin(ctx context.Context, ask *Ask, cut func()) (*Flight, Decision, error) {
	h := f.holder(ask)
	defer h.mu.Unlock()
	h.ask = *ask
	if fl := f.sit(h, cut); fl != nil {
		return fl, Decision{Allowed: true}, nil
	}
	h.waiting++
	calls := h.calls
	h.mu.Unlock()
	select {
	case h.asking <- struct{}{}:
		h.mu.Lock()
		defer func() { h.waiting--; <-h.asking }()
	case <-ctx.Done():
		h.mu.Lock()
		h.waiting--
		return nil, Decision{}, fmt.Errorf("requests in flight of key %s: %w", ask.Key, ctx.Err())
	}
	// One call asks for all who wait. Who waited for it need not ask again if there
	// was nothing.
	if fl := f.sit(h, cut); fl != nil {
		return fl, Decision{Allowed: true}, nil
	}
	if calls == h.calls || h.err == nil && h.last.Status == Granted {
		f.call(ctx, h, h.leased()+h.waiting-h.places())
		if fl := f.sit(h, cut); fl != nil {
			return fl, Decision{Allowed: true}, nil
		}
	}
	switch g, err := h.last, h.err; {
	case err == nil && g.Status == Stopped:
		return nil, Decision{}, fmt.Errorf("requests in flight of key %s: %w", ask.Key, &StoppedError{Version: g.Version})
	case err == nil && (g.Status == Denied || g.Status == Expired || g.Status == Granted):
		return nil, full(ask), nil
	case ask.Open && ctx.Err() == nil:
		f.degraded.Add(1)
		if int64(len(h.flying)) >= ask.Limits[0].Quota {
			return nil, full(ask), nil
		}
		return f.board(h, cut, true), Decision{Allowed: true, Degraded: DegradedLocal}, nil
	case err == nil:
		return nil, Decision{}, fmt.Errorf("requests in flight of key %s: unexpected status %d", ask.Key, g.Status)
	default:
		return nil, Decision{}, fmt.Errorf("requests in flight of key %s: %w", ask.Key, err)
	}
}

// End gives the place back.
func (fl *Flight) End() {
	h := fl.of
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, flying := h.flying[fl]; !flying {
		return // it was cut off
	}
	delete(h.flying, fl)
	if fl.local {
		h.local--
	}
}

// Cut counts the requests that were cut off because their place was lost, and
// Degraded those that this replica admitted by itself.
func (f *InFlight) Cut() uint64 { return f.cut.Load() }

// Degraded counts the requests that this replica decided by itself while the
// ledger was out of reach.
func (f *InFlight) Degraded() uint64 { return f.degraded.Load() }

// Run looks after the places until ctx ends.
func (f *InFlight) Run(ctx context.Context) {
	tick := time.NewTicker(flightTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.round(ctx)
		}
	}
}

func full(ask *Ask) Decision {
	l := &ask.Limits[0]
	return Decision{
		RetryAfter: flightWait,
		Limits:     []State{{Name: l.Name, Quota: l.Quota, RetryAfter: flightWait, Violated: true}},
	}
}

// holder finds or makes the places of a key, and locks them.
func (f *InFlight) holder(ask *Ask) *flights {
	for {
		f.mu.Lock()
		h := f.holders[ask.Key]
		if h == nil {
			h = &flights{asking: make(chan struct{}, 1), session: f.next(), sent: f.now(), flying: make(map[*Flight]struct{})}
			f.holders[ask.Key] = h
		}
		f.mu.Unlock()
		h.mu.Lock()
		if !h.gone {
			return h
		}
		h.mu.Unlock()
	}
}

func (f *InFlight) next() string {
	return f.name + ".f" + strconv.FormatUint(f.names.Add(1), 36)
}

// sit takes a place that is held and free; nil if there is none.
func (f *InFlight) sit(h *flights, cut func()) *Flight {
	if h.leased() >= h.places() || h.ending(f.now()) {
		return nil
	}
	// The ledger lets as many fly as the quota says, and a lowered one counts from
	// the next request on.
	if int64(len(h.flying)) >= h.ask.Limits[0].Quota {
		return nil
	}
	return f.board(h, cut, false)
}

func (f *InFlight) board(h *flights, cut func(), local bool) *Flight {
	fl := &Flight{all: f, of: h, cut: cut, local: local}
	h.flying[fl] = struct{}{}
	if local {
		h.local++
	}
	return fl
}

// call reports which places are not needed any more and asks for more. h.asking is
// held, and h.mu, which is free while the ledger answers. What came of it is in
// h.last and h.err.
func (f *InFlight) call(ctx context.Context, h *flights, want int64) {
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	if h.ending(f.now()) {
		f.lose(h)
	}
	a := h.ask
	a.Cost, a.Take = 1, 0
	a.Session, a.NextSession, a.Spent, a.Seen, a.Want = h.session, f.next(), h.spent, h.granted, max(0, want)
	if a.Release = want == 0 && h.places() == 0 && h.leased() == 0; a.Release {
		a.NextSession = ""
	}
	var grants [1]Grant
	h.calls++
	h.mu.Unlock()
	sent := f.now()
	err := f.ledger.Lease(ctx, []Ask{a}, grants[:])
	if err == nil && grants[0].Status == Stale {
		a.Stored = true
		sent = f.now()
		err = f.ledger.Lease(ctx, []Ask{a}, grants[:])
	}
	h.mu.Lock()
	h.last, h.err = grants[0], err
	g := &h.last
	if a.Release {
		// Whatever came of it, this was its last word: what the ledger may still
		// hold for it ends with the lease.
		h.session, h.granted, h.spent = f.next(), 0, 0
		return
	}
	if err != nil || g.Status == Stopped || g.Status == Stale {
		return
	}
	if g.Status == Expired {
		// The ledger knows nothing of those in flight. They count as soon as it has
		// places for them; the deadline that they have stays until then.
		h.session, h.granted, h.spent = a.NextSession, 0, 0
	}
	h.granted = max(h.granted, g.Leased)
	if g.TTL > 0 && h.leased() <= h.places() {
		h.span = max(h.span-elapsed(h.sent, sent), Less2Drift(g.TTL))
		h.sent = sent
	}
}

// lose cuts off what stands in places that are over, and begins anew.
func (f *InFlight) lose(h *flights) {
	for fl := range h.flying {
		if !fl.local {
			delete(h.flying, fl)
			f.cut.Add(1)
			fl.cut()
		}
	}
	h.session, h.granted, h.spent = f.next(), 0, 0
}

// round gives back what is not used, prolongs what is, and cuts off what is over.
func (f *InFlight) round(ctx context.Context) {
	f.mu.Lock()
	all := make([]*flights, 0, len(f.holders))
	for _, h := range f.holders {
		all = append(all, h)
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, flightRound)
	defer cancel()
	for _, h := range all {
		f.look(ctx, h)
	}
}

func (f *InFlight) look(ctx context.Context, h *flights) {
	select {
	case h.asking <- struct{}{}:
	default:
		return // a request is being told more than this would learn
	}
	h.mu.Lock()
	defer func() { h.mu.Unlock(); <-h.asking }()
	now := f.now()
	if h.places()+h.leased() > 0 && h.ending(now) {
		f.lose(h)
	}
	spare := max(0, h.places()-h.leased())
	// Given back for good: whether a message that failed came through, nobody knows.
	h.spent += spare
	if due := elapsed(h.sent, now) >= flightRenew && h.leased() > 0; spare > 0 || due || h.places() < h.leased() {
		f.call(ctx, h, h.leased()-h.places())
	}
	if len(h.flying) == 0 && h.places() == 0 && h.waiting == 0 {
		f.mu.Lock()
		delete(f.holders, h.ask.Key)
		f.mu.Unlock()
		h.gone = true
	}
}
