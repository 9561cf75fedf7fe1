package ratelimit

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// A schedule knows which holder is to be looked at next: one heap for all of
// them rather than a timer for each. A renewal does not move a holder; it is
// found to be early when its turn comes.
type schedule struct {
	mu     sync.Mutex
	heap   dueFirst
	sooner chan struct{} // the first one changed
}

// set has a holder looked at when due is reached, or earlier.
func (s *schedule) set(h *holder, due time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h.slot == 0:
		h.due = due
		heap.Push(&s.heap, h)
	case due < h.due:
		h.due = due
		heap.Fix(&s.heap, h.slot-1)
	}
	if s.heap[0] == h {
		select {
		case s.sooner <- struct{}{}:
		default: // somebody has said so already
		}
	}
}

// next takes out a holder that is due, or says when the first one will be.
func (s *schedule) next(now time.Duration) (h *holder, due time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.heap) == 0 {
		return nil, never
	}
	if first := s.heap[0]; first.due > now {
		return nil, first.due
	}
	return heap.Pop(&s.heap).(*holder), 0
}

type dueFirst []*holder

func (d dueFirst) Len() int           { return len(d) }
func (d dueFirst) Less(i, j int) bool { return d[i].due < d[j].due }

func (d dueFirst) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].slot, d[j].slot = i+1, j+1
}

func (d *dueFirst) Push(x any) {
	h := x.(*holder)
	h.slot = len(*d) + 1
	*d = append(*d, h)
}

func (d *dueFirst) Pop() any {
	last := len(*d) - 1
	h := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	h.slot = 0
	return h
}

const (
	// looks are at least this far apart, so that what is due travels together.
	leastPause = 10 * time.Millisecond
	mostPause  = time.Minute
)

// Run looks after the leases until ctx ends: it reports and prolongs those in
// use, gives back the others and forgets idle keys. Then it gives back all, for
// no longer than closeTimeout. Without it leases end unreported, which costs
// budget but lets nobody through.
func (l *Limiter) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.close()
			return
		case <-l.schedule.sooner:
			timer.Reset(leastPause)
		case <-timer.C:
			timer.Reset(min(max(l.look(), leastPause), mostPause))
		}
	}
}

// look looks at all holders that are due and returns how long until the next is.
func (l *Limiter) look() time.Duration {
	now := l.sinceStart()
	for {
		h, due := l.schedule.next(now)
		if h == nil {
			return due - now
		}
		h.mu.Lock()
		send, after, idle := h.tick(&l.client)
		if h.dropped = idle; idle {
			l.table.remove(h)
		}
		h.mu.Unlock()
		if send {
			l.courier.send(h)
		}
		if !idle {
			l.schedule.set(h, now+after)
		}
	}
}

// closeTimeout bounds what the end of a process waits for the ledger.
const closeTimeout = 2 * time.Second

// close gives back all leases. Requests that are still decided after it are
// taken one by one.
func (l *Limiter) close() {
	l.closing.Store(true)
	l.table.holders.Range(func(_, v any) bool {
		h := v.(*holder)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.terms != nil {
			h.retire(&l.client, l.now())
		}
		return true
	})
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	l.courier.drain(ctx)
}
