package redis

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// once is a client that sends each call once.
func once(o *goredis.UniversalOptions) { o.MaxRetries = -1 }

// losing drops the answers of as many scripts as it is told to.
type losing struct{ answers atomic.Int64 }

func (l *losing) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (l *losing) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

func (l *losing) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := next(ctx, cmd)
		if strings.HasPrefix(cmd.Name(), "eval") && err == nil && l.answers.Add(-1) >= 0 {
			cmd.SetErr(io.EOF)
			return io.EOF
		}
		return err
	}
}

// TestAnswerLost: a change whose answer was lost is sent again and made once.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	c := client(t, server.URL(), once)
	s := openStore(t, Options{Client: c})
	tenant(t, s)
	lost := &losing{}
	c.AddHook(lost)
	end, err := s.Changes(t.Context(), keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}

	lost.answers.Store(1)
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1")}, Audit: []keys.AuditEntry{{ID: "aud_1"}}})
	lost.answers.Store(1)
	if n, err := s.RegisterPolicy(t.Context(), "digest", keys.AuditEntry{ID: "aud_2"}); n != 1 || err != nil {
		t.Errorf("RegisterPolicy: %d, %v", n, err)
	}
	lost.answers.Store(1)
	changed := newKey("1")
	changed.Version = 5
	if _, err := s.Apply(t.Context(), keys.Mutation{Keys: []keys.Key{changed}}); !errors.Is(err, keys.ErrConflict) {
		t.Errorf("a refusal whose answer was lost: %v", err)
	}
	if batch, err := s.Changes(t.Context(), end.Next, 0); err != nil || len(batch.Changes) != 1 {
		t.Errorf("the feed: %+v, %v; want one change", batch, err)
	}
	if log, err := s.AuditLog(t.Context(), keys.AuditFilter{}, keys.Page{Limit: 9}); err != nil || len(log.Entries) != 2 {
		t.Errorf("the audit log: %+v, %v; want two entries", log, err)
	}

	// Both answers are lost: nobody can tell, and the error says so.
	lost.answers.Store(applyTries)
	_, err = s.Apply(t.Context(), keys.Mutation{Keys: []keys.Key{newKey("2")}})
	if err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("no answer at all: %v", err)
	}
	if _, err := s.Key(t.Context(), "key_2"); err != nil {
		t.Errorf("what was made all the same: %v", err)
	}
}

// TestAnswerLostOfRequest: what is remembered with a change whose answer was lost is
// no reason to refuse the very same change; and who asks again is told what it was.
func TestAnswerLostOfRequest(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	c := client(t, server.URL(), once)
	s := openStore(t, Options{Client: c})
	tenant(t, s)
	lost := &losing{}
	c.AddHook(lost)
	end, err := s.Changes(t.Context(), keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	request := func(id string) keys.Mutation {
		return keys.Mutation{
			At: now, Keys: []keys.Key{newKey(id), newKey(id + "b")},
			Remember: &keys.Remembered{ID: "request " + id, Digest: "d", Answer: []byte(id), Until: now.Add(time.Hour)},
		}
	}
	lost.answers.Store(1)
	made, err := s.Apply(t.Context(), request("1"))
	if err != nil || made.Seq != end.Next+2 {
		t.Errorf("a change whose answer was lost once: %+v, %v; want the number %d", made, err, end.Next+2)
	}
	lost.answers.Store(applyTries)
	if _, err := s.Apply(t.Context(), request("2")); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("no answer at all: %v", err)
	}
	var exists *keys.ExistsError
	if _, err := s.Apply(t.Context(), request("2")); !errors.As(err, &exists) || *exists != (keys.ExistsError{Kind: "request", Field: "id", Value: "request 2"}) {
		t.Errorf("the same request again: %v", err)
	}
	if r, err := s.Remembered(t.Context(), "request 2"); err != nil || string(r.Answer) != "2" {
		t.Errorf("what it was answered: %+v, %v", r, err)
	}
	if batch, err := s.Changes(t.Context(), end.Next, 0); err != nil || len(batch.Changes) != 4 {
		t.Errorf("the feed: %+v, %v; want four changes", batch, err)
	}
	if ttl := server.Do("PTTL", rememberedKey+"request 2").(int64); ttl < 59*60_000 || ttl > 61*60_000 {
		t.Errorf("it is forgotten after %d ms", ttl)
	}
	lost.answers.Store(1)
	use := keys.Use{Key: "key_1", At: now.Add(time.Hour)}
	if err := s.Used(t.Context(), []keys.Use{use}); err == nil {
		t.Error("uses whose answer was lost: no error")
	}
	if k, err := s.Key(t.Context(), "key_1"); err != nil || !k.LastUsedAt.Equal(use.At.Truncate(time.Microsecond)) {
		t.Errorf("they were noted all the same: %v, %v", k.LastUsedAt, err)
	}
}

// TestDemoted: a master that became a replica proves nothing and takes nothing.
func TestDemoted(t *testing.T) {
	t.Parallel()
	other := redistest.Start(t, redistest.Options{})
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	if made, err := s.Apply(t.Context(), keys.Mutation{}); err != nil || made.Durable {
		t.Errorf("a change that nobody keeps: %+v, %v", made, err)
	}
	server.Do("REPLICAOF", "127.0.0.1", other.Port)
	ctx := t.Context()
	_, err := s.Apply(ctx, keys.Mutation{Settings: []keys.Setting{{Name: "x"}}})
	for what, err := range map[string]error{"Ping": s.Ping(ctx), "Apply": err} {
		if err == nil || !strings.Contains(err.Error(), "is a replica") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Changes(ctx, keys.FeedEnd, 0); err == nil || !strings.Contains(err.Error(), "is a replica") {
		t.Errorf("Changes: %v", err)
	}
	server.Do("REPLICAOF", "NO", "ONE")
	if err := s.Ping(ctx); err != nil {
		t.Errorf("Ping of a master again: %v", err)
	}
}

// TestFull: without memory a change is refused whole, and decisions go on.
func TestFull(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	ctx := t.Context()
	tenant(t, s)
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1"), newKey("2")}})
	before := contents(server)
	server.Do("CONFIG", "SET", "maxmemory", "1mb")
	gone := newKey("1")
	gone.Version = 1
	for what, m := range map[string]keys.Mutation{
		"a key for another":    {DeleteKeys: []keys.Key{gone}, Keys: []keys.Key{newKey("3")}},
		"only a deletion":      {DeleteKeys: []keys.Key{gone}},
		"a deletion of grants": {DeleteGrants: []keys.Grant{{ID: "grt_1"}}, Remember: &keys.Remembered{ID: "request", Until: time.Now().Add(time.Hour)}},
	} {
		if _, err := s.Apply(ctx, m); err == nil || !strings.Contains(err.Error(), "maxmemory is reached") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Used(ctx, []keys.Use{{Key: "key_1", At: time.Now()}, {Key: "key_2", Secret: keys.HashSecret("2"), At: time.Now()}}); err == nil || !strings.Contains(err.Error(), "maxmemory is reached") {
		t.Errorf("Used: %v", err)
	}
	if diff := cmp.Diff(before, contents(server)); diff != "" {
		t.Errorf("refused changes left traces:\n%s", diff)
	}
	if _, err := s.Lookup(ctx, keys.HashSecret("1")); err != nil {
		t.Errorf("Lookup: %v", err)
	}
	if err := s.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
	if advice, err := s.Advice(ctx); err != nil || !strings.Contains(strings.Join(advice, "\n"), "maxmemory") {
		t.Errorf("Advice: %q, %v", advice, err)
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	apply(t, s, keys.Mutation{DeleteKeys: []keys.Key{gone}, Keys: []keys.Key{newKey("3")}})
}

// contents are the digests of all that Redis holds.
func contents(server *redistest.Server) map[string]string {
	all := map[string]string{}
	for _, name := range server.Do("KEYS", "*").([]any) {
		all[name.(string)] = fmt.Sprintf("%x", sha256.Sum256([]byte(server.Do("DUMP", name).(string))))
	}
	return all
}

// TestStopped: a Redis that hangs holds no call for longer than its bound, and
// nothing was missed when it goes on.
func TestStopped(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	ctx := t.Context()
	tenant(t, s)
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1")}})
	end, err := s.Changes(ctx, keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}
	server.Pause()
	var all sync.WaitGroup
	for what, call := range map[string]func() error{
		"Lookup":  func() error { _, err := s.Lookup(ctx, keys.HashSecret("1")); return err },
		"Changes": func() error { _, err := s.Changes(ctx, end.Next, time.Minute); return err },
		"Apply":   func() error { _, err := s.Apply(ctx, keys.Mutation{Keys: []keys.Key{newKey("2")}}); return err },
		"Ping":    func() error { return s.Ping(ctx) },
		"deadline of the caller": func() error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := s.Key(ctx, "key_1")
			if took := time.Since(start); took > time.Second || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a deadline of 50ms: %v after %v", err, took)
			}
			return err
		},
	} {
		all.Go(func() {
			start := time.Now()
			err := call()
			if took := time.Since(start); err == nil || errors.Is(err, keys.ErrNotFound) || took > callTimeout+2*time.Second {
				t.Errorf("%s: %v after %v", what, err, took)
			}
		})
	}
	all.Wait()
	server.Resume()
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("3")}})
	if batch, err := s.Changes(ctx, end.Next, 0); err != nil || batch.Gap || batch.Changes[len(batch.Changes)-1].ID != "key_3" {
		t.Errorf("the feed after the halt: %+v, %v", batch, err)
	}
}

// TestKilled: what was said to be durable survives a Redis with a log that is
// killed in the middle of writing, and each change is whole.
func TestKilled(t *testing.T) {
	for _, fsync := range []string{"always", "everysec"} {
		t.Run(fsync, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Options{AOF: fsync})
			s := openStore(t, Options{Client: client(t, server.URL())})
			tenant(t, s)
			const writers, rounds = 8, 3
			var acknowledged sync.Map
			var made atomic.Int64
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			var writing sync.WaitGroup
			for w := range writers {
				writing.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						id := fmt.Sprintf("%d-%d", w, i)
						did, err := s.Apply(context.Background(), keys.Mutation{At: time.Now(), Keys: []keys.Key{newKey(id)}, Audit: []keys.AuditEntry{{ID: "aud_" + id}}})
						var exists *keys.ExistsError
						switch {
						case err == nil:
							if made.Add(1); did.Durable {
								acknowledged.Store(id, true)
							}
						case errors.As(err, &exists):
							t.Errorf("key %s was made twice: %v", id, err)
						}
					}
				})
			}
			for range rounds {
				for enough := made.Load() + 300; made.Load() < enough; {
					time.Sleep(time.Millisecond)
				}
				server.Kill()
				server.Start()
			}
			stop()
			writing.Wait()
			for s.Ping(t.Context()) != nil { // after many refusals the client tries once a second
				time.Sleep(time.Millisecond)
			}
			n := 0
			for id := range acknowledged.Range {
				if f, err := s.Lookup(t.Context(), keys.HashSecret(id.(string))); err != nil || f.Key.ID != "key_"+id.(string) {
					t.Errorf("key %v was durable and is lost: %v", id, err)
				}
				n++
			}
			t.Logf("%d keys were made and %d said to be durable over %d kills", made.Load(), n, rounds)
			if (n > 0) != (fsync == "always") {
				t.Errorf("%d changes were said to be durable", n)
			}
			whole(t, server)
		})
	}
}

// whole wants every index to agree with the records.
func whole(t *testing.T, server *redistest.Server) {
	t.Helper()
	records := len(server.Do("KEYS", "kg:{kg}:key:*").([]any))
	for what, got := range map[string]any{
		"audit entries": server.Do("HLEN", entriesKey), "their instants": server.Do("ZCARD", auditKey), "listed keys": server.Do("ZCARD", keysKey), "names": server.Do("ZCARD", namesKey),
		"keys of the organization": server.Do("ZCARD", keysKey+":org_1"), "its names": server.Do("ZCARD", namesKey+":org_1"),
		"live keys": server.Do("ZCARD", tag+"live:org_1"), "activities": server.Do("ZCARD", usedKey), "its activities": server.Do("ZCARD", usedKey+":org_1"),
		"keys of the account": server.Do("ZCARD", tag+"owned:acc_1"), "secrets": int64(len(server.Do("KEYS", "kg:{kg}:secret:*").([]any))),
		"change entries": server.Do("XLEN", changesKey).(int64) - 2,
	} {
		if got != int64(records) {
			t.Errorf("%v %s for %d keys", got, what, records)
		}
	}
}

// TestWaitEnds: who waits for the feed goes when it should.
func TestWaitEnds(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := client(t, server.URL())
	s, err := Open(t.Context(), Options{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	wait := func(ctx context.Context) (time.Duration, error) {
		start := time.Now()
		_, err := s.Changes(ctx, 0, time.Minute)
		return time.Since(start), err
	}
	const prompt = feedBlock + 2*time.Second // a busy machine
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("that is enough")
	time.AfterFunc(20*time.Millisecond, func() { cancel(reason) })
	if took, err := wait(ctx); took > prompt || !errors.Is(err, reason) {
		t.Errorf("cancelled: %v after %v", err, took)
	}
	time.AfterFunc(20*time.Millisecond, func() { s.Close() })
	if took, err := wait(t.Context()); took > prompt || !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v after %v", err, took)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Ping of a closed store: %v", err)
	}
}
