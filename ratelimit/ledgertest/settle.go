package ledgertest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"keygate/ratelimit"
)

// reserved is what the key took of some limits by now, of which nothing was
// settled before.
func (w *world) reserved(n int64, limits ...ratelimit.Limit) ratelimit.Reservation {
	return ratelimit.Reservation{Organization: "org_a", Key: "key_a", Limits: limits, Session: "c", Reserved: n, At: w.now()}
}

func (w *world) settle(r ratelimit.Reservation, actual int64) {
	w.Helper()
	if err := w.settled(r, actual); err != nil {
		w.Fatalf("Settle: %v", err)
	}
}

// settled settles one, in the middle of a batch whose others are malformed.
func (w *world) settled(r ratelimit.Reservation, actual int64) error {
	r.Actual = actual
	errs := make([]error, 3)
	w.h.Ledger.Settle(w.Context(), []ratelimit.Reservation{{}, r, {}}, errs)
	if errs[0] == nil || errs[2] == nil {
		w.Errorf("reservations of nothing were settled")
	}
	return errs[1]
}

// What was reserved too much returns to every limit, at once; what was too little
// is charged, also beyond the quota, and delays who comes later.
func settleReturnsAndCharges(w *world) {
	minute, org := key("minute", 100, time.Minute), shared("hour", 1000, time.Hour)
	r := w.reserved(20, minute, org)
	w.ask(takeAsk(20, minute, org))
	w.settle(r, 3)
	w.wantRemaining(97, minute)
	w.wantRemaining(997, org)
	w.advance(sec)
	w.ask(takeAsk(90, minute, org))
	r.Reserved, r.Seen, r.At = 110, 20, w.now()
	w.settle(r, 3+100) // the second came to 100
	g := w.ask(takeAsk(1, minute, org))
	if s := g.Limits[0]; g.Status != ratelimit.Denied || s.Remaining != 0 || s.RetryAfter != time.Minute {
		w.Fatalf("%+v", g)
	}
	w.wantRemaining(897, org)
	w.advance(time.Minute)
	w.wantRemaining(10, minute) // the overrun is over; 90 were charged for the call's time longer
	w.advance(d)
	w.wantRemaining(100, minute)
}

// A correction that comes twice, or after a later one, corrects nothing more; one
// that was lost is made up by the next.
func settleRepeated(w *world) {
	minute := key("minute", 100, time.Minute)
	r := w.reserved(10, minute)
	w.ask(takeAsk(30, minute))
	for range 3 {
		w.settle(r, 2)
		w.wantRemaining(78, minute)
	}
	third := r
	third.Reserved, third.Seen = 30, 10
	w.settle(third, 12) // the second one was lost
	w.wantRemaining(88, minute)
	second := r
	second.Reserved = 20
	w.settle(second, 2)
	w.settle(r, 2)
	w.wantRemaining(88, minute)
	// Also where all was returned and nothing is left to remember by.
	w = w.another()
	r = w.reserved(10, minute)
	w.ask(takeAsk(10, minute))
	w.settle(r, 0)
	w.ask(takeAsk(10, minute))
	w.settle(r, 0)
	w.wantRemaining(90, minute)
}

// A ledger that does not know what was corrected before cannot tell what is new.
func settleForgotten(w *world) {
	minute := key("minute", 100, time.Hour)
	r := w.reserved(20, minute)
	r.Seen = 10
	w.ask(takeAsk(20, minute))
	if err := w.settled(r, 0); !errors.Is(err, ratelimit.ErrForgotten) {
		w.Fatalf("%v", err)
	}
	w.wantRemaining(80, minute)
	r.Session, r.Reserved, r.Seen = "c2", 10, 0
	w.settle(r, 4)
	w.wantRemaining(86, minute)
	// It is remembered for as long as a refund is possible, and so many are.
	w.advance(ratelimit.SettleWithin)
	r.Reserved, r.Seen = 12, 10
	if err := w.settled(r, 4); !errors.Is(err, ratelimit.ErrForgotten) {
		w.Fatalf("%v", err)
	}
	w = w.another()
	w.ask(takeAsk(50, minute))
	for i := range 40 {
		r := w.reserved(1, minute)
		r.Session = fmt.Sprint("c", i)
		w.settle(r, 0)
	}
	w.wantRemaining(82, minute)
}

// Only a charge that is still held is returned, and soon enough: later it would
// be somebody else's.
func settleOnlyWhatIsHeld(w *world) {
	second, hour := key("second", 100, sec), key("hour", 100, time.Hour)
	r := w.reserved(10, second, hour)
	w.ask(takeAsk(10, second, hour))
	w.advance(sec)
	w.ask(takeAsk(10, second, hour))
	w.settle(r, 4)
	if g := w.peek(second, hour); g.Limits[0].Remaining != 80 || g.Limits[1].Remaining != 86 {
		w.Fatalf("%+v", g)
	}
	r = w.reserved(10, hour)
	r.Session = "late"
	w.ask(takeAsk(10, hour))
	w.advance(ratelimit.SettleWithin)
	w.settle(r, 4)
	w.wantRemaining(76, hour)
	// Nor what was charged before it, and is held for less.
	w = w.another()
	w.ask(takeAsk(10, hour))
	w.advance(sec)
	w.settle(w.reserved(10, hour), 0)
	w.wantRemaining(90, hour)
	// Nor what is yet to come.
	r = w.reserved(10, hour)
	r.At, r.Session = r.At.Add(sec), "c3"
	w.settle(r, 0)
	w.wantRemaining(90, hour)
}

func settleOfAQuota(w *world) {
	month := w.quota("month", 100, 10*sec)
	r := w.reserved(10, month)
	w.ask(takeAsk(10, month))
	w.advance(5 * sec)
	w.settle(r, 4)
	w.wantRemaining(96, month)
	// Of the former period nothing returns, and an overrun counts in the present.
	r = w.reserved(10, month)
	r.Session = "c2"
	w.ask(takeAsk(10, month))
	w.advance(5 * sec)
	w.ask(takeAsk(20, month))
	w.settle(r, 4)
	w.wantRemaining(80, month)
	r.Reserved, r.Seen = 20, 10
	w.settle(r, 19)
	w.wantRemaining(75, month)
}

// Units of a lease that were spent and not reported have no charge of their own
// yet. To return them from the charges of others would be right only until they
// are reported, and then end a window too soon.
func settleSparesWhatIsNotReported(w *world) {
	minute := key("minute", 1000, time.Minute)
	w.ask(leaseAsk("s", "n", 0, 0, 5, minute))
	w.ask(takeAsk(7, minute)) // charged D longer than a report would be
	r := w.reserved(5, minute)
	w.settle(r, 0)
	w.wantRemaining(988, minute)
	// Once reported they return.
	w.ask(leaseAsk("s", "n", 5, 5, 0, minute))
	r.Session = "c2"
	w.settle(r, 0)
	w.wantRemaining(993, minute)
	w.advance(time.Minute)
	w.wantRemaining(993, minute)
	w.advance(d)
	w.wantRemaining(1000, minute)
}

func settleMalformed(w *world) {
	minute := key("minute", 100, time.Minute)
	w.ask(takeAsk(10, minute))
	for name, change := range map[string]func(*ratelimit.Reservation){
		"nobody":          func(r *ratelimit.Reservation) { r.Organization, r.Key = "", "" },
		"no limits":       func(r *ratelimit.Reservation) { r.Limits = nil },
		"no session":      func(r *ratelimit.Reservation) { r.Session = "" },
		"long session":    func(r *ratelimit.Reservation) { r.Session = strings.Repeat("c", ratelimit.MaxSession+1) },
		"nothing":         func(r *ratelimit.Reservation) { r.Reserved = 0 },
		"seen more":       func(r *ratelimit.Reservation) { r.Seen = 11 },
		"no time":         func(r *ratelimit.Reservation) { r.At = time.Time{} },
		"requests flying": func(r *ratelimit.Reservation) { r.Limits = []ratelimit.Limit{flight(3)} },
		"bad limit":       func(r *ratelimit.Reservation) { r.Limits = []ratelimit.Limit{key("x", 0, time.Minute)} },
	} {
		r := w.reserved(10, minute)
		change(&r)
		if err := w.settled(r, 1); err == nil || errors.Is(err, ratelimit.ErrForgotten) {
			w.Errorf("%s: error %v", name, err)
		}
	}
	if err := w.settled(w.reserved(10, minute), -1); err == nil {
		w.Error("less than nothing: no error")
	}
	w.wantRemaining(90, minute)
}

// flight limits requests in flight.
func flight(n int64) ratelimit.Limit {
	return ratelimit.Limit{Name: ratelimit.ConcurrentName, Holder: "key_a", Quota: n, Concurrent: true}
}

// Requests in flight are leased and reported when they end, and then are free at
// once. A replica gets what it wants while there is enough for others.
func inFlight(w *world) {
	g := w.ask(leaseAsk("s", "", 0, 0, 2, flight(10)))
	if g.Leased != 2 || g.TTL != ratelimit.ConcurrentLease || g.Limits[0].Remaining != 8 {
		w.Fatalf("%+v", g)
	}
	if g = w.ask(leaseAsk("t", "", 0, 0, 9, flight(10))); g.Leased != 4 || !g.OthersHold {
		w.Fatalf("%+v", g)
	}
	w.advance(10 * sec)
	if g = w.ask(leaseAsk("s", "", 1, 2, 0, flight(10))); g.Status != ratelimit.Granted || g.TTL != ratelimit.ConcurrentLease || g.Limits[0].Remaining != 5 {
		w.Fatalf("%+v", g)
	}
	if g = w.ask(leaseAsk("s", "", 1, 2, 9, flight(10))); g.Leased != 4 || g.Limits[0].Remaining != 3 {
		w.Fatalf("%+v", g)
	}
	for range 3 {
		w.ask(leaseAsk("s", "", 1, 4, 1, flight(10)))
	}
	if g = w.ask(leaseAsk("t", "", 0, 4, 1, flight(10))); g.Status != ratelimit.Denied || g.Limits[0].Remaining != 0 || !g.Limits[0].Violated || g.Limits[0].RetryAfter <= 0 {
		w.Fatalf("%+v", g)
	}
	// Fewer may be allowed from now on: those that fly may land.
	if g = w.ask(leaseAsk("t", "", 1, 4, 1, flight(5))); g.Status != ratelimit.Denied || g.Limits[0].Remaining != 0 {
		w.Fatalf("%+v", g)
	}
}

// Of a replica that is not heard of any more nothing flies when its lease ends.
func inFlightEndsWithItsReplica(w *world) {
	w.ask(leaseAsk("s", "", 0, 0, 3, flight(3)))
	w.advance(ratelimit.ConcurrentLease - time.Microsecond)
	if g := w.ask(leaseAsk("t", "", 0, 0, 1, flight(3))); g.Status != ratelimit.Denied || g.Limits[0].RetryAfter != time.Microsecond {
		w.Fatalf("%+v", g)
	}
	w.advance(time.Microsecond)
	if g := w.ask(leaseAsk("t", "", 0, 0, 1, flight(3))); g.Leased != 1 || g.Limits[0].Remaining != 2 {
		w.Fatalf("%+v", g)
	}
	if g := w.ask(leaseAsk("s", "n", 1, 3, 1, flight(3))); g.Status != ratelimit.Expired || g.Leased != 1 {
		w.Fatalf("%+v", g)
	}
}

// Requests in flight are no charge of the same holder's windows, nor the reverse,
// and are not asked about together.
func inFlightIsNoSpending(w *world) {
	minute := key("minute", 10, time.Minute)
	w.ask(takeAsk(4, minute))
	w.ask(leaseAsk("s", "", 0, 0, 3, flight(5)))
	w.wantRemaining(6, minute)
	w.wantRemaining(2, flight(5))
	for name, limits := range map[string][]ratelimit.Limit{"window beside it": {flight(5), minute}, "it beside a window": {minute, flight(5)}} {
		a := leaseAsk("t", "", 0, 0, 1, limits...)
		if err := w.h.Ledger.Lease(w.Context(), []ratelimit.Ask{a}, make([]ratelimit.Grant, 1)); err == nil {
			w.Errorf("%s: no error", name)
		}
	}
	if err := w.h.Ledger.Lease(w.Context(), []ratelimit.Ask{takeAsk(1, flight(5))}, make([]ratelimit.Grant, 1)); err == nil {
		w.Error("taken without a session: no error")
	}
	// A loss holds them for as long as a replica may go on.
	w.h.Lose()
	if g := w.ask(leaseAsk("t", "", 0, 0, 1, flight(5))); g.Status != ratelimit.Lost || g.Limits[0].RetryAfter != ratelimit.ConcurrentLease {
		w.Fatalf("%+v", g)
	}
	w.advance(ratelimit.ConcurrentLease)
	if g := w.ask(leaseAsk("t", "", 0, 0, 1, flight(5))); g.Leased != 1 {
		w.Fatalf("%+v", g)
	}
}
