package ratelimit_test

import (
	"os"
	"strconv"
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
	runs := uint64(2_000)
	if full {
		runs = 20_000
	}
	for seed := range runs {
		if err := simulate(seed, everything, onMemory); err != nil {
			t.Fatalf("SIM_SEED=%d: %v", seed, err)
		}
	}
}
