package ratelimit_test

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

var full = os.Getenv("KEYGATE_TEST_FULL") != ""

var everything = faults{drop: true, double: true, pause: true, crash: true, drift: true, change: true}

// TestInvariants holds the invariants of docs/limits.md over many runs on a
// network that loses, doubles, delays and reorders, with replicas that crash,
// stop, drift, and change their policy. SIM_SEED repeats one run.
func TestInvariants(t *testing.T) {
	if s := os.Getenv("SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if err := simulate(seed, everything, onMemory); err != nil {
			t.Fatal(err)
		}
		return
	}
	runs := uint64(1_000)
	if full {
		runs = 20_000
	}
	var next atomic.Uint64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for !t.Failed() {
				seed := next.Add(1)
				if seed > runs {
					return
				}
				if err := simulate(seed, everything, onMemory); err != nil {
					t.Errorf("SIM_SEED=%d: %v", seed, err)
				}
			}
		})
	}
	all.Wait()
}

// The runs must reach what the invariants are about, or they would hold of
// nothing.
func TestInvariantsAreReached(t *testing.T) {
	var leased, burnt, released, remembered, renewals, fullWindows, stopped uint64
	for seed := range uint64(200) {
		w := newWorld(seed, everything, onMemory)
		for range 300 {
			w.step()
		}
		for _, r := range w.replicas {
			n := r.Counts()
			leased += uint64(r.Spent())
			burnt += n.Burnt.Load()
			released += n.Released.Load()
			remembered += n.Remembered.Load()
			renewals += n.Renewals.Load()
		}
		for _, a := range w.limits {
			if a.most() > a.Quota*9/10 {
				fullWindows++
			}
		}
		stopped += uint64(len(w.stops))
	}
	t.Logf("%d leased, %d burnt, %d released, %d remembered, %d renewals, %d full windows, %d keys stopped", leased, burnt, released, remembered, renewals, fullWindows, stopped)
	for name, n := range map[string]uint64{
		"units leased": leased, "units burnt": burnt, "leases given back": released, "denials remembered": remembered,
		"renewals": renewals, "full windows": fullWindows, "keys stopped": stopped,
	} {
		if n < 30 {
			t.Errorf("%d %s", n, name)
		}
	}
}
