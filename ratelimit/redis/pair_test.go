package redis

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// A pair is the same ledger twice, in Redis and in memory.
type pair struct {
	redis  *Ledger
	memory *memory.Ledger
	now    time.Time
	ahead  time.Duration // how far the clock went since
	step   time.Duration // what each decision moves it by
	seen   coverage
}

// coverage counts what the sequences led to, to know that they lead anywhere.
type coverage map[string]int

func newPair(l *Ledger, now time.Time) *pair {
	p := &pair{redis: l, now: now, seen: coverage{}}
	p.memory = memory.New(memory.Options{Now: func() time.Time { return p.now }})
	return p
}

// fataler is what *testing.T and *rapid.T have in common here.
type fataler interface {
	Fatalf(format string, args ...any)
}

// lease asks both, the ledger in memory at the times at which Redis answered.
func (p *pair) lease(t fataler, asks []ratelimit.Ask) []ratelimit.Grant {
	grants := make([]ratelimit.Grant, len(asks))
	if err := p.redis.Lease(context.Background(), asks, grants); err != nil {
		p.refused(t, err, len(asks), func() error { return p.memory.Lease(context.Background(), asks[:1], grants[:1]) })
		return make([]ratelimit.Grant, len(asks))
	}
	p.ahead = 0
	for i := range asks {
		p.now = grants[i].Now
		want := make([]ratelimit.Grant, 1)
		if err := p.memory.Lease(context.Background(), asks[i:i+1], want); err != nil {
			t.Fatalf("memory: %v", err)
		}
		p.same(t, &asks[i], grants[i], want[0])
	}
	return grants
}

func (p *pair) peek(t fataler, a ratelimit.Ask) {
	got, err := p.redis.Peek(context.Background(), a)
	if err != nil {
		p.refused(t, err, 1, func() error {
			_, err := p.memory.Peek(context.Background(), a)
			return err
		})
		return
	}
	p.now, p.ahead = got.Now, 0
	want, err := p.memory.Peek(context.Background(), a)
	if err != nil {
		t.Fatalf("memory: %v", err)
	}
	p.same(t, &a, got, want)
}

// refused has the ledger in memory refuse what Redis did: an ask whose calendar
// is behind by more than a period.
func (p *pair) refused(t fataler, err error, asks int, ask func() error) {
	p.ahead += p.step
	p.now, p.ahead = p.now.Add(p.ahead), p.step*time.Duration(asks-1)
	if want := ask(); want == nil || !strings.Contains(err.Error(), "PERIOD") {
		t.Fatalf("redis says %v and memory %v", err, want)
	}
	p.seen["refused"]++
}

func (p *pair) stop(t fataler, organization, key string, version int64) {
	for _, l := range []ratelimit.Stopper{p.redis, p.memory} {
		if err := l.Stop(context.Background(), organization, key, version); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
}

// settle corrects both. Redis does not tell at what time it did, so that the
// clock must stand still.
func (p *pair) settle(t fataler, r ratelimit.Reservation, actual int64) {
	p.now, p.ahead = p.now.Add(p.ahead), 0
	r.Actual = actual
	errs := make([]error, 2)
	p.redis.Settle(context.Background(), []ratelimit.Reservation{r}, errs[:1])
	p.memory.Settle(context.Background(), []ratelimit.Reservation{r}, errs[1:])
	got, want := errs[0], errs[1]
	if errors.Is(want, ratelimit.ErrForgotten) != errors.Is(got, ratelimit.ErrForgotten) || (got == nil) != (want == nil) {
		t.Fatalf("%+v, %d: memory says %v and redis %v", r, actual, want, got)
	}
	p.seen["settled"]++
	if want != nil {
		p.seen["forgotten"]++
	}
}

func (p *pair) same(t fataler, a *ratelimit.Ask, got, want ratelimit.Grant) {
	if got.Limits == nil {
		got.Limits = []ratelimit.State{}
	}
	if want.Limits == nil {
		want.Limits = []ratelimit.State{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%+v (- memory, + redis):\n%s", *a, diff)
	}
	p.seen["asks"]++
	switch got.Status {
	case ratelimit.Denied:
		p.seen["denied"]++
	case ratelimit.Expired:
		p.seen["expired"]++
	case ratelimit.Stopped:
		p.seen["stopped"]++
	case ratelimit.Stale:
		p.seen["stale"]++
	case ratelimit.Lost:
		p.seen["lost"]++
	}
	if a.Limits[0].Concurrent {
		p.seen["flying"]++
	}
	p.seen["leased"] += min(1, int(got.Leased))
	p.seen["taken"] += min(1, int(got.Taken))
	if got.OthersHold {
		p.seen["others"]++
	}
}
