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

func (t *table) find(a *Ask) *holder {
	if v, ok := t.holders.Load(a.Key); ok {
		return v.(*holder)
	}
	return nil
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
	v, there := t.holders.LoadOrStore(key, &holder{key: key})
	if there {
		t.size.Add(-1)
	}
	return v.(*holder), !there
}

func (t *table) remove(h *holder) {
	if t.holders.CompareAndDelete(h.key, h) {
		t.size.Add(-1)
	}
}
