package redis

import (
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// The ledger's markers are to be made as new exactly once: by whoever starts first
// on an empty Redis, or goes on where another died before it had done so.
func TestLimitsPrepared(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	ctx := t.Context()
	prepared := func(s *Store) bool {
		t.Helper()
		ok, err := s.LimitsPrepared(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	first := openStore(t, Options{Client: client(t, server.URL())})
	if prepared(first) {
		t.Error("prepared before anybody did")
	}
	second := openStore(t, Options{Client: client(t, server.URL())})
	if prepared(second) {
		t.Error("prepared before anybody did, says the second")
	}
	if err := second.PrepareLimits(ctx); err != nil {
		t.Fatal(err)
	}
	if !prepared(first) || !prepared(second) {
		t.Error("not prepared")
	}
	// One that was here before makes the record of the next store as one whose
	// markers were lost; one that was not cannot know.
	server.Flush()
	if err := first.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if third := openStore(t, Options{Client: client(t, server.URL())}); !prepared(third) {
		t.Error("what was lost is to be made as new")
	}
	server.Flush()
	if third := openStore(t, Options{Client: client(t, server.URL())}); prepared(third) {
		t.Error("an empty Redis is not new")
	}
	// A record that is missing beside others was lost.
	tenant(t, first)
	server.Do("DEL", schemaKey)
	if third := openStore(t, Options{Client: client(t, server.URL())}); !prepared(third) {
		t.Error("a store that lost its record is new")
	}
}

// Whoever reads the feed is told when Redis is not what it was.
func TestTurned(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{AOF: "everysec"})
	turned := make(chan bool, 10)
	s := openStore(t, Options{Client: client(t, server.URL()), Turned: func(emptied bool) { turned <- emptied }})
	tenant(t, s)
	read := func() {
		t.Helper()
		var err error
		for range 50 { // connections that are gone
			if _, err = s.Changes(t.Context(), keys.FeedEnd, 0); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatal(err)
	}
	told := func(want ...bool) {
		t.Helper()
		read()
		read()
		for _, w := range want {
			select {
			case got := <-turned:
				if got != w {
					t.Errorf("emptied is %v", got)
				}
			default:
				t.Error("not told")
			}
		}
		if len(turned) > 0 {
			t.Errorf("told %d times more", len(turned))
		}
	}
	told()
	server.Kill()
	server.Start()
	told(false)
	server.Flush()
	told(true)
}
