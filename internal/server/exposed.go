package server

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"keygate/internal/keys"
)

const (
	// exposedAgain is how long one key is not reported a second time.
	exposedAgain = time.Hour
	// maxExposed bounds the keys that wait to be reported, and those that are
	// remembered as reported.
	maxExposed     = 1024
	exposedTimeout = 5 * time.Second
)

// exposures reports keys that were sent where others can read them: once an hour
// in the audit log, and if so configured it pauses them.
type exposures struct {
	service *keys.Service
	pause   bool
	log     *zap.Logger
	now     func() time.Time

	queue    chan sighting
	dropped  prometheus.Counter
	reported map[exposure]time.Time
}

// sighting is an exposure and who sent the key.
type sighting struct {
	exposure
	client netip.Addr
}

// exposure is a key, by its id, and where it was seen.
type exposure struct{ key, where string }

func newExposures(pause bool, log *zap.Logger, r prometheus.Registerer, now func() time.Time) *exposures {
	e := &exposures{
		pause: pause, log: log, now: now,
		queue: make(chan sighting, maxExposed), reported: make(map[exposure]time.Time),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keygate_exposures_dropped_total", Help: "Exposed keys that were not written to the audit log because too many waited or the store did not take them; they are reported when they are seen again.",
		}),
	}
	r.MustRegister(e.dropped)
	return e
}

// note has a key reported. It does not block.
func (e *exposures) note(key, where string, client netip.Addr) {
	select {
	case e.queue <- sighting{exposure{key, where}, client}:
	default:
		e.dropped.Inc()
	}
}

// run reports until ctx ends.
func (e *exposures) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case seen := <-e.queue:
			e.report(ctx, seen)
		}
	}
}

func (e *exposures) report(ctx context.Context, seen sighting) {
	now, key, by := e.now(), seen.key, keys.System
	if seen.client.IsValid() {
		by.Address = seen.client.String()
	}
	if last, ok := e.reported[seen.exposure]; ok && now.Sub(last) < exposedAgain && now.After(last) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exposedTimeout)
	defer cancel()
	err := e.service.ReportExposed(ctx, by, key, seen.where)
	if err == nil && e.pause {
		_, err = e.service.PauseKey(ctx, by, key)
		if _, over := errors.AsType[*keys.StateError](err); over {
			err = nil // it does not work any more
		}
	}
	if err != nil {
		e.dropped.Inc()
		e.log.Warn("an exposed key could not be reported", zap.String("key_id", key), zap.Error(err))
		return
	}
	how := map[string]string{"plain_http": "over plain HTTP", "url": "in a URL"}[seen.where]
	e.log.Warn("an API key was sent "+how+" and must be taken as exposed", zap.String("key_id", key), zap.Stringer("client.address", seen.client), zap.Bool("paused", e.pause))
	e.remember(seen.exposure, now)
}

// remember makes room by forgetting what is oldest.
func (e *exposures) remember(seen exposure, now time.Time) {
	if len(e.reported) >= maxExposed {
		oldest := seen
		for other, at := range e.reported {
			if at.Before(e.reported[oldest]) || oldest == seen {
				oldest = other
			}
		}
		delete(e.reported, oldest)
	}
	e.reported[seen] = now
}
