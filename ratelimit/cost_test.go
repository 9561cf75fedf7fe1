package ratelimit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// A market is several replicas in front of one ledger without faults: what a
// trip takes is all that there is between them. It measures what leasing costs
// against an exact log on the same arrivals.
type market struct {
	*rand.Rand
	now      time.Duration
	ledger   ratelimit.Ledger
	limit    ratelimit.Limit
	replicas []*ratelimit.Replica
	due      []bool
	ticks    []time.Duration
	waiting  []map[*ratelimit.Waiter]bool
	rounds   []*flight
	trips    int
	admitted []time.Duration // instants
	denied   int
	wrong    string // a denial that the ideal would not have made
}

type flight struct {
	round *ratelimit.Round
	grant ratelimit.Grant
	there time.Duration // when the ledger has it
	back  time.Duration
	asked bool
}

const trip = time.Millisecond

func newMarket(quota int64, per time.Duration, replicas int) *market {
	m := &market{Rand: rand.New(rand.NewPCG(7, 7)), limit: limit("limit", quota, per)}
	clock := func() time.Time { return time.UnixMicro(epoch).Add(m.now) }
	m.ledger = memory.New(memory.Options{Now: clock})
	for i := range replicas {
		m.replicas = append(m.replicas, ratelimit.NewReplica(fmt.Sprint("r", i), clock))
		m.waiting = append(m.waiting, map[*ratelimit.Waiter]bool{})
	}
	m.due, m.ticks, m.rounds = make([]bool, replicas), make([]time.Duration, replicas), make([]*flight, replicas)
	return m
}

// run lets requests arrive at random, so many in each window on average, and
// returns trips per request and admitted per ideal, over all windows but the
// first two.
func (m *market) run(offered int, windows int) (trips, share float64) {
	gap := float64(m.limit.Per) / float64(offered)
	next := time.Duration(m.ExpFloat64() * gap)
	var ideal log
	requests, fitted, before := 0, 0, 0
	for end, warm := time.Duration(windows)*m.limit.Per, 2*m.limit.Per; m.now < end; {
		event := m.next()
		if next > event {
			m.now = event
			m.work()
			continue
		}
		if m.now < warm && next >= warm {
			m.trips, requests, fitted, before = 0, 0, 0, len(m.admitted)
		}
		m.now = next
		next += time.Duration(m.ExpFloat64() * gap)
		requests++
		if ideal.allow(m.now, m.limit.Quota, m.limit.Per) {
			fitted++
		}
		m.request(m.IntN(len(m.replicas)))
		m.work()
	}
	return float64(m.trips) / float64(requests), float64(len(m.admitted)-before) / float64(fitted)
}

func (m *market) request(i int) {
	a := ratelimit.Ask{Organization: "org_a", Key: "key_a", Limits: []ratelimit.Limit{m.limit}}
	d, w, renew, err := m.replicas[i].Request(&a)
	switch {
	case err != nil:
		panic(err)
	case w != nil:
		m.waiting[i][w] = true
	case d.Allowed:
		m.admitted = append(m.admitted, m.now)
	default:
		m.denied++
	}
	m.due[i] = m.due[i] || renew
}

// next is when something is to be done.
func (m *market) next() time.Duration {
	first := time.Duration(math.MaxInt64)
	for i := range m.replicas {
		first = min(first, m.ticks[i])
		if f := m.rounds[i]; f != nil && !f.asked {
			first = min(first, f.there)
		} else if f != nil {
			first = min(first, f.back)
		}
	}
	return first
}

func (m *market) work() {
	for i, r := range m.replicas {
		if f := m.rounds[i]; f != nil && !f.asked && f.there <= m.now {
			f.grant, f.asked = m.ask(ratelimit.AskOf(f.round)), true
		}
		if f := m.rounds[i]; f != nil && f.asked && f.back <= m.now {
			m.rounds[i] = nil
			_, again := r.Receive("key_a", f.round, &f.grant)
			m.due[i] = m.due[i] || again
			for w := range m.waiting[i] {
				if d, _, ok := ratelimit.Answer(w); ok {
					delete(m.waiting[i], w)
					if d.Allowed {
						m.admitted = append(m.admitted, m.now)
					} else {
						m.denied++
					}
				}
			}
		}
		if r.Rouse < math.MaxInt64 {
			m.ticks[i] = min(m.ticks[i], m.now+r.Rouse)
			r.Rouse = math.MaxInt64
		}
		if m.ticks[i] <= m.now {
			send, after := r.Tick("key_a")
			m.due[i] = m.due[i] || send
			m.ticks[i] = m.now + after
		}
		if m.due[i] && m.rounds[i] == nil {
			m.due[i] = false
			if round := r.Compose("key_a"); round != nil {
				m.rounds[i] = &flight{round: round, there: m.now + trip/2, back: m.now + trip}
			}
		}
		for _, a := range r.Returns {
			m.ask(a)
		}
		r.Returns = nil
	}
}

func (m *market) ask(a ratelimit.Ask) ratelimit.Grant {
	m.trips++
	grants := make([]ratelimit.Grant, 1)
	if err := m.ledger.Lease(context.Background(), []ratelimit.Ask{a}, grants); err != nil {
		panic(err)
	}
	if g := &grants[0]; a.Take > 0 && g.Taken == 0 {
		m.justified(g)
	}
	return grants[0]
}

// justified is invariant 11: nothing is denied while an exact log would have room
// beside the outstanding leases. A unit counts from its report, at most a lease
// time after it was spent, and a take from the end of the call's time-out.
func (m *market) justified(g *ratelimit.Grant) {
	from := m.now - m.limit.Per - ratelimit.LeaseTime(m.limit.Per) - ratelimit.CallTimeout
	spent := int64(len(m.admitted) - sort.Search(len(m.admitted), func(i int) bool { return m.admitted[i] > from }))
	for i, r := range m.replicas {
		if _, granted, total, live := r.Lease("key_a"); live {
			spent += granted - total
		}
		if f := m.rounds[i]; f != nil && f.asked {
			a := ratelimit.AskOf(f.round)
			spent += f.grant.Taken + max(0, f.grant.Leased-a.Seen)
		}
	}
	if spent < m.limit.Quota {
		m.wrong = fmt.Sprintf("denied at %s with %d admitted or leased: %+v", m.now, spent, g)
	}
}

// log is the ideal: it remembers every instant.
type log []time.Duration

func (l *log) allow(now time.Duration, quota int64, per time.Duration) bool {
	for len(*l) > 0 && (*l)[0] <= now-per {
		*l = (*l)[1:]
	}
	if int64(len(*l)) >= quota {
		return false
	}
	*l = append(*l, now)
	return true
}

// TestCost: what docs/limits.md says that the limits cost, over three replicas.
func TestCost(t *testing.T) {
	for _, c := range []struct {
		quota    int64
		per      time.Duration
		offered  int
		windows  int
		trips    float64 // at most
		admitted float64 // at least
	}{
		{60_000, time.Minute, 54_000, 4, 0.0035, 0.995},
		{6_000, time.Minute, 5_400, 5, 0.030, 0.995},
		{1_000, time.Minute, 900, 8, 0.20, 0.995},
		{1_000, time.Minute, 10_000, 8, 0.016, 0.995},
		{1_000, time.Second, 900, 60, 0.10, 0.99},
		{100, time.Minute, 90, 20, 1.02, 0.98},
	} {
		m := newMarket(c.quota, c.per, 3)
		trips, share := m.run(c.offered, c.windows)
		t.Logf("%6d per %-4s offered %6d: %.4f trips per request, %.3f of the ideal admitted", c.quota, c.per, c.offered, trips, share)
		if trips > c.trips || share < c.admitted {
			t.Errorf("want at most %.3f trips and at least %.3f admitted", c.trips, c.admitted)
		}
		if m.wrong != "" {
			t.Errorf("invariant 11: %s", m.wrong)
		}
		if most := windowMost(m.admitted, c.per); most > int(c.quota) {
			t.Errorf("%d in a window", most)
		}
	}
}

func windowMost(admitted []time.Duration, per time.Duration) (most int) {
	first := 0
	for i, at := range admitted {
		for admitted[first] <= at-per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}
