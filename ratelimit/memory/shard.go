package memory

import (
	"slices"
	"strings"
	"sync"

	"keygate/ratelimit"
)

// sweepEvery is after how many asks one holder is looked at that need not be in
// use: a cache miss, so rarely. Two more are looked at for each one added, so
// that at most twice the holders in use are ever kept.
const sweepEvery = 16

// A shard keeps all holders of the organizations that hash to it, so that an
// ask about a key and its organization takes one lock.
type shard struct {
	mu      sync.Mutex
	holders map[holderKey]*holder
	marks   map[markKey]mark // of stopped keys
	order   []*holder        // the same ones, to walk over
	hand    int              // where in order the next sweep goes on
	asks    uint
	step    step // reused under mu: a decision allocates nothing
	_       [64]byte
}

// lease answers an ask, unless it returns claims: then nothing was decided, and it
// is to be asked again when they are on the disk. claimed are those that are by now.
// Without decide it only looks for claims.
func (sh *shard) lease(l *Ledger, a *ratelimit.Ask, g *ratelimit.Grant, claimed []claim, decide bool) (claims []claim, err error) {
	clock, wall := l.time()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l.closed.Load() {
		return nil, errClosed // what is decided from now on may not be saved
	}
	if !a.Release && sh.stopped(clock, a, g) {
		return nil, nil
	}
	before := len(sh.order)
	sh.locate(a)
	sh.step.ask, sh.step.grant, sh.step.lostAt = a, g, l.lostAt.Load()
	sh.step.present(clock, wall)
	if !sh.step.stale() {
		if err = sh.step.begin(); err == nil {
			if l.journal != nil {
				sh.step.claimed(claimed)
				claims = sh.step.ahead()
			}
			if decide && claims == nil {
				sh.step.lease()
			}
		}
	}
	sh.leave(clock, before)
	return claims, err
}

// leave forgets what the step's holders need not keep, and looks at a few others;
// there were so many before.
func (sh *shard) leave(clock int64, before int) {
	sweep := 2 * (len(sh.order) - before)
	for _, h := range sh.step.holders {
		if h.empty() {
			sh.forget(h)
		}
	}
	if sh.asks++; sh.asks%sweepEvery == 0 {
		sweep++
	}
	sh.sweep(clock, sweep)
	sh.step.ask, sh.step.grant = nil, nil
}

func (sh *shard) peek(l *Ledger, a *ratelimit.Ask, g *ratelimit.Grant) error {
	clock, wall := l.time()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.stopped(clock, a, g) {
		return nil
	}
	s := step{ask: a, grant: g, lostAt: l.lostAt.Load()}
	for k := range a.Limits {
		key := keyOf(a, &a.Limits[k])
		n := slices.IndexFunc(s.holders, func(h *holder) bool { return h.key == key })
		if n < 0 {
			n = len(s.holders)
			s.holders = append(s.holders, sh.holders[key].copy(key))
		}
		s.places = append(s.places, place{h: s.holders[n]})
	}
	if s.present(clock, wall); s.stale() {
		return nil
	}
	if err := s.begin(); err != nil {
		return err
	}
	s.peek()
	return nil
}

// locate finds the holder of every limit, and makes it where it is missing.
func (sh *shard) locate(a *ratelimit.Ask) {
	s := &sh.step
	s.places, s.holders = s.places[:0], s.holders[:0]
	for k := range a.Limits {
		l := &a.Limits[k]
		var h *holder
		for _, other := range s.holders {
			if other.key.holder == l.Holder {
				h = other
			}
		}
		if h == nil {
			h = sh.holder(keyOf(a, l))
			s.holders = append(s.holders, h)
		}
		s.places = append(s.places, place{h: h})
	}
}

func placeOf(a *ratelimit.Ask) string { return ratelimit.Place(a.Organization, a.Key) }

func (sh *shard) holder(key holderKey) *holder {
	if h := sh.holders[key]; h != nil {
		return h
	}
	// The strings may be parts of something larger that should not be kept.
	key.place, key.holder = strings.Clone(key.place), strings.Clone(key.holder)
	h := &holder{key: key, slot: len(sh.order)}
	sh.holders[key] = h
	sh.order = append(sh.order, h)
	return h
}

func (sh *shard) forget(h *holder) {
	last := len(sh.order) - 1
	sh.order[h.slot] = sh.order[last]
	sh.order[h.slot].slot = h.slot
	sh.order[last] = nil
	sh.order = sh.order[:last]
	delete(sh.holders, h.key)
}

// sweep looks at n holders and forgets those that nothing is charged to.
func (sh *shard) sweep(clock int64, n int) {
	for ; n > 0 && len(sh.order) > 0; n-- {
		if sh.hand >= len(sh.order) {
			sh.hand = 0
		}
		if h := sh.order[sh.hand]; h.end <= clock {
			sh.forget(h) // the last one takes its slot
		} else {
			sh.hand++
		}
	}
}
