package main

import (
	"context"
	"sync/atomic"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// contenders are the limiters that are compared, in the order of the table. Those
// of other kinds are written down as their authors describe them, in as few lines
// as show it.
func contenders() []contender {
	return []contender{
		{"fixed window", 1, func() gate { return &fixedWindow{} }},
		{"two-window approximation", 1, func() gate { return &twoWindows{} }},
		{"GCRA with a burst of L, or a token bucket of that size", 1, func() gate { return &gcra{} }},
		{"log of all instants, in a sorted set", 1, func() gate { return &instants{} }},
		{"counters on 3 nodes that tell each other once a second", compareNodes, func() gate { return &gossip{} }},
		{"token bucket of L on each of 3 nodes", compareNodes, func() gate { return &perNode{} }},
		{"keygate's leases, on 3 nodes", compareNodes, func() gate { return newLeases() }},
	}
}

// fixedWindow counts from one boundary to the next.
type fixedWindow struct {
	window time.Duration
	count  int
}

func (f *fixedWindow) admits(at time.Duration, _ int) bool {
	if window := at.Truncate(comparePer); window != f.window {
		f.window, f.count = window, 0
	}
	if f.count == compareQuota {
		return false
	}
	f.count++
	return true
}

// twoWindows takes what was counted between the last two boundaries to have been
// spread evenly.
type twoWindows struct {
	window        time.Duration
	before, count int
}

func (w *twoWindows) admits(at time.Duration, _ int) bool {
	switch window := at.Truncate(comparePer); window - w.window {
	case 0:
	case comparePer:
		w.window, w.before, w.count = window, w.count, 0
	default:
		w.window, w.before, w.count = window, 0, 0
	}
	passed := float64(at-w.window) / float64(comparePer)
	if float64(w.before)*(1-passed)+float64(w.count+1) > compareQuota {
		return false
	}
	w.count++
	return true
}

// gcra keeps the instant at which the next request would be due if all came
// evenly, and lets them come L early.
type gcra struct{ due time.Duration }

func (g *gcra) admits(at time.Duration, _ int) bool {
	const gap = comparePer / compareQuota
	due := max(g.due, at)
	if due-at > comparePer-gap {
		return false
	}
	g.due = due + gap
	return true
}

// instants is what the others are measured by.
type instants struct{ admitted []time.Duration }

func (l *instants) admits(at time.Duration, _ int) bool {
	if l.since(at) == compareQuota {
		return false
	}
	l.admitted = append(l.admitted, at)
	return true
}

// since counts what is still in the window that ends with at.
func (l *instants) since(at time.Duration) (n int) {
	for i := len(l.admitted) - 1; i >= 0 && l.admitted[i] > at-comparePer; i-- {
		n++
	}
	return n
}

// gossip counts exactly on each node, and what the others had by the last whole
// second.
type gossip struct{ nodes [compareNodes]instants }

func (g *gossip) admits(at time.Duration, node int) bool {
	total := 0
	for i := range g.nodes {
		for _, instant := range g.nodes[i].admitted {
			if instant > at-comparePer && (i == node || instant < at.Truncate(compareSync)) {
				total++
			}
		}
	}
	if total >= compareQuota {
		return false
	}
	g.nodes[node].admitted = append(g.nodes[node].admitted, at)
	return true
}

// perNode does not share anything.
type perNode struct{ nodes [compareNodes]gcra }

func (p *perNode) admits(at time.Duration, node int) bool { return p.nodes[node].admits(at, 0) }

// leases are the gateways' own limiters in front of one ledger in memory. They
// renew in goroutines of their own, which read the clock too.
type leases struct {
	now      atomic.Int64 // a time.Duration
	limiters [compareNodes]*ratelimit.Limiter
	ask      ratelimit.Ask
}

func newLeases() *leases {
	l := &leases{ask: ratelimit.Ask{
		Organization: "org_a", Key: "key_a", Limits: []ratelimit.Limit{{Name: "minute", Holder: "key_a", Quota: compareQuota, Per: comparePer}},
	}}
	clock := func() time.Time { return time.UnixMicro(0).Add(time.Hour + time.Duration(l.now.Load())) }
	ledger := memory.New(memory.Options{Now: clock})
	for i := range l.limiters {
		l.limiters[i] = ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger, Now: clock})
	}
	return l
}

func (l *leases) admits(at time.Duration, node int) bool {
	l.now.Store(int64(at))
	d, err := l.limiters[node].Decide(context.Background(), &l.ask, nil)
	return err == nil && d.Allowed
}
