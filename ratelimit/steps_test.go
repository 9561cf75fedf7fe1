package ratelimit_test

import (
	"context"
	"time"

	"keygate/ratelimit"
)

// step is one thing that happens.
func (w *world) step() {
	r := w.replicas[w.IntN(len(w.replicas))]
	k := w.IntN(len(w.keys))
	switch n := w.IntN(100); {
	case n < 34:
		cost := int64(1)
		if w.IntN(8) == 0 {
			cost += w.Int64N(4)
		}
		for range 1 + w.IntN(1+w.IntN(20)) {
			r.request(k, cost)
		}
	case n < 58: // what is due goes to the ledger and back
		r.exchange(w.keys[k])
	case n < 63:
		r.send(w.keys[k])
	case n < 68:
		w.deliver(false)
	case n < 73:
		w.receive(false)
	case n < 82:
		r.look(w.keys[k])
	case n < 90:
		w.now += w.Int64N(20_000)
	case n < 95: // a while in which leases are looked after, or not
		for range w.IntN(5) {
			w.now += w.Int64N(150_000)
			r.look(w.keys[k])
			r.exchange(w.keys[k])
			r.request(k, 1)
		}
	case n < 96:
		w.now += w.Int64N(2_000_000)
	case n < 98:
		w.giveUpOrEdge(r, k)
	default:
		w.rare(r, k)
	}
}

// giveUpOrEdge has a call time out, or goes to the edge of a window, where a
// charge that ends too early shows.
func (w *world) giveUpOrEdge(r *replica, k int) {
	if w.drop && w.IntN(2) == 0 {
		r.giveUp()
		return
	}
	a := ratelimit.Ask{Organization: "org_a", Key: w.keys[k], Version: ratelimit.MaxVersion, Rules: w.rules, Limits: w.periods(k), Cost: 1}
	if g, err := w.ledger.Peek(context.Background(), a); err == nil {
		w.now += micros(g.Limits[w.IntN(len(g.Limits))].NextUnit)
	}
}

func (w *world) rare(r *replica, k int) {
	switch w.IntN(8) {
	case 0:
		if w.crash {
			r.start()
		}
	case 1:
		if w.drop {
			w.asks, w.answers = nil, nil
		}
	case 2:
		if w.change { // another policy, which a replica hears of when it does
			w.rules++
			r.rules = w.rules
		}
	case 3:
		if w.change {
			s := stop{w.stops[w.keys[k]].version + 1, w.now}
			if old, ok := w.stops[w.keys[k]]; ok {
				s.at = old.at // the first stop is the one that older versions count from
				if r.version[w.keys[k]] == old.version {
					s.at = w.now
				}
			}
			if stopper, ok := w.ledger.(ratelimit.Stopper); ok {
				_ = stopper.Stop(context.Background(), "org_a", w.keys[k], s.version)
				w.stops[w.keys[k]] = stop{s.version, w.now}
			}
		}
	case 4:
		for waiter, q := range r.waiting {
			if r.Abandon(q.key, waiter) {
				delete(r.waiting, waiter)
			}
			break
		}
	case 5:
		w.now += w.Int64N(9_000_000)
	}
}

// simulate is one run; what it finds is an error.
func simulate(seed uint64, f faults, ledger func(func() time.Time) ratelimit.Ledger) error {
	w := newWorld(seed, f, ledger)
	for range 150 + w.IntN(250) {
		w.step()
		w.check()
		if w.violation != nil {
			return w.violation
		}
	}
	w.end()
	return w.violation
}
