package ratelimit_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// clock moves only when told.
type clock struct{ t atomic.Pointer[time.Time] }

func newClock() *clock {
	c, t := new(clock), time.UnixMicro(1_700_000_000_000_000)
	c.t.Store(&t)
	return c
}

func (c *clock) now() time.Time          { return *c.t.Load() }
func (c *clock) advance(d time.Duration) { t := c.now().Add(d); c.t.Store(&t) }

// slow is a ledger whose answers take a while and may fail.
type slow struct {
	ratelimit.Ledger
	c     *clock
	takes []time.Duration // one for each call, the last for all others
	calls atomic.Int64
	err   error
}

func (s *slow) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	took := s.takes[min(int(s.calls.Add(1)), len(s.takes))-1]
	err := s.Ledger.Lease(ctx, asks, grants)
	s.c.advance(took)
	return errors.Join(err, s.err)
}

func newLimiter(takes ...time.Duration) (*ratelimit.Limiter, *slow, *clock) {
	c := newClock()
	s := &slow{Ledger: memory.New(memory.Options{Now: c.now}), c: c, takes: append(takes, 0)}
	return ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: s, Now: c.now}), s, c
}

func limit(name string, quota int64, per time.Duration) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Holder: "key_a", Quota: quota, Per: per}
}

func asking(limits ...ratelimit.Limit) *ratelimit.Ask {
	return &ratelimit.Ask{Organization: "org_a", Key: "key_a", Limits: limits}
}

func TestDecide(t *testing.T) {
	l, s, c := newLimiter()
	ask := asking(limit("minute", 1, time.Minute), limit("hour", 10, time.Hour))
	d, err := l.Decide(t.Context(), ask, nil)
	if err != nil || !d.Allowed || d.RetryAfter != 0 || len(d.Limits) != 2 || d.Limits[0].Name != "minute" || d.Limits[1].Remaining != 9 {
		t.Fatalf("%+v, %v", d, err)
	}
	first := d.Limits[0]
	c.advance(time.Second)
	p, err := l.Peek(t.Context(), ask)
	if err != nil || p.Allowed || p.RetryAfter != 59*time.Second+ratelimit.CallTimeout {
		t.Fatalf("peek: %+v, %v", p, err)
	}
	if d, err = l.Decide(t.Context(), ask, nil); err != nil || d.Allowed || d.RetryAfter != p.RetryAfter || !d.Limits[0].Violated || d.Limits[1].Violated {
		t.Fatalf("%+v, %v", d, err)
	}
	if d.Limits[0] == first {
		t.Fatal("decisions share memory")
	}
	ask.Cost = 9
	ask.Limits = ask.Limits[1:]
	if d, err = l.Decide(t.Context(), ask, nil); err != nil || !d.Allowed || d.Limits[0].Remaining != 0 {
		t.Fatalf("cost 9 of 9: %+v, %v", d, err)
	}
	calls := s.calls.Load()
	if d, err = l.Decide(t.Context(), asking(), nil); err != nil || !d.Allowed || d.Limits != nil || s.calls.Load() != calls {
		t.Fatalf("no limits: %+v, %v", d, err)
	}
	if d, err = l.Peek(t.Context(), asking()); err != nil || !d.Allowed {
		t.Fatalf("no limits: %+v, %v", d, err)
	}
}

// An answer counts only below D(1-2ρ), here 49.9 ms, after the ask was sent: the
// ledger forgets it as if it had been admitted no later than D. What came too
// late stays spent.
func TestLateAnswersAreBurnt(t *testing.T) {
	const inTime = 49900*time.Microsecond - 1
	for _, c := range []struct {
		name        string
		takes       []time.Duration
		err         error
		left, burnt int64
	}{
		{"just in time", []time.Duration{inTime}, nil, 9, 0},
		{"a moment late, then in time", []time.Duration{inTime + 1, 0}, nil, 8, 1},
		{"late twice", []time.Duration{time.Second, inTime + 1}, ratelimit.ErrLate, 8, 2},
	} {
		l, s, _ := newLimiter(c.takes...)
		ask := asking(limit("minute", 10, time.Minute))
		d, err := l.Decide(t.Context(), ask, nil)
		if !errors.Is(err, c.err) || d.Allowed != (c.err == nil) || int(s.calls.Load()) != len(c.takes) {
			t.Errorf("%s: %+v, %v, %d calls", c.name, d, err, s.calls.Load())
		}
		p, _ := l.Peek(t.Context(), ask)
		if p.Limits[0].Remaining != c.left || l.Burnt() != uint64(c.burnt) {
			t.Errorf("%s: %d left, %d burnt", c.name, p.Limits[0].Remaining, l.Burnt())
		}
	}
}

// A denial is true however late it comes.
func TestLateDenial(t *testing.T) {
	l, _, _ := newLimiter(0, time.Second)
	ask := asking(limit("minute", 1, time.Minute))
	_, _ = l.Decide(t.Context(), ask, nil)
	if d, err := l.Decide(t.Context(), ask, nil); err != nil || d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
}

func TestDecideFails(t *testing.T) {
	l, s, _ := newLimiter()
	s.err = errors.New("connection refused")
	if d, err := l.Decide(t.Context(), asking(limit("minute", 1, time.Minute)), nil); !errors.Is(err, s.err) || d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := l.Decide(t.Context(), asking(limit("month", 1, 0)), nil); err == nil {
		t.Fatalf("calendar quota: %v", err)
	}
	if _, err := l.Peek(t.Context(), asking(limit("month", 1, 0))); err == nil {
		t.Fatalf("calendar quota: %v", err)
	}
}

// A client that waits exactly the whole seconds of Retry-After, or the t of the
// violated item, is admitted if nobody else spends, whatever came before and
// however many limits there are; and no earlier wait in whole seconds would do, but
// where the limiter meanwhile gave back what was left of a lease, which nobody knew.
func TestRetryAfterIsTrue(t *testing.T) {
	told, early := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		l, _, c := newLimiter()
		c.advance(time.Duration(rapid.IntRange(0, 999_999_999).Draw(t, "origin")))
		var limits []ratelimit.Limit
		for i := range rapid.IntRange(1, 4).Draw(t, "limits") {
			limits = append(limits, limit(strconv.Itoa(i), rapid.Int64Range(3, 100).Draw(t, "quota"), time.Duration(rapid.IntRange(1, 90).Draw(t, "per"))*time.Second))
			if rapid.Bool().Draw(t, "shared") {
				limits[i].Holder = "org_a"
			}
		}
		for range rapid.IntRange(50, 200).Draw(t, "requests") {
			ask := asking(limits...)
			ask.Cost = rapid.Int64Range(0, 3).Draw(t, "cost")
			if rapid.IntRange(0, 3).Draw(t, "other") == 0 {
				ask.Limits = limits[:1] // of a key with fewer limits
			}
			d, err := l.Decide(context.Background(), ask, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				c.advance(time.Duration(rapid.IntRange(0, 700_000_000).Draw(t, "pause")))
				continue
			}
			told++
			after := ratelimit.RetryAfterSeconds(d)
			if field := string(ratelimit.AppendState(nil, d)); !strings.Contains(field, ";r=0;t="+strconv.FormatInt(after, 10)) {
				t.Fatalf("Retry-After %d, RateLimit %s", after, field)
			}
			if after > 1 {
				c.advance(time.Duration(after-1)*time.Second - time.Microsecond)
				if p, _ := l.Peek(context.Background(), ask); p.Allowed {
					early++
				}
				c.advance(time.Second + time.Microsecond)
			} else {
				c.advance(time.Second)
			}
			if d, err = l.Decide(context.Background(), ask, nil); err != nil || !d.Allowed {
				t.Fatalf("waited %d s and got %+v, %v", after, d, err)
			}
		}
	})
	if early > told/100 {
		t.Errorf("%d of %d would have been admitted before the last second", early, told)
	}
}

func BenchmarkDecide(b *testing.B) {
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: memory.New(memory.Options{})})
	ask := asking(limit("minute", ratelimit.MaxQuota, time.Minute), limit("hour", ratelimit.MaxQuota, time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		if d, err := l.Decide(context.Background(), ask, nil); err != nil || !d.Allowed {
			b.Fatal(err)
		}
	}
}

// A stopped key is told apart from a ledger that fails, and costs nothing.
func TestDecideStopped(t *testing.T) {
	l, s, _ := newLimiter()
	ask := asking(limit("minute", 2, time.Minute))
	ask.Version = 1
	if err := s.Ledger.(ratelimit.Stopper).Stop(t.Context(), ask.Organization, ask.Key, 3); err != nil {
		t.Fatal(err)
	}
	_, decided := l.Decide(t.Context(), ask, nil)
	_, peeked := l.Peek(t.Context(), ask)
	for _, err := range []error{decided, peeked} {
		var stopped *ratelimit.StoppedError
		if !errors.As(err, &stopped) || stopped.Version != 3 {
			t.Fatalf("error %v", err)
		}
	}
	ask.Version = 3
	if d, err := l.Decide(t.Context(), ask, nil); err != nil || !d.Allowed || d.Limits[0].Remaining != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
}

// failing is a ledger that is away.
type failing struct {
	ratelimit.Ledger
	err error
}

var errAway = errors.New("away")

func (f failing) Lease(context.Context, []ratelimit.Ask, []ratelimit.Grant) error { return f.err }

// generous grants everything.
type generous struct{ ratelimit.Ledger }

func (generous) Lease(_ context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	grants[0] = ratelimit.Grant{Status: ratelimit.Granted, Taken: asks[0].Take, Admit: ratelimit.CallTimeout, Limits: grants[0].Limits[:0]}
	return nil
}

// TestOutage: only an open plan is decided without the ledger, and says so.
func TestOutage(t *testing.T) {
	l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: failing{err: errAway}, Local: generous{}})
	ask := ratelimit.Ask{Key: "key_1", Limits: []ratelimit.Limit{{Name: "minute", Holder: "key_1", Quota: 1, Per: time.Minute}}}
	if d, err := l.Decide(t.Context(), &ask, nil); !errors.Is(err, errAway) || d.Allowed {
		t.Errorf("strict: %+v %v", d, err)
	}
	ask.Open = true
	if d, err := l.Decide(t.Context(), &ask, nil); err != nil || !d.Allowed || d.Degraded != ratelimit.DegradedLocal {
		t.Errorf("open: %+v %v", d, err)
	}
	if l.Degraded() != 1 {
		t.Errorf("%d decisions counted", l.Degraded())
	}
}

// What took too long is counted, whichever deadline was over first.
func TestLate(t *testing.T) {
	ask := asking(limit("minute", 1, time.Minute))
	for err, want := range map[error]uint64{
		context.DeadlineExceeded:                              1,
		&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}: 1,
		errAway: 0,
	} {
		l := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: failing{err: err}})
		if _, got := l.Decide(t.Context(), ask, nil); !errors.Is(got, err) || l.Late() != want {
			t.Errorf("%v: %v, %d counted as late, want %d", err, got, l.Late(), want)
		}
	}
}
