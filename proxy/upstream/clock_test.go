package upstream

import (
	"testing"
	"time"

	"keygate/internal/clocktest"
)

// Who was left alone until an instant of the wall clock was left alone for an hour
// more when that clock was set back by one: targets, the breaker's clients, and dead
// connections that nobody suspected any more.
func TestClockThatIsSetBack(t *testing.T) {
	u := newTest(t, 2, func(o *Options) {
		o.Breaker = &Breaker{Failures: 50, Requests: 1, Window: time.Second, Open: time.Hour}
	})
	now := time.Now()
	u.now = func() time.Time { return now }
	out := u.targets[0]
	for range ejectAfter {
		u.failed(out, timedOut, errTest)
	}
	connections := u.Client(u.options.Timeouts).connections[0]
	connections.suspect(u.clock())
	done, err := u.breaker.allow(nil)
	if err != nil {
		t.Fatal(err)
	}
	done(errTest)

	now = clocktest.SetBack(now, 2*time.Hour)
	if _, err := u.breaker.allow(nil); err == nil || err.(*BusyError).RetryAfter > time.Hour {
		t.Errorf("the breaker, which opens for an hour: %v", err)
	}
	now = now.Add(suspectEvery)
	before := connections.current.Load()
	if connections.suspect(u.clock()); connections.current.Load() == before {
		t.Error("dead connections are kept")
	}
	if now = now.Add(ejectFor - suspectEvery - 1); out.well(u.clock()) {
		t.Error("the target is back too soon")
	}
	if now = now.Add(1); !out.well(u.clock()) {
		t.Errorf("the target is left alone for another %v", time.Duration(out.until.Load()-u.clock()))
	}
	out.answered(u.clock)
	if out.ejected.Load() != 0 {
		t.Error("what was wrong with the target is not forgotten")
	}
}
