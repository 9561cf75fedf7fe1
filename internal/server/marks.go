package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// A changed key is marked at the ledger, so that its next limited request is
// looked at anew even by a replica whose change feed is dead. The mark is a
// second line of defence: a change is acknowledged without it, and it is tried
// again for a while.
const (
	markTimeout = 100 * time.Millisecond
	markTries   = 30
	markPause   = time.Second
	maxMarks    = 10_000 // waiting to be tried again
)

// marker writes stop marks.
type marker struct {
	stopper ratelimit.Stopper
	log     *zap.Logger
	again   chan mark
	failed  prometheus.Counter
}

type mark struct {
	change keys.Change
	tries  int
}

func newMarker(s ratelimit.Stopper, log *zap.Logger, r prometheus.Registerer) *marker {
	m := &marker{
		stopper: s, log: log, again: make(chan mark, maxMarks),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keygate_stop_marks_lost_total", Help: "Changed keys that could not be marked at the ledger; replicas learn of them from the change feed alone.",
		}),
	}
	r.MustRegister(m.failed)
	return m
}

// changed marks a key that was there before.
func (m *marker) changed(c keys.Change) {
	if c.Kind != keys.KindKey || c.Version == 1 {
		return
	}
	if c.Version == 0 { // deleted: no version is new enough
		c.Version = ratelimit.MaxVersion
	}
	m.try(mark{change: c})
}

func (m *marker) try(k mark) {
	ctx, cancel := context.WithTimeout(context.Background(), markTimeout)
	defer cancel()
	err := m.stopper.Stop(ctx, k.change.Organization, k.change.ID, k.change.Version)
	if err == nil {
		return
	}
	if k.tries++; k.tries < markTries {
		select {
		case m.again <- k:
			return
		default: // full
		}
	}
	m.failed.Inc()
	m.log.Warn("a changed key could not be marked at the ledger", zap.String("key_id", k.change.ID), zap.Error(err))
}

func (m *marker) retry(ctx context.Context) {
	tick := time.NewTicker(markPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range len(m.again) {
			m.try(<-m.again)
		}
	}
}

// marks is what the service tells of changes that were made, nil where no
// ledger is shared.
func marks(back *backing, log *zap.Logger, r prometheus.Registerer, cleanUp *cleanUps) func(keys.Change) {
	if back.stopper == nil {
		return nil
	}
	m := newMarker(back.stopper, log, r)
	cleanUp.add(inBackground(m.retry))
	return m.changed
}
