package ratelimit

import (
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	limits := []Limit{
		{Name: "minute", Quota: 100, Per: time.Minute},
		{Name: "month", Quota: 100_000, Start: time.Unix(0, 0), End: time.Unix(1, 0)},
	}
	const policy = `"minute";q=100;w=60, "month";q=100000`
	if got := string(AppendPolicy([]byte("x: "), limits)); got != "x: "+policy {
		t.Errorf("policy %s", got)
	}
	if got := AppendPolicy(nil, nil); len(got) != 0 {
		t.Errorf("no limits: %q", got)
	}
	for _, c := range []struct {
		name  string
		d     Decision
		want  string
		after int64
	}{
		{"the documented example", Decision{Allowed: true, Limits: []State{
			{Name: "minute", Quota: 100, Remaining: 42, NextUnit: 16*time.Second + 1},
			{Name: "month", Quota: 100_000, Remaining: 99_000, NextUnit: 86_000 * time.Second},
		}}, `"minute";r=42;t=17, "month";r=99000;t=86000`, 1},
		{"nothing spent", Decision{Allowed: true, Limits: []State{{Name: "a", Quota: 5, Remaining: 5}}}, `"a";r=5`, 1},
		{"next unit at once", Decision{Allowed: true, Limits: []State{{Name: "a", Quota: 5, Remaining: 4, NextUnit: time.Microsecond}}}, `"a";r=4;t=1`, 1},
		{"one of two violated", Decision{RetryAfter: 3*time.Second + time.Millisecond, Limits: []State{
			{Name: "a", Quota: 5, Remaining: 0, NextUnit: time.Second, RetryAfter: 3*time.Second + time.Millisecond, Violated: true},
			{Name: "b", Quota: 5, Remaining: 2, NextUnit: 9 * time.Second},
		}}, `"a";r=0;t=4, "b";r=2;t=9`, 4},
		{"both violated: the larger wait for both", Decision{RetryAfter: 9 * time.Second, Limits: []State{
			{Name: "a", Quota: 5, NextUnit: time.Second, RetryAfter: time.Second, Violated: true},
			{Name: "b", Quota: 5, NextUnit: 9 * time.Second, RetryAfter: 9 * time.Second, Violated: true},
		}}, `"a";r=0;t=9, "b";r=0;t=9`, 9},
		{"a smaller request would fit", Decision{RetryAfter: 7 * time.Second, Limits: []State{
			{Name: "a", Quota: 5, Remaining: 2, NextUnit: 2 * time.Second, RetryAfter: 7 * time.Second, Violated: true},
		}}, `"a";r=0;t=7`, 7},
		{"in less than a second", Decision{RetryAfter: time.Nanosecond, Limits: []State{
			{Name: "a", Quota: 1, NextUnit: 1, RetryAfter: 1, Violated: true},
		}}, `"a";r=0;t=1`, 1},
	} {
		if got := string(AppendState(nil, c.d)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := RetryAfterSeconds(c.d); got != c.after {
			t.Errorf("%s: Retry-After %d, want %d", c.name, got, c.after)
		}
	}
}

func TestFieldsDoNotAllocate(t *testing.T) {
	limits := []Limit{{Name: "minute", Quota: 100, Per: time.Minute}, {Name: "hour", Quota: 1000, Per: time.Hour}}
	d := Decision{Allowed: true, Limits: []State{{Name: "minute", Quota: 100, Remaining: 42, NextUnit: time.Second}, {Name: "hour", Quota: 1000, Remaining: 1000}}}
	buf := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(100, func() {
		buf = AppendPolicy(buf[:0], limits)
		buf = AppendState(buf[:0], d)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
