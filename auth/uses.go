package auth

import (
	"context"
	"sync/atomic"
	"time"

	"keygate/internal/keys"
)

// A use of a key is a request whose key was found and in force, whatever was
// decided about the request after that: a client that is refused with 403 or
// 429 uses its key all the same. Requests to the management API count too.

const (
	// usesEvery lies between two writes of what was collected.
	usesEvery = 5 * time.Second
	// usesTimeout bounds one write, usesLast what the end waits for all.
	usesTimeout = 2 * time.Second
	usesLast    = 2 * time.Second
	// maxUsesQueued bounds the uses that nobody took over yet, maxUsesPending
	// those that the store has not got yet.
	maxUsesQueued  = 8192
	maxUsesPending = 32_768
	usesBatch      = 500
)

// UseStore is where uses are written to.
type UseStore interface {
	Used(ctx context.Context, uses []keys.Use) error
}

// uses passes uses from requests to whoever writes them.
type uses struct {
	queue   chan keys.Use
	dropped *atomic.Uint64
	every   time.Duration
}

func newUses(dropped *atomic.Uint64) *uses {
	return &uses{queue: make(chan keys.Use, maxUsesQueued), dropped: dropped, every: usesEvery}
}

// note passes on a use unless one of the same key within the last minute was
// passed on or is in the store. Every request comes here: usually it is one load.
func (u *uses) note(e *entry, h keys.Hash, now time.Time) {
	last, at := e.used.Load(), now.UnixNano()
	// A clock that was set back must not silence a key until it has caught up.
	if since := time.Duration(at - last); since >= 0 && since < keys.UseEvery || !e.used.CompareAndSwap(last, at) {
		return
	}
	select {
	case u.queue <- use(&e.record, h, now):
	default:
		u.dropped.Add(1)
	}
}

// use tells the secret only of a key that has two.
func use(r *record, h keys.Hash, now time.Time) keys.Use {
	u := keys.Use{Key: r.key.ID, At: now.UTC().Truncate(time.Microsecond)}
	if r.secret.several {
		u.Secret = h
	}
	return u
}

// lastUse is the last use that the store knew of when the key was read, in
// nanoseconds of Unix time; 0 if there is none.
func lastUse(f *keys.Found) int64 {
	at := f.Key.LastUsedAt
	if len(f.Key.Secrets) > 1 {
		at = f.Key.Secrets[f.Secret].LastUsedAt
	}
	if at.IsZero() {
		return 0
	}
	return at.UnixNano()
}

// RecordUses writes to the store when keys were used, until ctx ends; then it
// writes what is left. What the store does not take is offered again, as far as
// there is room: a use that is lost makes a key look idle for longer than it is,
// and nothing else.
func (a *Authenticator) RecordUses(ctx context.Context, store UseStore) {
	w := &useWriter{uses: a.uses, store: store, pending: make(map[useID]time.Time)}
	tick := time.NewTicker(a.uses.every)
	defer tick.Stop()
	for {
		select {
		case u := <-w.queue:
			w.add(u)
		case <-tick.C:
			w.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), usesLast)
			defer cancel()
			w.drain()
			w.flush(last)
			return
		}
	}
}

// useWriter collects uses and writes them, the newest of each key and secret.
type useWriter struct {
	*uses
	store   UseStore
	pending map[useID]time.Time
	batch   []keys.Use
}

type useID struct {
	key    string
	secret keys.Hash
}

func (w *useWriter) add(u keys.Use) {
	id := useID{u.Key, u.Secret}
	at, ok := w.pending[id]
	if !ok && len(w.pending) >= maxUsesPending {
		w.dropped.Add(1)
		return
	}
	if u.At.After(at) {
		w.pending[id] = u.At
	}
}

// drain takes over what waits at the moment.
func (w *useWriter) drain() {
	for range len(w.queue) {
		w.add(<-w.queue)
	}
}

// flush writes as many uses as there are when it begins, and stops at the first
// batch that fails.
func (w *useWriter) flush(ctx context.Context) {
	for left := len(w.pending); left > 0; left -= len(w.batch) {
		w.batch = w.batch[:0]
		for id, at := range w.pending {
			if w.batch = append(w.batch, keys.Use{Key: id.key, Secret: id.secret, At: at}); len(w.batch) == usesBatch {
				break
			}
		}
		if err := w.write(ctx); err != nil {
			return
		}
		for _, u := range w.batch {
			delete(w.pending, useID{u.Key, u.Secret})
		}
		w.drain() // a slow store must not make requests drop theirs
	}
}

func (w *useWriter) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, usesTimeout)
	defer cancel()
	return w.store.Used(ctx, w.batch)
}
