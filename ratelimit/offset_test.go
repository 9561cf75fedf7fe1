package ratelimit_test

import (
	"context"
	"testing"
	"time"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// Of the ledger's clock, drift and slow answers are no steps; neither is a step
// of this process's wall clock, nor a sleep of the machine.
func TestClockWatch(t *testing.T) {
	const second = time.Second
	type reading struct {
		wait, trip, ledger time.Duration // the ledger's clock gains so much over this
	}
	for name, c := range map[string]struct {
		readings []reading
		step     time.Duration // of the last one
	}{
		"steady":         {[]reading{{0, 0, 0}, {second, 0, second}, {second, 0, second}}, 0},
		"drift":          {[]reading{{0, 0, 0}, {100 * second, 0, 100*second + 90*time.Millisecond}, {100 * second, 0, 100*second + 90*time.Millisecond}}, 0},
		"a slow answer":  {[]reading{{0, 0, 0}, {second, 3 * second, second + 2*second}, {second, 0, second + second}}, 0},
		"forward":        {[]reading{{0, 0, 0}, {second, 0, 31 * second}}, 30 * second},
		"back":           {[]reading{{0, 0, 0}, {second, 0, -29 * second}}, -30 * second},
		"after the step": {[]reading{{0, 0, 0}, {second, 0, 31 * second}, {second, 0, second}}, 0},
	} {
		var w ratelimit.ClockWatch
		now, ledger, step := time.UnixMicro(epoch), time.UnixMicro(epoch).Add(time.Hour), time.Duration(0)
		for _, r := range c.readings {
			now, ledger = now.Add(r.wait), ledger.Add(r.ledger)
			sent := now
			now = now.Add(r.trip)
			step = w.Note(sent, now, ledger)
		}
		if d := step - c.step; d.Abs() > 10*time.Millisecond {
			t.Errorf("%s: a step of %s, want %s", name, step, c.step)
		}
	}
	// A reading of both clocks, of which the wall clock is set: Add moves both,
	// UnixMicro has only the wall.
	var w ratelimit.ClockWatch
	at := time.Now()
	w.Note(at, at, at.Round(0))
	if step := w.Note(at.Add(second), at.Add(second), at.Round(0).Add(61*second)); step < 59*second {
		t.Errorf("a step of the ledger's clock alone: %s", step)
	}
}

// nodes is a ledger on two machines.
type nodes struct {
	ratelimit.Ledger // unused
	of               map[string]*memory.Ledger
}

func (n nodes) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	return n.of[asks[0].Organization].Lease(ctx, asks, grants)
}

func (n nodes) Clock(place string) (uint32, bool) { return uint32(place[len(place)-1]), false }

// The clocks of a cluster's nodes differ by some milliseconds. Each answer of another
// node than the last seemed to be a clock that was set, and strict plans waited for a
// loss that there never was, again and again. A node whose clock is set concerns what
// is kept there.
func TestClocksOfACluster(t *testing.T) {
	c := newClock()
	ahead := 20 * time.Millisecond
	l := nodes{of: map[string]*memory.Ledger{
		"org_a": memory.New(memory.Options{Now: c.now}),
		"org_b": memory.New(memory.Options{Now: func() time.Time { return c.now().Add(ahead) }}),
	}}
	var alarms []ratelimit.Loss
	limiter := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: l, Now: c.now, Alarm: func(l ratelimit.Loss) { alarms = append(alarms, l) }})
	ask := func() {
		for _, place := range []string{"a", "b"} {
			c.advance(time.Second)
			if _, err := limiter.Decide(t.Context(), of(place, 30), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask()
	ask()
	if len(alarms) > 0 {
		t.Fatalf("%+v", alarms)
	}
	ahead = 2 * time.Second
	ask()
	if len(alarms) != 1 || alarms[0].Organization != "org_b" || alarms[0].Step < time.Second {
		t.Errorf("%+v", alarms)
	}
}
