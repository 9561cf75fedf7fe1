package ratelimit_test

import (
	"context"
	"slices"
	"time"

	"keygate/ratelimit"
)

// check holds the invariants between two steps.
func (w *world) check() {
	held := map[string]int64{} // spendable, by holder
	shared := int64(0)
	for _, r := range w.replicas {
		for _, key := range w.keys {
			if _, granted, total, live := r.Lease(key); live {
				held[key] += granted - total
				shared += granted - total
				if total > granted {
					w.fail("invariant 3: %d spent of %d", total, granted)
				}
			}
		}
		if spent, burnt := r.Spent(), int64(r.Counts().Burnt.Load()); spent+r.booked != r.allowed+burnt {
			w.fail("invariant 3: %d spent of leases and %d booked, %d admitted and %d burnt", spent, r.booked, r.allowed, burnt)
		}
	}
	held["org_a"] = shared
	for k, key := range w.keys {
		a := ratelimit.Ask{Organization: "org_a", Key: key, Version: ratelimit.MaxVersion, Rules: w.rules, Limits: w.periods(k), Cost: 1}
		g, err := w.ledger.Peek(context.Background(), a)
		if err != nil {
			w.fail("%v", err)
			return
		}
		for i, s := range g.Limits {
			l := &w.terms[k][i]
			acc := w.limits[l.Holder+l.Name]
			if charged, spent := s.Quota-s.Remaining, acc.since(w.now); charged < spent+w.spendable(l, held, i) {
				w.fail("invariant 2: limit %s of %s: %d charged, %d admitted in the window and %d spendable", l.Name, l.Holder, charged, spent, held[l.Holder])
			}
		}
	}
}

// spendable is what replicas hold of a limit. While two policies are in force
// they may hold units that were never granted against the third.
func (w *world) spendable(l *ratelimit.Limit, held map[string]int64, i int) int64 {
	if i == 2 && w.rules > 0 || l.Holder == "org_a" && !w.allShare() {
		return 0
	}
	return held[l.Holder]
}

// allShare reports whether every key draws on the organization's budget.
func (w *world) allShare() bool {
	return !slices.ContainsFunc(w.terms, func(limits []ratelimit.Limit) bool { return len(limits) < 2 })
}

// since is what was admitted in the window that ends now.
func (a *account) since(now instant) (sum int64) {
	from := now - micros(a.Per)
	if a.Per == 0 {
		from = a.begin(now) - 1
	}
	for i := len(a.admitted) - 1; i >= 0 && a.admitted[i].at > from; i-- {
		sum += a.admitted[i].units
	}
	return sum
}

// begin is where the calendar period of an instant begins.
func (a *account) begin(at instant) instant {
	return time.UnixMicro(at).Truncate(a.period).UnixMicro()
}

// most is the largest sum in any window, or in any period of a calendar quota.
func (a *account) most() (most int64) {
	if a.Per == 0 {
		sums := map[instant]int64{}
		for _, e := range a.admitted {
			sums[a.begin(e.at)] += e.units
			most = max(most, sums[a.begin(e.at)])
		}
		return most
	}
	sum, first := int64(0), 0
	for _, e := range a.admitted {
		sum += e.units
		for a.admitted[first].at <= e.at-micros(a.Per) {
			sum -= a.admitted[first].units
			first++
		}
		most = max(most, sum)
	}
	return most
}

// end holds what must be so of the whole run, and after it.
func (w *world) end() {
	longest := time.Duration(0)
	for _, acc := range w.limits {
		if most := acc.most(); most > acc.Quota {
			w.fail("invariants 1 and 10: limit %s of %s: %d admitted in a window or period, allowed are %d", acc.Name, acc.Holder, most, acc.Quota)
		}
		longest = max(longest, acc.Per, 2*acc.period) // a replica whose clock is ahead is in the next period already
	}
	w.now += micros(longest + ratelimit.LeaseTime(longest) + ratelimit.CallTimeout)
	for k, key := range w.keys {
		a := ratelimit.Ask{Organization: "org_a", Key: key, Version: ratelimit.MaxVersion, Rules: w.rules, Limits: w.periods(k), Cost: 1}
		g, err := w.ledger.Peek(context.Background(), a)
		if err != nil {
			w.fail("%v", err)
			return
		}
		for i, s := range g.Limits {
			if w.terms[k][i].Per == 0 && w.rules > 0 {
				continue // a lease that was not asked about it may be charged to the period in which that is noticed
			}
			if s.Remaining != s.Quota {
				w.fail("invariant 6: after silence %d of %d are left of %s", s.Remaining, s.Quota, s.Name)
			}
		}
	}
	w.uncontended()
}

// uncontended: what fits is granted in one trip.
func (w *world) uncontended() {
	w.faults = faults{}
	w.asks, w.answers = nil, nil
	r := w.newReplica()
	r.version[w.keys[0]] = w.stops[w.keys[0]].version
	r.request(0, 1)
	r.send(w.keys[0])
	w.deliver(true)
	w.receive(true)
	if r.allowed != 1 {
		w.fail("invariant 7: a request that nothing stands against was not admitted in one trip")
	}
}
