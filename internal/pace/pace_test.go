package pace

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whoever is waited for longer than Wait beyond what his bytes need at Rate, from
// whatever moment on, is too slow; nobody else is.
func TestSlowerThanRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Pace{Wait: time.Duration(rapid.IntRange(1, 60_000).Draw(t, "wait")) * time.Millisecond, Rate: rapid.IntRange(1, 10_000).Draw(t, "rate")}
		left := p.Wait
		var debts []time.Duration // at each moment before, what was waited beyond what was earned since
		for left > 0 && len(debts) < 50 {
			waited := time.Duration(rapid.IntRange(0, 20_000).Draw(t, "waited")) * time.Millisecond
			bytes := rapid.IntRange(0, 50_000).Draw(t, "bytes")
			earned := time.Duration(bytes) * time.Second / time.Duration(p.Rate)
			left = p.Left(left, waited, bytes)
			debts = append(debts, 0)
			worst := time.Duration(0)
			for i := range debts {
				debts[i] += waited - earned
				worst = max(worst, debts[i])
			}
			if left != p.Wait-worst {
				t.Fatalf("%v left of %v, want %v: debts %v", left, p.Wait, p.Wait-worst, debts)
			}
		}
	})
}

func TestWithoutRate(t *testing.T) {
	p := Pace{Wait: time.Minute}
	left := p.Wait
	for range 100 {
		if left = p.Left(left, 59*time.Second, 1); left != time.Minute {
			t.Fatalf("a byte wins back all: %v", left)
		}
	}
	if left = p.Left(left, time.Minute, 0); left > 0 {
		t.Errorf("nothing wins back nothing: %v", left)
	}
}
