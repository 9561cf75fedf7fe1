package memory

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
)

// Replicas with drifting clocks lease, spend, report, stop, crash and release,
// while the network loses, repeats and reorders what they say, and what requests
// cost shows only later. No window and no period ever holds more than its quota,
// over all keys of the organization, the ledger always charges at least what was
// admitted and may still be spent, nothing is spent past the ledger's expiry,
// and after silence all of the budget is back.
func TestLeasesUnderFaults(t *testing.T) {
	rapid.Check(t, leasesUnderFaults)
}

func leasesUnderFaults(t *rapid.T) {
	l, c := newLedger()
	w := &world{t: t, l: l, c: c, admitted: map[string]*admissions{}, expiry: map[string]int64{}}
	limit := func(name string, least int) ratelimit.Limit {
		return ratelimit.Limit{
			Name:  name,
			Quota: int64(rapid.IntRange(least, least+60).Draw(t, name+" quota")),
			Per:   time.Duration(rapid.IntRange(1, 6).Draw(t, name+" per")) * time.Second,
		}
	}
	own, org := limit("own", 1), limit("org", 1)
	second := limit("second", 20)
	month := ratelimit.Limit{Name: "month", Quota: int64(rapid.IntRange(5, 200).Draw(t, "month quota"))}
	w.period = int64(rapid.IntRange(500, 9_000).Draw(t, "period")) * 1000
	var longest time.Duration
	for i := range rapid.IntRange(1, 4).Draw(t, "replicas") {
		r := &replica{key: fmt.Sprint("key_", i%2), drift: int64(rapid.IntRange(-1, 1).Draw(t, "drift"))}
		r.limits = []ratelimit.Limit{own, org, second, month}
		r.bill.name, r.heard = w.name(), c.now()
		for k, holder := range []string{r.key, "org_a", r.key, "org_a"} {
			r.limits[k].Holder = holder
			w.admitted[holder+r.limits[k].Name] = &admissions{}
			longest = max(longest, r.limits[k].Per)
		}
		w.open(r)
		w.replicas = append(w.replicas, r)
	}
	for range rapid.IntRange(50, 300).Draw(t, "steps") {
		r := w.replicas[w.int("replica", len(w.replicas))]
		switch w.int("step", 24) {
		case 0, 1, 2, 3, 4:
			w.request(r)
		case 5, 6, 7:
			w.send(r, false)
		case 8, 9, 10, 11:
			w.deliver()
		case 12, 13, 14, 15:
			w.receive()
		case 16:
			w.advance(int64(w.int("moment", 50_000)))
		case 17:
			w.advance(int64(w.int("while", 1_500_000)))
		case 18:
			switch w.int("rare", 4) {
			case 0:
				w.advance(int64(w.int("long", 8_000_000)))
			case 1:
				w.open(r) // a crash
				r.waiting = nil
			case 2:
				w.send(r, true)
			case 3: // lost messages
				w.asks, w.answers, w.settles = nil, nil, nil
			}
		case 20:
			w.settle(r)
		case 21, 22, 23:
			w.settleDelivered()
		case 19: // to the edge of a window, where a charge that ends early shows
			g := peek(t, l, w.bounded(r)...)
			w.advance(g.Limits[w.int("edge", 4)].NextUnit.Microseconds())
		}
		w.check()
	}
	for _, r := range w.replicas {
		for _, l := range r.limits {
			log := w.admitted[l.Holder+l.Name]
			most := log.mostOf(w.period)
			if l.Per > 0 {
				most = log.most(l.Per.Microseconds())
			}
			if most > l.Quota {
				t.Fatalf("limit %s of %s: %d admitted in a window, allowed are %d", l.Name, l.Holder, most, l.Quota)
			}
		}
	}
	c.advance(longest + ratelimit.LeaseTime(longest) + ratelimit.CallTimeout)
	w.advance(w.period) // and what the last one leased is over as well
	for _, r := range w.replicas {
		for i, s := range peek(t, l, w.bounded(r)...).Limits {
			if s.Remaining != s.Quota || s.NextUnit != 0 {
				t.Fatalf("limit %d after silence: %+v", i, s)
			}
		}
	}
	r := w.replicas[0]
	g := ask(t, l, ratelimit.Ask{Organization: "org_a", Key: r.key, Limits: w.bounded(r), Session: "z", Want: 1, Cost: 1})
	if g.Status != ratelimit.Granted || g.Leased != 1 {
		t.Fatalf("uncontended: %+v", g)
	}
}
