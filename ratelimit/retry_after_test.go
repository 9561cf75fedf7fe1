package ratelimit_test

import (
	"testing"
	"time"

	"keygate/ratelimit"
)

// maxBrief is the longest for which a denial is remembered that may become untrue, a
// hundredth of ten seconds: what others spent in that time before a client is told to wait
// is not known.
const maxBrief = 100 * time.Millisecond

// A client that waits exactly as long as it is told is admitted if nobody else
// spends meanwhile: after any history of several replicas, over windows, shared
// limits and calendar quotas, asking the same replica again or another, whether the
// denial came from the ledger or from memory, and whether replicas look after what
// they hold or have died.
func TestWhoWaitsIsAdmitted(t *testing.T) {
	runs := uint64(400)
	if full {
		runs = 6_000
	}
	var told, recalled, elsewhere, quotas, prolonged int
	for seed := range runs {
		w := newWorld(seed, faults{}, onMemory)
		for range 12 {
			for range 5 + w.IntN(60) {
				w.step()
			}
			w.settle()
			w.idle(maxBrief, false)
			r, k := w.replicas[w.IntN(len(w.replicas))], w.IntN(len(w.keys))
			cost := 1 + w.Int64N(3)
			remembered := r.Counts().Remembered.Load()
			d := r.decide(k, cost)
			if w.violation != nil {
				t.Fatalf("seed %d: %v", seed, w.violation)
			}
			if d.Allowed || !fitsAll(w.periods(k), cost) {
				continue
			}
			told++
			recalled += int(r.Counts().Remembered.Load() - remembered)
			for i, s := range d.Limits {
				if s.Violated && w.periods(k)[i].Per == 0 {
					quotas++
				}
			}
			if again := w.replicas[w.IntN(len(w.replicas))]; again != r {
				r, elsewhere = again, elsewhere+1
			}
			looked := w.IntN(2) == 0
			w.idle(d.RetryAfter, looked)
			got := r.decide(k, cost)
			if !got.Allowed && looked { // a lease was prolonged meanwhile, which holds what it has left for τ more
				prolonged++
				w.idle(got.RetryAfter, false)
				got = r.decide(k, cost)
			}
			if !got.Allowed {
				t.Fatalf("seed %d: waited %s and got %+v, told was %+v", seed, d.RetryAfter, got, d)
			}
		}
	}
	t.Logf("%d clients waited: %d told from memory, %d asked another replica, %d for a calendar quota, %d twice", told, recalled, elsewhere, quotas, prolonged)
	if prolonged > told/1000 {
		t.Errorf("%d of %d clients waited in vain because a lease was prolonged", prolonged, told)
	}
	if min(told/10, recalled, elsewhere, quotas) < 15 {
		t.Error("the histories do not lead there")
	}
}

// The t of the RateLimit field is when r next grows, and not a moment before. It can
// be more than w: for a request by D, for units of a lease by τ.
func TestTimeUntilMoreIsTrue(t *testing.T) {
	l := newLine(t, minute(1000))
	if l.get(1) != 1 {
		t.Fatal("refused")
	}
	told := func() (remaining, wait int64) {
		g, err := l.ledger.Peek(t.Context(), costing(l.ask()))
		if err != nil {
			t.Fatal(err)
		}
		return ratelimit.Shown(ratelimit.Decision{Allowed: true, Limits: g.Limits}, 0)
	}
	if r, wait := told(); r != 999 || wait != 61 {
		t.Fatalf("r=%d, t=%d", r, wait)
	}
	l.advance(time.Minute + ratelimit.CallTimeout - time.Microsecond)
	if r, _ := told(); r != 999 {
		t.Errorf("r=%d before its time", r)
	}
	l.advance(time.Microsecond)
	if r, wait := told(); r != 1000 || wait != 0 {
		t.Errorf("r=%d, t=%d when it is over", r, wait)
	}

	l.leased()
	l.advance(time.Minute) // what was taken one by one is over; of the lease nobody has heard
	l.advance(ratelimit.CallTimeout)
	if r, wait := told(); r >= 1000 || wait > 62 {
		t.Errorf("r=%d, t=%d", r, wait)
	}
	l.advance(tau)
	if r, wait := told(); r != 1000 || wait != 0 {
		t.Errorf("r=%d, t=%d when the lease is over by a window", r, wait)
	}
}

func fitsAll(limits []ratelimit.Limit, cost int64) bool {
	for i := range limits {
		if limits[i].Quota < cost {
			return false
		}
	}
	return true
}

// settle has everybody who waits get an answer.
func (w *world) settle() {
	for moved := true; moved; {
		moved = false
		for _, r := range w.replicas {
			for _, key := range w.keys {
				r.send(key)
			}
		}
		for len(w.asks)+len(w.answers) > 0 {
			w.deliver(false)
			w.receive(false)
			moved = true
		}
	}
}

// decide has one request decided, without any delay.
func (r *replica) decide(k int, cost int64) ratelimit.Decision {
	a := ratelimit.Ask{Organization: "org_a", Key: r.w.keys[k], Rules: r.rules, Limits: r.periods(k), Cost: cost}
	d, waiter, renew, err := r.Request(&a)
	r.due[a.Key] = r.due[a.Key] || renew
	if waiter != nil {
		r.w.settle()
		var answered bool
		if d, err, answered = ratelimit.Answer(waiter); !answered {
			r.w.fail("a request got no answer")
		}
	}
	if err != nil {
		r.w.fail("%v", err)
	}
	if d.Allowed {
		r.admit(&a, cost, r.w.now)
	}
	r.w.settle()
	return d
}

// idle lets time pass in which nobody spends; what is leased is looked after, or
// nobody does.
func (w *world) idle(d time.Duration, looked bool) {
	end := w.now + int64((d+time.Microsecond-1)/time.Microsecond)
	for looked && w.now+100_000 < end {
		w.now += 100_000
		for _, r := range w.replicas {
			for _, key := range w.keys {
				r.look(key)
			}
		}
		w.settle()
	}
	w.now = end
}
