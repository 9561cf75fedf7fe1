package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// outageLook lies between two looks at the change feed, which is read all the
	// time: an outage shows there though no request comes.
	outageLook = 250 * time.Millisecond
	// outageAgain lies between two lines about the same outage.
	outageAgain = 30 * time.Second
	// emptiedLook lies between two looks whether the store has what keygate put
	// into it at its first start.
	emptiedLook = 5 * time.Second
)

// outages tells the operator when a shared store is away and when it is back,
// and when it has lost everything, which looks healthy from everywhere else.
type outages struct {
	redis   string // its address, without a password
	feedAge func() time.Duration
	ping    func(context.Context) error
	// lost reports whether the store lacks keygate's own records.
	lost func(context.Context) (bool, error)
	log  *zap.Logger
	now  func() time.Time

	emptied atomic.Bool

	since, told, looked time.Time // of the present outage, if any
}

func newOutages(redis string, ping func(context.Context) error, feedAge func() time.Duration, lost func(context.Context) (bool, error), log *zap.Logger, r prometheus.Registerer) *outages {
	o := &outages{redis: redis, feedAge: feedAge, ping: ping, lost: lost, log: log, now: time.Now}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keygate_store_emptied", Help: "1 if the shared store lacks the records of keygate's first start: it was emptied, or is another one.",
	}, func() float64 {
		if o.emptied.Load() {
			return 1
		}
		return 0
	}))
	return o
}

// watch looks until ctx ends.
func (o *outages) watch(ctx context.Context) {
	tick := time.NewTicker(outageLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			o.look(ctx)
		}
	}
}

func (o *outages) look(ctx context.Context) {
	now, age := o.now(), o.feedAge()
	switch {
	case age > freshFor:
		if o.since.IsZero() {
			o.since = now.Add(-age)
		} else if now.Sub(o.told) < outageAgain {
			return
		}
		o.told = now
		o.log.Warn("Redis does not answer: its change feed is silent", zap.String("redis", o.redis), zap.Duration("silent_for", age.Round(time.Millisecond)), zap.Error(o.reason(ctx)))
	case !o.since.IsZero():
		o.log.Info("Redis answers again", zap.String("redis", o.redis), zap.Duration("lasted", now.Sub(o.since).Round(time.Millisecond)))
		o.since, o.looked = time.Time{}, time.Time{}
		fallthrough
	case now.Sub(o.looked) >= emptiedLook:
		o.looked = now
		o.lookForRecords(ctx)
	}
}

// reason asks what the feed's reader met; nil where the store answers this.
func (o *outages) reason(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, freshFor)
	defer cancel()
	return o.ping(ctx)
}

func (o *outages) lookForRecords(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, freshFor)
	defer cancel()
	lost, err := o.lost(ctx)
	if err != nil {
		return // an outage, which the feed tells
	}
	switch was := o.emptied.Swap(lost); {
	case lost && !was:
		o.log.Error("Redis has lost what keygate keeps there: it was emptied, or REDIS_URL leads to another one now. No key is known. Bring its data back, or restart keygate to begin anew", zap.String("redis", o.redis))
	case was && !lost:
		o.log.Info("Redis has what keygate keeps there again", zap.String("redis", o.redis))
	}
}
