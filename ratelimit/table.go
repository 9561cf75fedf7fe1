package ratelimit

import (
	"strings"
	"sync"
	"sync/atomic"
)

// DefaultHolders is how many keys a [Limiter] holds leases, denials and demand
// of unless told otherwise: less than 1 GiB of them.
const DefaultHolders = 1 << 20

// table finds the holder of a key without a lock.
type table struct {
	holders sync.Map // of key to *holder
	size    atomic.Int64
	max     int64
}

// A Handle leads a [Limiter] to what it holds of one key, in a tenth of the time
// that a look in its table takes: whoever keeps the key's data keeps one beside it
// and hands it in with Ask.Handle. The zero value leads nowhere yet. It belongs to
// one key and one Limiter. Safe for concurrent use.
type Handle struct{ at atomic.Pointer[anchor] }

// An anchor is all that a handle keeps alive of a holder that has been forgotten:
// handles are kept for as long as keys are remembered, which is much longer.
type anchor struct{ holder atomic.Pointer[holder] } // nil: forgotten

func (t *table) find(a *Ask) *holder {
	if a.Handle != nil {
		if at := a.Handle.at.Load(); at != nil {
			if h := at.holder.Load(); h != nil {
				return h
			}
		}
	}
	v, ok := t.holders.Load(a.Key)
	if !ok {
		return nil
	}
	h := v.(*holder)
	if a.Handle != nil {
		a.Handle.at.Store(h.anchor)
	}
	return h
}

// add returns the holder of a key, made if need be; nil if there is no room.
func (t *table) add(a *Ask) (h *holder, made bool) {
	if h := t.find(a); h != nil {
		return h, false
	}
	if t.size.Add(1) > t.max {
		t.size.Add(-1)
		return nil, false
	}
	key := strings.Clone(a.Key) // it may be part of something larger that should not be kept
	v, there := t.holders.LoadOrStore(key, newHolder(key))
	if there {
		t.size.Add(-1)
	}
	return v.(*holder), !there
}

func (t *table) remove(h *holder) {
	if t.holders.CompareAndDelete(h.key, h) {
		t.size.Add(-1)
	}
	h.anchor.holder.Store(nil)
}
