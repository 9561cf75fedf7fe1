package memory

import (
	"slices"
	"time"

	"keygate/ratelimit"
)

// fakeClock starts at an instant with no monotonic reading and moves only when told.
type fakeClock struct{ t time.Time }

func (c *fakeClock) now() time.Time          { return c.t }
func (c *fakeClock) advance(d time.Duration) { c.t = c.t.Add(d) }
func newClock() *fakeClock                   { return &fakeClock{t: time.UnixMicro(1_700_000_000_000_000)} }
func newLedger() (*Ledger, *fakeClock)       { c := newClock(); return New(Options{Now: c.now}), c }

func key(name string, quota int64, per time.Duration) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Holder: "key_a", Quota: quota, Per: per}
}

func shared(name string, quota int64, per time.Duration) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Holder: "org_a", Quota: quota, Per: per}
}

// takeAsk is the exact path's ask for n requests of cost 1.
func takeAsk(n int64, limits ...ratelimit.Limit) ratelimit.Ask {
	return ratelimit.Ask{Organization: "org_a", Key: "key_a", Limits: limits, Take: n, Cost: 1}
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func ask(t failer, l *Ledger, a ratelimit.Ask) ratelimit.Grant {
	t.Helper()
	grants := make([]ratelimit.Grant, 1)
	if err := l.Lease(nilContext{}, []ratelimit.Ask{a}, grants); err != nil {
		t.Fatalf("Lease: %v", err)
	}
	return grants[0]
}

func peek(t failer, l *Ledger, limits ...ratelimit.Limit) ratelimit.Grant {
	t.Helper()
	g, err := l.Peek(nilContext{}, takeAsk(0, limits...))
	if err != nil {
		t.Fatalf("Peek: %v", err)
	}
	return g
}

// nilContext never ends.
type nilContext struct{}

func (nilContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (nilContext) Done() <-chan struct{}       { return nil }
func (nilContext) Err() error                  { return nil }
func (nilContext) Value(any) any               { return nil }

// charged is what is held against a limit at the ledger's present time.
func charged(l *Ledger, organization, holder, name string) int64 {
	a := ratelimit.Ask{Organization: organization}
	h := l.shard(&a).holders[holderKey{organization, holder, false}]
	if h == nil {
		return 0
	}
	h = h.copy(h.key)
	h.advance(max(h.hwm, l.clock()))
	i := h.index(name)
	if i < 0 {
		return h.leased()
	}
	return h.budgets[i].spent + h.leased()
}

// sessionOf is what the ledger knows of a session, nil if nothing.
func sessionOf(l *Ledger, organization, holder, id string) *session {
	a := ratelimit.Ask{Organization: organization}
	if h := l.shard(&a).holders[holderKey{organization, holder, false}]; h != nil {
		return h.session(id)
	}
	return nil
}

// admissions is a log of what was let through and when.
type admissions []entry

// add keeps the log in order of time; in entries here, until is the instant.
func (a *admissions) add(at, count int64) {
	i := len(*a)
	for i > 0 && (*a)[i-1].until > at {
		i--
	}
	*a = slices.Insert(*a, i, entry{at, count})
}

// most is the largest number admitted in any window (t-per, t].
func (a admissions) most(per int64) (most int64) {
	sum, first := int64(0), 0
	for _, e := range a {
		sum += e.count
		for a[first].until <= e.until-per {
			sum -= a[first].count
			first++
		}
		most = max(most, sum)
	}
	return most
}

// mostOf is the largest number admitted in any of the periods [k·period, (k+1)·period).
func (a admissions) mostOf(period int64) (most int64) {
	sums := map[int64]int64{}
	for _, e := range a {
		sums[e.until/period] += e.count
		most = max(most, sums[e.until/period])
	}
	return most
}

// since is the number admitted in (now-per, now].
func (a admissions) since(now, per int64) (sum int64) {
	for _, e := range a {
		if e.until > now-per && e.until <= now {
			sum += e.count
		}
	}
	return sum
}
