package memory

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
)

// exactLog is the reference: every admission with the last instant it may have
// happened at, for each limit.
type exactLog struct {
	quota, per int64
	booked     []entry // until is the instant
	distinct   int     // charges that the ledger would have to keep apart
}

func (e *exactLog) room(now int64) int64 {
	room, kept := e.quota, e.booked[:0]
	e.distinct = 0
	for _, b := range e.booked {
		if b.until+e.per > now {
			room -= b.count
			if n := len(kept); n == 0 || kept[n-1].until != b.until {
				e.distinct++
			}
			kept = append(kept, b)
		}
	}
	e.booked = kept
	return room
}

// retry is when cost units fit.
func (e *exactLog) retry(now, cost int64) (at int64, ok bool) {
	room := e.room(now)
	for _, b := range e.booked {
		if room >= cost {
			break
		}
		room += b.count
		at = b.until + e.per
	}
	return at, room >= cost
}

// Random asks of two keys of one organization, over several limits and a clock
// that jumps: what is taken is exactly what an exact sliding log has room for,
// the states say the truth, and no window ever holds more than its quota,
// whenever within D the requests were admitted.
func TestTakeIsAnExactSlidingLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, c := newLedger()
		limit := rapid.Custom(func(t *rapid.T) ratelimit.Limit {
			return ratelimit.Limit{
				Quota: rapid.SampledFrom([]int64{1, 2, 3, 10, 70, 200}).Draw(t, "quota"),
				Per:   time.Duration(rapid.IntRange(1, 10).Draw(t, "per")) * time.Second,
			}
		})
		own, org := limit.Draw(t, "own"), limit.Draw(t, "org")
		second := limit.Draw(t, "second")
		own.Name, second.Name, org.Name, org.Holder = "own", "second", "org", "org_a"
		keys := [2][]ratelimit.Limit{}
		logs := map[string]*exactLog{}
		admitted := map[string]*admissions{}
		for k := range keys {
			keys[k] = []ratelimit.Limit{own, org, second}
			keys[k][0].Holder = fmt.Sprint("key_", k)
			keys[k][2].Holder = fmt.Sprint("key_", k)
			for _, l := range keys[k] {
				logs[l.Holder+l.Name] = &exactLog{quota: l.Quota, per: l.Per.Microseconds()}
				admitted[l.Holder+l.Name] = &admissions{}
			}
		}
		merged := false
		for range rapid.IntRange(50, 250).Draw(t, "steps") {
			limits := keys[rapid.IntRange(0, 1).Draw(t, "key")]
			cost := rapid.Int64Range(1, 3).Draw(t, "cost")
			a := takeAsk(cost*rapid.Int64Range(1, 3).Draw(t, "requests"), limits...)
			a.Cost = cost
			now := l.clock()
			want := a.Take / cost
			for _, l := range limits {
				log := logs[l.Holder+l.Name]
				want = min(want, max(0, log.room(now))/cost)
				merged = merged || log.distinct > maxEntries
			}
			g := ask(t, l, a)
			if g.Taken > want*cost || (!merged && g.Taken != want*cost) {
				t.Fatalf("taken %d of %d, the log has room for %d", g.Taken, a.Take, want*cost)
			}
			for _, l := range limits {
				if g.Taken > 0 {
					log := logs[l.Holder+l.Name]
					log.booked = append(log.booked, entry{now + callTimeout, g.Taken})
					late := rapid.Int64Range(0, callTimeout-1).Draw(t, "late")
					admitted[l.Holder+l.Name].add(now+late, g.Taken)
				}
			}
			wait := int64(0)
			for i, s := range g.Limits {
				log := logs[limits[i].Holder+limits[i].Name]
				checkState(t, log, s, now, cost, g.Taken < a.Take, merged)
				wait = max(wait, s.RetryAfter.Microseconds())
			}
			switch rapid.IntRange(0, 5).Draw(t, "pause") {
			case 0, 1: // at once
			case 2:
				c.advance(time.Duration(rapid.IntRange(1, 300_000).Draw(t, "short")) * time.Microsecond)
			case 3:
				c.advance(time.Duration(rapid.IntRange(1, 30_000_000).Draw(t, "jump")) * time.Microsecond)
			default: // exactly as long as the ledger says, and ask the same again
				c.advance(time.Duration(wait) * time.Microsecond)
				if wait > 0 && cost <= own.Quota && cost <= org.Quota && cost <= second.Quota {
					a.Take = cost
					if g := ask(t, l, a); g.Taken != cost {
						t.Fatalf("waited %dµs as told, and got %+v", wait, g)
					}
					now := l.clock()
					for _, l := range limits {
						log := logs[l.Holder+l.Name]
						log.booked = append(log.booked, entry{now + callTimeout, cost})
						admitted[l.Holder+l.Name].add(now, cost)
					}
				}
			}
		}
		for name, log := range logs {
			if most := admitted[name].most(log.per); most > log.quota {
				t.Fatalf("limit %s: %d admitted in a window, allowed are %d", name, most, log.quota)
			}
		}
	})
}

// checkState compares a state with the log after the decision.
func checkState(t *rapid.T, log *exactLog, s ratelimit.State, now, cost int64, short, merged bool) {
	room := log.room(now)
	if s.Remaining < 0 || s.Remaining > s.Quota || s.Remaining > max(0, room) {
		t.Fatalf("%+v, the log has %d", s, room)
	}
	if (s.NextUnit == 0) != (s.Remaining == s.Quota) {
		t.Fatalf("%+v: next unit is given unless nothing is spent", s)
	}
	if s.Violated && !short || !s.Violated && s.RetryAfter != 0 {
		t.Fatalf("%+v: short %v", s, short)
	}
	if merged {
		return
	}
	if s.Remaining != max(0, room) || s.Violated != (short && room < cost) {
		t.Fatalf("%+v: the log has %d", s, room)
	}
	if at, ok := log.retry(now, s.Remaining+1); ok && s.NextUnit.Microseconds() != at-now {
		t.Fatalf("%+v: the log grows in %dµs", s, at-now)
	}
	if at, ok := log.retry(now, cost); s.Violated && ok && s.RetryAfter.Microseconds() != at-now {
		t.Fatalf("%+v: the log fits the cost in %dµs", s, at-now)
	}
}
