package storetest

import (
	"context"
	"testing"
	"time"

	"keygate/internal/keys"
)

// reopen: what was acknowledged is there again, and the feed goes on.
func reopen(w *world) {
	if w.h.Reopen == nil {
		w.Skip("the engine keeps nothing")
	}
	ctx := w.Context()
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	gone := w.create(w.key(n.account))[0]
	w.apply(keys.Mutation{DeleteKeys: []keys.Key{gone}, Audit: []keys.AuditEntry{w.audit("key.delete")}, Settings: []keys.Setting{{Name: "mode", Value: "x"}}})
	kept := keys.Remembered{ID: "request", Digest: "d", Answer: []byte("a"), Until: time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)}
	w.apply(keys.Mutation{At: time.Now(), Remember: &kept})
	end := w.end()
	log, err := w.auditLog(ctx, keys.Page{Limit: 9})
	if err != nil {
		w.Fatal(err)
	}
	changes := w.since(0)

	w.s = w.h.Reopen(w.T)
	same(w, "Lookup", keys.Found{Key: k, Organization: n.organization, Grants: []keys.Grant{n.grant}})(w.s.Lookup(ctx, k.Secrets[0].Hash))
	same(w, "Space", n.space)(w.s.Space(ctx, n.organization.ID, "production"))
	same(w, "Setting", keys.Setting{Name: "mode", Value: "x", Version: 1})(w.s.Setting(ctx, "mode"))
	same(w, "AuditLog", log)(w.auditLog(ctx, keys.Page{Limit: 9}))
	same(w, "Remembered", kept)(w.s.Remembered(ctx, kept.ID))
	w.refuses("the same request", keys.Mutation{At: time.Now(), Remember: &kept}, &keys.ExistsError{Kind: "request", Field: "id", Value: kept.ID})
	fails[keys.Key](w, "deleted key", keys.ErrNotFound)(w.s.Key(ctx, gone.ID))
	same(w, "Changes", changes)(w.since(0), nil)
	same(w, "end of the feed", keys.ChangeBatch{Next: end})(w.s.Changes(ctx, keys.FeedEnd, 0))
	w.apply(keys.Mutation{Keys: []keys.Key{k}})
	batch, err := w.s.Changes(ctx, end, time.Minute)
	if err != nil || batch.Gap || len(batch.Changes) != 1 || batch.Changes[0].Seq <= end {
		w.Errorf("the feed after reopening: %+v, %v", batch, err)
	}
}

// cancelled: a context that has ended ends every call, and nothing is written.
func cancelled(w *world) {
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.untouched("Apply", func() {
		k := w.key(n.account)
		fails[keys.Applied](w, "Apply", context.Canceled)(w.s.Apply(ctx, keys.Mutation{At: w.now, Keys: []keys.Key{k}}))
		fails[keys.Key](w, "the key", keys.ErrNotFound)(w.s.Key(w.Context(), k.ID))
	})
	fails[int64](w, "RegisterPolicy", context.Canceled)(w.s.RegisterPolicy(ctx, "a", w.audit("policy.load")))
	fails[keys.Found](w, "Lookup", context.Canceled)(w.s.Lookup(ctx, k.Secrets[0].Hash))
	fails[keys.Key](w, "Key", context.Canceled)(w.s.Key(ctx, k.ID))
	fails[[]keys.Key](w, "Keys", context.Canceled)(w.keys(ctx, keys.KeyFilter{}, keys.Page{Limit: 1}))
	fails[keys.AuditPage](w, "AuditLog", context.Canceled)(w.s.AuditLog(ctx, keys.AuditFilter{}, keys.Page{Limit: 1}))
	fails[[]keys.Grant](w, "Grants", context.Canceled)(w.s.Grants(ctx, n.account.ID))
	fails[keys.Remembered](w, "Remembered", context.Canceled)(w.s.Remembered(ctx, "request"))
	fails[struct{}](w, "Used", context.Canceled)(struct{}{}, w.s.Used(ctx, []keys.Use{{Key: k.ID, At: w.now}}))
	fails[keys.ChangeBatch](w, "Changes", context.Canceled)(w.s.Changes(ctx, 0, time.Minute))
	fails[struct{}](w, "Ping", context.Canceled)(struct{}{}, w.s.Ping(ctx))
	same(w, "afterwards", k)(w.s.Key(w.Context(), k.ID))

	// Cancelled at any moment, a change is either acknowledged and there, or
	// reported as not made and not there.
	for i := range 30 {
		k := w.key(n.account)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*200*time.Microsecond)
		_, err := w.s.Apply(ctx, keys.Mutation{At: w.now, Keys: []keys.Key{k}, Audit: []keys.AuditEntry{w.audit("key.create")}})
		cancel()
		if _, keyErr := w.s.Key(w.Context(), k.ID); (err == nil) != (keyErr == nil) {
			w.Errorf("Apply: %v, then Key: %v", err, keyErr)
		}
	}
}

// closing: a closed store answers with errors, wakes who waits and may be
// closed again.
func closing(w *world) {
	n := w.tenant("acme")
	waiting := make(chan error)
	end := w.end()
	go func() {
		_, err := w.s.Changes(context.Background(), end, time.Minute)
		waiting <- err
	}()
	time.Sleep(20 * time.Millisecond)
	for range 2 {
		if err := w.s.Close(); err != nil {
			w.Errorf("Close: %v", err)
		}
	}
	select {
	case err := <-waiting:
		if err == nil {
			w.Error("who waited for a change got no error")
		}
	case <-time.After(20 * time.Second):
		w.Fatal("who waited for a change still waits 20s after Close")
	}
	ctx := context.Background()
	_, err := w.s.Apply(ctx, keys.Mutation{At: w.now, Settings: []keys.Setting{{Name: "late"}}})
	failsSomehow(w.T, "Apply", err)
	failsSomehow(w.T, "Ping", w.s.Ping(ctx))
	_, err = w.s.Organization(ctx, n.organization.ID)
	failsSomehow(w.T, "Organization", err)
	_, err = w.s.Lookup(ctx, keys.HashSecret("x"))
	failsSomehow(w.T, "Lookup", err)
	failsSomehow(w.T, "Used", w.s.Used(ctx, []keys.Use{{Key: "key_1", At: w.now}}))
	_, err = w.s.Keys(ctx, keys.KeyFilter{}, keys.Page{Limit: 1})
	failsSomehow(w.T, "Keys", err)
	_, err = w.s.AuditLog(ctx, keys.AuditFilter{}, keys.Page{Limit: 1})
	failsSomehow(w.T, "AuditLog", err)
	_, err = w.s.Changes(ctx, end, time.Minute)
	failsSomehow(w.T, "Changes", err)
}

func failsSomehow(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s of a closed store: no error", what)
	}
}
