package upstream

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// BusyError is a request that was not sent, to spare the upstream.
type BusyError struct {
	// Open says that the breaker holds requests back; else too many are under way.
	Open       bool
	RetryAfter time.Duration
}

func (e *BusyError) Error() string {
	if e.Open {
		return fmt.Sprintf("the upstream's breaker is open for another %s", e.RetryAfter)
	}
	return "the upstream has max_concurrent requests under way"
}

// breaker leaves an upstream alone while too many of its requests fail.
type breaker struct {
	*gobreaker.TwoStepCircuitBreaker[struct{}]
	open     time.Duration
	clock    func() int64
	since    atomic.Int64 // when it opened, by the clock
	probing  atomic.Bool  // one request is let through, to see whether the upstream is well
	refusals atomic.Uint64
	notices  notices

	// Of what opens it; its own lock guards both.
	counts gobreaker.Counts
	failed error // the last failure
}

// errNoVerdict is what a request that ended for its client's sake tells the
// breaker: nothing about the upstream.
var errNoVerdict = errors.New("the client ended the request")

// breakerBuckets is in how many steps the window slides.
const breakerBuckets = 10

// newBreaker's clock counts nanoseconds.
func newBreaker(o Breaker, clock func() int64) *breaker {
	b := &breaker{open: o.Open, clock: clock}
	b.TwoStepCircuitBreaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Interval:     o.Window,
		BucketPeriod: o.Window / breakerBuckets,
		Timeout:      o.Open,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			done := c.TotalSuccesses + c.TotalFailures
			b.counts = c
			return int64(done) >= int64(o.Requests) && int64(c.TotalFailures)*100 >= int64(o.Failures)*int64(done)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNoVerdict) },
		IsSuccessful: func(err error) bool {
			if err != nil {
				b.failed = err
			}
			return err == nil
		},
		OnStateChange: b.changed,
	})
	return b
}

// changed is called under the breaker's lock.
func (b *breaker) changed(_ string, from, to gobreaker.State) {
	b.probing.Store(to == gobreaker.StateHalfOpen)
	switch to {
	case gobreaker.StateOpen:
		b.since.Store(b.clock())
		if from == gobreaker.StateHalfOpen {
			b.notices.say(zapcore.WarnLevel, "an upstream's breaker is open again: the request that tried failed too", zap.Duration("for", b.open), zap.Error(b.failed))
			return
		}
		b.notices.say(zapcore.WarnLevel, "an upstream's breaker opens: too many requests failed", zap.Uint32("failures", b.counts.TotalFailures),
			zap.Uint32("requests", b.counts.TotalSuccesses+b.counts.TotalFailures), zap.Duration("for", b.open), zap.Error(b.failed))
	case gobreaker.StateHalfOpen:
		b.notices.say(zapcore.InfoLevel, "an upstream's breaker is half open: one request may try")
	default:
		b.notices.say(zapcore.InfoLevel, "an upstream's breaker closes: the request that tried was answered")
	}
}

// allow returns what is to be told how the request went. Its body may be nil.
func (b *breaker) allow(body *Body) (func(error), error) {
	done, err := b.Allow()
	if err == nil {
		if body != nil && b.probing.Load() {
			return b.probe(done, body), nil
		}
		return done, nil
	}
	b.refusals.Add(1)
	return nil, b.busy()
}

// busy is what a request gets that is held back.
func (b *breaker) busy() *BusyError {
	wait := b.open - time.Duration(b.clock()-b.since.Load())
	return &BusyError{Open: true, RetryAfter: max(wait, 0)}
}

// holdsBack reports whether allow would refuse a request.
func (b *breaker) holdsBack() bool {
	switch b.State() {
	case gobreaker.StateOpen:
		return true
	case gobreaker.StateHalfOpen:
		c := b.Counts()
		return c.Requests > c.TotalExclusions // one is trying
	}
	return false
}

// probe is a request with a body that is to show whether the upstream is well, while
// all others are kept out.
type probe struct {
	mu    sync.Mutex
	done  func(error) // nil: it was called
	body  *Body
	timer *time.Timer
}

// probe bounds for how long. A client that takes its time with the body shows nothing,
// and whoever sends a byte now and then would keep the others out for good: after the
// time that the breaker is open the next request may try.
func (b *breaker) probe(done func(error), body *Body) func(error) {
	p := &probe{done: done, body: body}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(b.open, func() { p.review(b.open) })
	return p.tell
}

func (p *probe) tell(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done != nil {
		p.timer.Stop()
		p.done(err)
		p.done = nil
	}
}

func (p *probe) review(again time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.done == nil:
	case p.body.whole.Load():
		p.timer.Reset(again) // it is the upstream's turn, which has its time-outs
	default:
		p.done(errNoVerdict)
		p.done = nil
	}
}

// budget lets retries be a share of the requests, and a few more so that an
// upstream with little traffic has some. In hundredths of a retry.
type budget struct {
	percent int64
	balance atomic.Int64
}

const (
	oneRetry  = 100
	mostSaved = 10 * oneRetry
)

func (b *budget) init(percent int) {
	if b.percent = int64(percent); b.percent > 0 {
		b.balance.Store(mostSaved)
	}
}

// earn is called for each request.
func (b *budget) earn() {
	if b.percent > 0 && b.balance.Load() < mostSaved {
		b.balance.Add(b.percent) // several at once may save a little more
	}
}

// spend reports whether there may be one more retry.
func (b *budget) spend() bool {
	for {
		now := b.balance.Load()
		if now < oneRetry {
			return false
		}
		if b.balance.CompareAndSwap(now, now-oneRetry) {
			return true
		}
	}
}
