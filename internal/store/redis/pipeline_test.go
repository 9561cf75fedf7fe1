package redis

import (
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
	"keygate/test/faultproxy"
)

// A connection that Redis refuses fails every call, also those that send several
// commands at once: of such a failure go-redis tells none of the commands.
func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	guarded := redistest.Start(t, redistest.Options{Password: "right"})
	s, err := New(Options{Client: client(t, "redis://:wrong@"+guarded.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for name, call := range map[string]func() error{
		"Ping":    func() error { return s.Ping(t.Context()) },
		"Changes": func() error { _, err := s.Changes(t.Context(), keys.FeedEnd, 0); return err },
		"Replicas": func() error {
			_, err := s.Replicas(t.Context())
			return err
		},
		"Apply": func() error {
			_, err := s.Apply(t.Context(), keys.Mutation{Keys: []keys.Key{newKey("1")}})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "not known") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.server.Store(&server{at: time.Now(), replicas: 1}) // as if it had connected before
	if _, err := s.Apply(t.Context(), keys.Mutation{Keys: []keys.Key{newKey("1")}}); err == nil || !strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "not known") {
		t.Errorf("Apply with WAIT: %v", err)
	}
}

// A read of the feed that got no answer is a failure. It proves nothing, and is no
// gap either: whoever remembers keys would forget them all.
func TestFeedWithoutAnswer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	between := faultproxy.Start(t, server.Addr())
	s := openStore(t, Options{Client: client(t, "redis://"+between.Addr()+"?timeout=500ms", once)})
	end, err := s.Changes(t.Context(), keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []faultproxy.Fault{faultproxy.BlackHole, faultproxy.Reset, faultproxy.Drop, faultproxy.Cut} {
		between.Set(fault, faultproxy.Feed)
		if batch, err := s.Changes(t.Context(), end.Next, 10*time.Millisecond); err == nil {
			t.Errorf("%v: %+v", fault, batch)
		}
		between.Heal()
		if batch, err := s.Changes(t.Context(), end.Next, 0); err != nil || batch.Gap || batch.Next != end.Next {
			t.Errorf("after %v: %+v, %v", fault, batch, err)
		}
	}
}
