package proof

import (
	"math"
	"slices"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// An admission is seen from outside: it happened after the client began to send
// the request and before the upstream had it, since a gateway admits a request
// before it forwards it. Both instants come from the same monotonic clock, that of
// this process, which is client and upstream at once.
type admission struct{ after, before time.Duration }

// most bounds how many admissions the fullest window of length per held, one that
// has its beginning and not its end.
//
// atLeast is proven: so many lie with both their instants in one window, so that
// no reading of a clock and no slow machine can have moved them there. Only more
// than the quota in atLeast is a violation. It cannot be invented, but it may hide
// one, by as many admissions as there are under way at a window's edges. atMost
// counts those as well: it is what the window can have held at most, and a quota
// that it does not exceed was certainly kept.
func most(all []admission, per time.Duration) (atLeast, atMost int) {
	begun := slices.SortedFunc(slices.Values(all), func(a, b admission) int { return int(a.after - b.after) })
	ended := make([]int, len(begun)) // positions in begun, in the order of before
	for i := range ended {
		ended[i] = i
	}
	slices.SortFunc(ended, func(i, j int) int { return int(begun[i].before - begun[j].before) })

	// A window that proves the most begins where an admission can have begun.
	within, next := 0, 0
	counted := make([]bool, len(begun))
	for first, edge := range begun {
		for ; next < len(ended) && begun[ended[next]].before < edge.after+per; next++ {
			if i := ended[next]; i >= first {
				counted[i] = true
				within++
			}
		}
		atLeast = max(atLeast, within)
		if counted[first] {
			within--
		}
	}
	// One that can have held the most begins where an admission must have ended.
	for earlier, i := range ended {
		edge := begun[i].before + per
		atMost = max(atMost, sort.Search(len(begun), func(j int) bool { return begun[j].after >= edge })-earlier)
	}
	return atLeast, atMost
}

// log is the ideal limiter, which remembers every instant.
type log struct{ admitted []time.Duration }

func (l *log) admits(at time.Duration, quota int, per time.Duration) bool {
	if n := len(l.admitted); n >= quota && l.admitted[n-quota] > at-per {
		return false
	}
	l.admitted = append(l.admitted, at)
	return true
}

func TestWindow(t *testing.T) {
	at := func(instants ...time.Duration) (all []admission) {
		for _, i := range instants {
			all = append(all, admission{i, i})
		}
		return all
	}
	for name, c := range map[string]struct {
		all             []admission
		atLeast, atMost int
	}{
		"nothing":                        {nil, 0, 0},
		"exactly a window apart":         {at(0, 10), 1, 1},
		"less than a window apart":       {at(0, 9), 2, 2},
		"at one instant":                 {at(5, 5, 5), 3, 3},
		"may be less than a window":      {[]admission{{0, 3}, {11, 12}}, 1, 2},
		"must be, though slow":           {[]admission{{0, 3}, {4, 9}}, 2, 2},
		"so slow that nothing is proven": {[]admission{{0, 20}, {0, 20}}, 0, 2},
	} {
		if atLeast, atMost := most(c.all, 10); atLeast != c.atLeast || atMost != c.atMost {
			t.Errorf("%s: %d to %d, want %d to %d", name, atLeast, atMost, c.atLeast, c.atMost)
		}
	}
}

// Wherever the admissions really were, the fullest window lies within the bounds;
// and both are what looking at every window gives.
func TestWindowBoundsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const per = 10
		var seen, truth []admission
		for range rapid.IntRange(0, 30).Draw(t, "admissions") {
			at := time.Duration(rapid.IntRange(0, 50).Draw(t, "at"))
			truth = append(truth, admission{at, at})
			seen = append(seen, admission{
				at - time.Duration(rapid.IntRange(0, 12).Draw(t, "sent before")), at + time.Duration(rapid.IntRange(0, 12).Draw(t, "arrived after")),
			})
		}
		atLeast, atMost := most(seen, per)
		exact, same := most(truth, per)
		if exact != same || atLeast > exact || atMost < exact {
			t.Fatalf("%d to %d by sight, %d or %d in truth", atLeast, atMost, exact, same)
		}
		inside, touching := 0, 0
		for begin := time.Duration(-20); begin < 70; begin++ {
			in, touch := 0, 0
			for _, a := range seen {
				if a.after >= begin && a.before < begin+per {
					in++
				}
				if a.after < begin+per && a.before >= begin {
					touch++
				}
			}
			inside, touching = max(inside, in), max(touching, touch)
		}
		if atLeast != inside || atMost != touching {
			t.Fatalf("%d to %d, by looking at every window %d to %d", atLeast, atMost, inside, touching)
		}
	})
}

// The ideal never has more than the quota in a window, and refuses only where one more would be.
func TestIdeal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const per = 10
		quota := rapid.IntRange(1, 5).Draw(t, "quota")
		var l log
		var now time.Duration
		var admitted []admission
		for range 40 {
			now += time.Duration(rapid.IntRange(0, 4).Draw(t, "gap"))
			with := append(slices.Clone(admitted), admission{now, now})
			full, _ := most(with, per)
			if got := l.admits(now, quota, per); got != (full <= quota) {
				t.Fatalf("at %d admitted: %v, with %d in a window of %d", now, got, full, quota)
			} else if got {
				admitted = with
			}
		}
	})
}

// share is what part of b a is.
func share(a, b int) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}
