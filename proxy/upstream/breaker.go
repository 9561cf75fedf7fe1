package upstream

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
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
	refusals atomic.Uint64
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
			return int64(done) >= int64(o.Requests) && int64(c.TotalFailures)*100 >= int64(o.Failures)*int64(done)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNoVerdict) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.since.Store(clock())
			}
		},
	})
	return b
}

// allow returns what is to be told how the request went.
func (b *breaker) allow() (func(error), error) {
	done, err := b.Allow()
	if err == nil {
		return done, nil
	}
	b.refusals.Add(1)
	wait := b.open - time.Duration(b.clock()-b.since.Load())
	return nil, &BusyError{Open: true, RetryAfter: max(wait, 0)}
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
