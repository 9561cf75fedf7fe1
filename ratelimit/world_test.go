package ratelimit_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// The simulated network: replicas that run the very code of the Limiter, one
// ledger, and between them messages that are lost, doubled, delayed and
// overtaken. Everything happens in one goroutine, one step at a time, and is
// determined by a seed.

// A faults says what may go wrong.
type faults struct {
	drop, double, pause, crash, drift, change bool
}

// instant is a time of the world, in microseconds.
type instant = int64

func micros(d time.Duration) instant { return d.Microseconds() }

// world is one simulated run.
type world struct {
	*rand.Rand
	faults
	violation error // the first
	now       instant
	ledger    ratelimit.Ledger
	replicas  []*replica
	asks      []message
	answers   []message
	limits    map[string]*account // by holder and name
	expiry    map[string]instant  // of sessions, as the ledger has it
	stops     map[string]stop     // by key
	rules     int64
	names     int
	period    time.Duration // of calendar quotas, if there are any
	keys      []string
	terms     [][]ratelimit.Limit // by key, in full
}

// An account is a limit with what was admitted of it.
type account struct {
	ratelimit.Limit
	period   time.Duration // of a calendar quota
	admitted []admission
}

type admission struct {
	at    instant
	units int64
}

// A stop is a change of a key that the ledger knows of.
type stop struct {
	version int64
	at      instant
}

const epoch = instant(1_700_000_000_000_000)

func newWorld(seed uint64, f faults, ledger func(func() time.Time) ratelimit.Ledger) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 1)), faults: f, now: epoch,
		limits: map[string]*account{}, expiry: map[string]instant{}, stops: map[string]stop{},
	}
	w.ledger = ledger(func() time.Time { return time.UnixMicro(w.now) })
	w.setLimits()
	for range 1 + w.IntN(4) {
		w.replicas = append(w.replicas, w.newReplica())
	}
	return w
}

func onMemory(now func() time.Time) ratelimit.Ledger { return memory.New(memory.Options{Now: now}) }

// setLimits makes two keys of one organization that share a limit. Half of the
// worlds have room for long leases, in the others windows are full.
func (w *world) setLimits() {
	scale := 1 + 9*w.IntN(2)
	limit := func(name string, least, most int) ratelimit.Limit {
		quota := least + w.IntN(most-least)
		if w.IntN(8) == 0 {
			quota = 1 + w.IntN(39) // too small for leases
		}
		return ratelimit.Limit{Name: name, Quota: int64(quota * scale), Per: time.Duration(1+w.IntN(6)) * time.Second}
	}
	if quota := w.IntN(3); quota == 0 {
		w.period = time.Duration(2+w.IntN(8)) * time.Second
	}
	own, org, second := limit("own", 40, 200), limit("org", 40, 300), limit("second", 100, 400)
	for i := range 2 {
		key := fmt.Sprint("key_", i)
		w.keys = append(w.keys, key)
		own.Holder, org.Holder, second.Holder = key, "org_a", key
		if w.period > 0 { // the last one is a calendar quota
			second.Per = 0
		}
		limits := []ratelimit.Limit{own, org, second}[:1+w.IntN(3)]
		w.terms = append(w.terms, limits)
		for _, l := range limits {
			w.limits[l.Holder+l.Name] = &account{Limit: l, period: w.period}
		}
	}
}

// inPeriod gives calendar quotas the period of a time.
func (w *world) inPeriod(limits []ratelimit.Limit, at time.Time) []ratelimit.Limit {
	for i := range limits {
		if limits[i].Per == 0 {
			l := slices.Clone(limits)
			l[i].Start = at.Truncate(w.period)
			l[i].End, l[i].NextEnd = l[i].Start.Add(w.period), l[i].Start.Add(2*w.period)
			return l
		}
	}
	return limits
}

// periods are the limits of a key as they are now.
func (w *world) periods(k int) []ratelimit.Limit {
	return w.inPeriod(w.terms[k], time.UnixMicro(w.now))
}

func (w *world) fail(format string, args ...any) {
	if w.violation == nil {
		w.violation = fmt.Errorf(format, args...)
	}
}
