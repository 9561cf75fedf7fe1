package server

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"keygate/ratelimit"
)

// maxSuspects bounds the organizations in which something is held to be lost and
// the ledger has yet to be told. Above, everything is.
const maxSuspects = 1024

// suspects are the losses that this replica has noticed by itself, of which the
// markers show nothing: a lease that the ledger forgot, or a step of its clock.
type suspects struct {
	mu sync.Mutex
	// since has, for what is kept in one place ("" is everything), the time after
	// which it was lost.
	since map[string]time.Time
	more  chan struct{}
}

func newSuspects() *suspects {
	return &suspects{since: make(map[string]time.Time), more: make(chan struct{}, 1)}
}

// add is called while a request waits and does not block.
func (s *suspects) add(place string, since time.Time) {
	s.mu.Lock()
	if _, ok := s.since[place]; !ok && len(s.since) >= maxSuspects {
		place = ""
	}
	if at, ok := s.since[place]; !ok || since.After(at) {
		s.since[place] = since
	}
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default: // somebody has said so already
	}
}

// take hands over all that there is.
func (s *suspects) take() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.since
	s.since = make(map[string]time.Time)
	return taken
}

// suspect is the limiter's alarm.
func (l *losses) suspect(loss ratelimit.Loss) {
	if loss.Step < 0 {
		return // no charge ends early where the clock is set back
	}
	l.suspects.add(ratelimit.Place(loss.Organization, loss.Key), loss.Since)
}

// tell has the ledger wait where this replica knows of a loss. What Redis does not
// take in is tried again.
func (l *losses) tell(ctx context.Context) {
	for place, since := range l.suspects.take() {
		bounded, cancel := context.WithTimeout(ctx, markTimeoutAll)
		err := l.ledger.Lose(bounded, place, since)
		cancel()
		if err == nil {
			l.log.Warn("sliding limits of strict plans wait after a loss that this replica has noticed", zap.String("place", place))
			continue
		}
		l.log.Warn("the ledger could not be told of a loss; this is tried again", zap.String("place", place), zap.Error(err))
		l.suspects.add(place, since)
		select {
		case <-ctx.Done():
			return
		case <-time.After(markAgain):
		}
	}
}
