package redis

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// TestEmptied: whoever follows the feed is told that all is gone, however many
// follow, and though the numbers have passed the cursor again.
func TestEmptied(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	tenant(t, s)
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1")}})
	ctx := t.Context()
	end, err := s.Changes(ctx, keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}
	early, err := s.Changes(ctx, end.Next-1, 0)
	if err != nil || early.Gap || early.Next != end.Next {
		t.Fatalf("before: %+v, %v", early, err)
	}
	waiting := make(chan keys.ChangeBatch)
	go func() {
		batch, _ := s.Changes(ctx, end.Next, time.Minute)
		waiting <- batch
	}()
	time.Sleep(50 * time.Millisecond)
	server.Flush()
	first := <-waiting
	if !first.Gap {
		t.Errorf("who waited is told %+v", first)
	}
	if _, err := s.Lookup(ctx, keys.HashSecret("1")); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("Lookup in an emptied store: %v", err)
	}
	tenant(t, s)
	for i := range 10 {
		apply(t, s, keys.Mutation{Keys: []keys.Key{newKey(fmt.Sprint(i))}})
	}
	if second, err := s.Changes(ctx, end.Next, 0); err != nil || !second.Gap {
		t.Errorf("who did not wait is told %+v, %v", second, err)
	}
	if next, err := s.Changes(ctx, first.Next, 0); err != nil || next.Gap || len(next.Changes) < 10 || next.Changes[0].Seq <= first.Next {
		t.Errorf("after the gap: %+v, %v", next, err)
	}
}

// TestLostPieces: Redis evicts and people delete; the feed says what it cannot
// say.
func TestLostPieces(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	ctx := t.Context()
	set := func(name string) {
		t.Helper()
		apply(t, s, keys.Mutation{Settings: []keys.Setting{{Name: name}}})
	}
	set("a")
	set("b")
	server.Do("DEL", sequenceKey)
	set("c")
	if batch, err := s.Changes(ctx, 0, 0); err != nil || batch.Gap || len(batch.Changes) != 3 || batch.Next != 3 {
		t.Errorf("without the counter: %+v, %v", batch, err)
	}
	server.Do("DEL", changesKey)
	if batch, err := s.Changes(ctx, 1, time.Minute); err != nil || !batch.Gap || batch.Next != 3 {
		t.Errorf("without the stream: %+v, %v", batch, err)
	}
	set("d")
	if batch, err := s.Changes(ctx, 3, 0); err != nil || batch.Gap || batch.Next != 4 {
		t.Errorf("going on: %+v, %v", batch, err)
	}
	server.Do("SCRIPT", "FLUSH")
	set("e")
	server.Do("DEL", schemaKey)
	if batch, err := s.Changes(ctx, 5, 0); err != nil || !batch.Gap {
		t.Errorf("without the schema: %+v, %v", batch, err)
	}
	server.Do("DEL", schemaKey)
	set("f") // makes the record
	if n := server.Do("EXISTS", schemaKey); n != int64(1) {
		t.Error("a change does not make the schema record")
	}
	server.Do("DEL", keyKey+"x")
	server.Do("SET", secretKey+hashText(keys.HashSecret("x")), "key_x")
	if _, err := s.Lookup(ctx, keys.HashSecret("x")); err == nil || errors.Is(err, keys.ErrNotFound) {
		t.Errorf("an index without its record: %v; want a failure, not an unknown key", err)
	}
	tenant(t, s)
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1")}})
	for _, lost := range []string{grantsKey + "acc_1", organizationKey + "org_1", keyKey + "key_1"} {
		value := server.Do("GET", lost)
		server.Do("DEL", lost)
		if _, err := s.Lookup(ctx, keys.HashSecret("1")); err == nil || errors.Is(err, keys.ErrNotFound) {
			t.Errorf("a key without %s: %v; want a failure", lost, err)
		}
		server.Do("SET", lost, value)
	}
}

// TestLostIndex: a list that would lack keys is a failure. When a key was used
// decides nothing, so it goes on working though that is lost.
func TestLostIndex(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	ctx := t.Context()
	tenant(t, s)
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1"), newKey("2")}, Audit: []keys.AuditEntry{{ID: "aud_1", Organization: "org_1"}}})
	now := time.Now()
	lists := map[string]func() error{}
	for what, f := range map[string]keys.KeyFilter{"all": {}, "by name": {Query: "test"}, "unused": {UnusedSince: now}, "active": {Status: keys.Active, At: now}} {
		lists[what] = func() error { _, err := s.Keys(ctx, f, keys.Page{Limit: 9}); return err }
		f.Organization = "org_1"
		lists[what+", of an organization"] = func() error { _, err := s.Keys(ctx, f, keys.Page{Limit: 9}); return err }
	}
	without := func(lost string, call func(what string)) {
		t.Helper()
		value := server.Do("DUMP", lost)
		server.Do("DEL", lost)
		call("without " + lost)
		server.Do("RESTORE", lost, 0, value)
	}
	for _, lost := range []string{keysKey, namesKey, usedKey, keyKey + "key_1"} {
		without(lost, func(what string) {
			for list, call := range lists {
				if err := call(); err == nil || errors.Is(err, keys.ErrNotFound) {
					t.Errorf("%s: list of keys, %s: %v", what, list, err)
				}
			}
		})
	}
	for _, lost := range []string{auditKey, entriesKey} {
		without(lost, func(what string) {
			for _, f := range []keys.AuditFilter{{}, {Organization: "org_1"}} {
				if log, err := s.AuditLog(ctx, f, keys.Page{Limit: 9}); err == nil {
					t.Errorf("%s: the audit log is %+v", what, log)
				}
			}
		})
	}
	without(usedKey, func(what string) {
		if f, err := s.Lookup(ctx, keys.HashSecret("1")); err != nil || f.Key.ID != "key_1" {
			t.Errorf("%s: Lookup: %+v, %v", what, f, err)
		}
		changed := newKey("1")
		changed.Version = 1
		apply(t, s, keys.Mutation{Keys: []keys.Key{changed}}) // puts it there again
		if err := s.Used(ctx, []keys.Use{{Key: "key_2", At: now}}); err != nil {
			t.Errorf("%s: Used: %v", what, err)
		}
		if n := server.Do("ZCARD", usedKey); n != int64(2) {
			t.Errorf("%s: %v keys are in it again", what, n)
		}
		server.Do("DEL", usedKey)
	})
	without(grantsKey+"acc_1", func(what string) {
		if _, err := s.Apply(ctx, keys.Mutation{DeleteGrants: []keys.Grant{{ID: "grt_1"}}}); err == nil || errors.Is(err, keys.ErrNotFound) {
			t.Errorf("%s: deleting a grant: %v", what, err)
		}
	})
	for what, call := range lists {
		if err := call(); err != nil {
			t.Errorf("with all in place: list of keys, %s: %v", what, err)
		}
	}
}
