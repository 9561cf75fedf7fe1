package memory

import (
	"testing"
	"time"

	"keygate/ratelimit"
)

// sleep has the machine sleep: the wall clock goes on, the ledger's stands still.
func (c *fakeClock) sleep(l *Ledger, d time.Duration) {
	c.advance(d)
	l.base -= d.Microseconds()
}

// A machine that has slept, or whose wall clock was put right after the start, has the
// quotas of the day that it is. The day used to end as much later, and where that was a
// whole one the quota never became new: what was spent went from day to day.
func TestQuotasGoByTheWallClock(t *testing.T) {
	for _, asleep := range []time.Duration{0, 90 * time.Minute, 8 * time.Hour, 50 * time.Hour, 400 * 24 * time.Hour} {
		dir, c := t.TempDir(), newClock()
		l, _ := reopen(t, dir, c)
		day := ratelimit.Limit{Name: "day", Holder: "key_a", Quota: 10, Period: ratelimit.Day}
		hour := key("hour", 100, time.Hour)
		take := func(n int64) ratelimit.Grant {
			t.Helper()
			return ask(t, l, takeAsk(n, day.In(c.now()), hour))
		}
		wants := func(want int64) {
			t.Helper()
			g := take(20)
			left := day.In(c.now()).End.Sub(c.now())
			if s := g.Limits[0]; g.Taken != want || s.Remaining != 0 || s.NextUnit != left || s.RetryAfter != left {
				t.Fatalf("asleep for %s: %+v, want %d, and the next in %s", asleep, g, want, left)
			}
		}
		c.advance(day.In(c.now()).End.Sub(c.now()) - 3*time.Hour) // 21:00
		take(4)
		c.sleep(l, asleep)
		if asleep < 3*time.Hour {
			wants(6)
			c.advance(day.In(c.now()).End.Sub(c.now()))
		}
		wants(10)
		for range 3 {
			c.advance(day.In(c.now()).End.Sub(c.now()) - time.Microsecond)
			wants(0)
			c.advance(time.Microsecond)
			wants(10)
		}
		// Neither an orderly restart nor a crash brings the day's quota back, nor takes the
		// next one.
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = reopen(t, dir, c)
		wants(0)
		c.sleep(l, asleep)
		if asleep >= 24*time.Hour {
			wants(10)
		}
		l, _ = reopen(t, dir, c)
		if asleep < 8*time.Hour || asleep >= 24*time.Hour {
			wants(0)
		}
		c.advance(day.In(c.now()).End.Sub(c.now()))
		wants(10)
	}
}

// A correction of what was charged on the day before returns nothing to this one.
func TestCorrectionOverTheWallClocksMidnight(t *testing.T) {
	l, c := newLedger()
	day := ratelimit.Limit{Name: "day", Holder: "key_a", Quota: 10, Period: ratelimit.Day}
	r := ratelimit.Reservation{Organization: "org_a", Key: "key_a", Session: "c", Reserved: 5, At: c.now()}
	ask(t, l, takeAsk(5, day.In(c.now())))
	c.sleep(l, 24*time.Hour)
	ask(t, l, takeAsk(5, day.In(c.now())))
	r.Limits = []ratelimit.Limit{day.In(c.now())}
	if err := l.settle(&r); err != nil {
		t.Fatal(err)
	}
	if g := peek(t, l, day.In(c.now())); g.Limits[0].Remaining != 5 {
		t.Errorf("%+v", g)
	}
}
