package ratelimit_test

import (
	"context"
	"slices"

	"keygate/ratelimit"
)

// A message is an ask on its way, or the answer to it. Leases that are given
// back have no round.
type message struct {
	from  *replica
	key   string
	round *ratelimit.Round
	ask   ratelimit.Ask
	grant ratelimit.Grant
}

// take picks a message at random, or the latest, which leaves another copy behind
// at times.
func (w *world) take(from *[]message, latest bool) (m message, ok bool) {
	if len(*from) == 0 {
		return m, false
	}
	i := 0
	switch {
	case latest:
		i = len(*from) - 1
	case w.drop || w.double:
		i = w.IntN(len(*from))
	}
	m = (*from)[i]
	if !w.double || w.IntN(6) > 0 {
		*from = slices.Delete(*from, i, i+1)
	}
	return m, !w.drop || w.IntN(12) > 0
}

// deliver brings an ask to the ledger.
func (w *world) deliver(latest bool) {
	m, ok := w.take(&w.asks, latest)
	if !ok {
		return
	}
	grants := make([]ratelimit.Grant, 1)
	if err := w.ledger.Lease(context.Background(), []ratelimit.Ask{m.ask}, grants); err != nil {
		if w.period == 0 { // else it came so late that its period is long over
			w.fail("%v", err)
		}
		if r := m.from; m.round != nil {
			again := r.Fail(m.key, m.round, err)
			r.takeReturns()
			r.settleWaiters(&m)
			r.due[m.key] = r.due[m.key] || again
		}
		return
	}
	m.grant = grants[0]
	if g := &m.grant; g.TTL > 0 {
		id := m.ask.Session
		if g.Status == ratelimit.Expired {
			id = m.ask.NextSession
		}
		w.expiry[id] = max(w.expiry[id], g.Now.UnixMicro()+micros(g.TTL))
	}
	if m.round != nil {
		w.answers = append(w.answers, m)
	}
}

// receive brings an answer back.
func (w *world) receive(latest bool) {
	m, ok := w.take(&w.answers, latest)
	if !ok {
		return
	}
	r := m.from
	r.mayPause()
	g := m.grant
	if !r.accepts(&m, &g) {
		return
	}
	r.settleWaiters(&m)
}
