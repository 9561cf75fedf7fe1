package ratelimit_test

import (
	"testing"
	"time"

	"keygate/ratelimit"
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
