package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keygate/internal/keys"
)

// remembered: the answer to a change is kept with it until its time is over: by
// the store's clock for who asks, by the change's for who changes.
func remembered(w *world) {
	ctx := w.Context()
	now := time.Now().UTC().Truncate(time.Microsecond) // of the stores' clocks
	r := keys.Remembered{ID: "key_1 retry O'Brien \x00 🔑", Digest: "sha256:1", Answer: []byte("{\"a\": 1}\x00\xff\n"), Until: now.Add(time.Hour)}
	fails[keys.Remembered](w, "before", keys.ErrNotFound)(w.s.Remembered(ctx, r.ID))
	end := w.end()
	w.apply(keys.Mutation{At: now, Settings: []keys.Setting{{Name: "mode", Value: "one"}}, Remember: &r})
	same(w, "Remembered", r)(w.s.Remembered(ctx, r.ID))
	fails[keys.Remembered](w, "another", keys.ErrNotFound)(w.s.Remembered(ctx, "key_1"))
	w.told("a change that is remembered", end, keys.Change{Kind: keys.KindSetting, ID: "mode", Version: 1})

	// Who asks again is told so first of all, whatever else is wrong by now.
	taken := &keys.ExistsError{Kind: "request", Field: "id", Value: r.ID}
	again := keys.Mutation{At: now, Settings: []keys.Setting{{Name: "mode", Value: "one"}}, Remember: &r}
	w.refuses("the same again", again, taken)
	other := r
	other.Digest, other.Answer, other.Until = "sha256:2", nil, now.Add(2*time.Hour)
	change := keys.Mutation{At: r.Until.Add(-time.Microsecond), Organizations: []keys.Organization{w.organization("acme")}, Audit: []keys.AuditEntry{w.audit("x")}, Remember: &other}
	w.refuses("another under its name, a moment before the end", change, taken)
	fails[keys.Organization](w, "what it would have made", keys.ErrNotFound)(w.s.Organization(ctx, "acme"))
	same(w, "after the attempts", r)(w.s.Remembered(ctx, r.ID))

	change.At = r.Until
	w.apply(change)
	same(w, "another under its name, at the end", other)(w.s.Remembered(ctx, r.ID))
	same(w, "Setting", keys.Setting{Name: "mode", Value: "one", Version: 1})(w.s.Setting(ctx, "mode"))

	// What is refused is not remembered.
	r.ID = "refused"
	w.refuses("a change that fails", keys.Mutation{At: now, Settings: []keys.Setting{{Name: "mode"}}, Remember: &r}, &keys.ExistsError{Kind: "setting", Field: "name", Value: "mode"})
	fails[keys.Remembered](w, "a change that fails", keys.ErrNotFound)(w.s.Remembered(ctx, r.ID))
	w.apply(keys.Mutation{At: now, Remember: &r}) // and nothing else
	same(w, "no change", r)(w.s.Remembered(ctx, r.ID))
}

// forgotten: once its time is over nobody learns of an answer, however many
// there were.
func forgotten(w *world) {
	ctx := w.Context()
	past := time.Now().Add(-time.Hour)
	var last string
	for i := range 30 {
		last = fmt.Sprint("request ", i)
		w.apply(keys.Mutation{At: past.Add(-time.Hour), Remember: &keys.Remembered{ID: last, Until: past.Add(time.Duration(i))}})
		fails[keys.Remembered](w, last, keys.ErrNotFound)(w.s.Remembered(ctx, last))
	}
	now := time.Now()
	short := keys.Remembered{ID: "short", Until: now.Add(700 * time.Millisecond).UTC().Truncate(time.Microsecond)}
	w.apply(keys.Mutation{At: now, Remember: &short})
	if got, err := w.s.Remembered(ctx, short.ID); err != nil && time.Now().Before(short.Until) {
		w.Errorf("before the end: %+v, %v", got, err)
	}
	time.Sleep(time.Until(short.Until) + 50*time.Millisecond)
	fails[keys.Remembered](w, "after the end", keys.ErrNotFound)(w.s.Remembered(ctx, short.ID))
	short.Until = time.Now().Add(time.Hour)
	w.apply(keys.Mutation{At: time.Now(), Remember: &short})
	short.Until = short.Until.UTC().Truncate(time.Microsecond)
	same(w, "the next under its name", short)(w.s.Remembered(ctx, short.ID))
}

// oneRequestWins: of changes under the same name exactly one is made.
func oneRequestWins(w *world) {
	const clients, rounds = 8, 3
	now := time.Now()
	for round := range rounds {
		id := fmt.Sprint("round ", round)
		won := -1
		for i, err := range inParallel(clients, func(i int) error {
			r := keys.Remembered{ID: id, Answer: []byte(fmt.Sprint(i)), Until: now.Add(time.Hour)}
			return w.try(keys.Mutation{At: now, Settings: []keys.Setting{{Name: fmt.Sprint(id, " client ", i)}}, Remember: &r})
		}) {
			var e *keys.ExistsError
			switch {
			case err == nil && won < 0:
				won = i
			case !errors.As(err, &e) || e.Kind != "request" || e.Value != id:
				w.Errorf("%s, client %d: %v; client %d won", id, i, err, won)
			}
		}
		kept, err := w.s.Remembered(context.Background(), id)
		if err != nil || string(kept.Answer) != fmt.Sprint(won) {
			w.Errorf("%s: kept %q, error %v; client %d won", id, kept.Answer, err, won)
		}
		for i := range clients {
			if _, err := w.s.Setting(context.Background(), fmt.Sprint(id, " client ", i)); (err == nil) != (i == won) {
				w.Errorf("%s: what client %d wrote: %v; client %d won", id, i, err, won)
			}
		}
	}
}
