package ratelimit_test

import (
	"testing"
	"time"

	"keygate/ratelimit"
)

// What is remembered of a large request says too little once a small one has
// spent of a limit that had enough.
func TestTrapDenialOfALargeRequest(t *testing.T) {
	burst := limit("burst", 10, time.Second)
	l := newLine(t, burst, minute(30))
	for range 2 {
		l.get(10)
		l.advance(2 * time.Second)
	}
	l.get(8) // 2 left of both
	l.cost = 3
	l.get(1) // refused by both
	l.cost = 2
	l.get(1)
	l.cost = 3
	d, w, _, _ := l.Request(l.ask())
	if w != nil {
		l.exchange()
		d, _, _ = ratelimit.Answer(w)
	}
	if d.Allowed || d.RetryAfter < 50*time.Second {
		t.Fatalf("%+v", d)
	}
}

// A denial is remembered until it is over, and counted as such; who waits as
// long as it says is admitted.
func TestTrapDenialMemory(t *testing.T) {
	l := newLine(t, limit("second", 5, time.Second))
	l.get(5)
	l.get(1)
	trips := l.Counts().Remembered.Load()
	for range 4 {
		l.advance(200 * time.Millisecond)
		d, w, _, err := l.Request(l.ask())
		if err != nil || w != nil || d.Allowed {
			t.Fatalf("%+v, %v, waits %t", d, err, w != nil)
		}
	}
	if n := l.Counts().Remembered.Load() - trips; n != 4 {
		t.Fatalf("%d remembered", n)
	}
	l.advance(250 * time.Millisecond)
	if l.get(1) != 1 {
		t.Fatal("refused after the wait")
	}
}

// While others hold units a denial is remembered for a hundredth of the window.
func TestTrapDenialWhileOthersHold(t *testing.T) {
	l := newLine(t, minute(40))
	other := *l.ask()
	other.Session, other.NextSession, other.Want, other.Cost = "other", "next", 2, 1
	l.lease(other)
	l.get(40)
	_, w, _, _ := l.Request(l.ask())
	if w != nil {
		t.Fatal("not remembered")
	}
	l.advance(600 * time.Millisecond)
	if _, w, _, _ = l.Request(l.ask()); w == nil {
		t.Fatal("remembered for longer than a hundredth of the window")
	}
}
