package redis

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/store/redis/redistest"
	"keygate/ratelimit"
)

// connected is a patient client of a server.
func connected(t *testing.T, s *redistest.Server) goredis.UniversalClient {
	t.Helper()
	c := goredis.NewUniversalClient(patient(&goredis.UniversalOptions{Addrs: []string{s.Addr()}}))
	t.Cleanup(func() { c.Close() })
	return c
}

func status(t *testing.T, l *Ledger) (ratelimit.Status, ratelimit.State) {
	t.Helper()
	grants := make([]ratelimit.Grant, 1)
	asks := []ratelimit.Ask{takeAsk(1, limit("minute", 100, time.Minute))}
	// The first call after a restart meets connections that are gone.
	err := l.Lease(context.Background(), asks, grants)
	for range 5 {
		if err == nil {
			break
		}
		err = l.Lease(context.Background(), asks, grants)
	}
	if err != nil {
		t.Fatal(err)
	}
	return grants[0].Status, grants[0].Limits[0]
}

// waits fails unless the ledger waits for a window and a lease, all but a moment.
func waits(t *testing.T, l *Ledger, why string) {
	t.Helper()
	got, s := status(t, l)
	if whole := time.Minute + ratelimit.LeaseTime(time.Minute); got != ratelimit.Lost || s.RetryAfter > whole || s.RetryAfter < whole-5*time.Second {
		t.Errorf("%s: status %d, %+v", why, got, s)
	}
}

func goesOn(t *testing.T, l *Ledger, left int64, why string) {
	t.Helper()
	if got, s := status(t, l); got != ratelimit.Granted || s.Remaining != left {
		t.Errorf("%s: status %d, %+v; want %d left", why, got, s, left)
	}
}

// A Redis that is killed and has its append-only file has lost nothing, and what
// it counted goes on. (With everysec it may have answered before it wrote, while
// the disk was busy.)
func TestKilledWithAppendOnlyFile(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AOF: "always"})
	l := used(t, connected(t, server))
	goesOn(t, l, 99, "before")
	for i := range int64(2) {
		server.Kill()
		server.Start()
		goesOn(t, l, 98-i, "restarted")
	}
}

// One without it goes back to its last snapshot, or to nothing.
func TestKilledWithoutAppendOnlyFile(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	l := used(t, connected(t, server))
	goesOn(t, l, 99, "before")
	server.Do("SAVE")
	goesOn(t, l, 98, "before")
	server.Kill()
	server.Start()
	waits(t, l, "from a snapshot")
	waits(t, l, "and again")
	server = redistest.Start(t, redistest.Options{Args: []string{"--save", ""}})
	l = used(t, connected(t, server))
	goesOn(t, l, 99, "before")
	server.Kill()
	server.Start()
	waits(t, l, "from nothing")
}

// A loss that somebody else has noticed: the tag waits from then on, once, however
// many tell of it, and other tags do not.
func TestLose(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	client := connected(t, server)
	l := used(t, client)
	ctx := context.Background()
	goesOn(t, l, 99, "before")
	before := client.Time(ctx).Val()
	marker := func() string { return client.Get(ctx, string(appendTag([]byte(markerKind), tagOf("org_x")))).Val() }
	for _, step := range []struct {
		place, why string
		since      time.Time
		moves      bool
	}{
		{"org_y", "another organization", before, false},
		{"org_x", "the first to tell", before, true},
		{"org_x", "another one to tell", before, false},
		{"org_x", "a later loss", before.Add(time.Hour), true},
		{"", "everything, which is known here", before, false},
		{"", "everything", before.Add(time.Hour), true},
	} {
		was := marker()
		if err := l.Lose(ctx, step.place, step.since); err != nil {
			t.Fatal(err)
		}
		if now := marker(); (now != was) != step.moves {
			t.Errorf("%s: marker %q after %q", step.why, now, was)
		}
	}
	if n := len(client.Keys(ctx, "kg:m:*").Val()); n != tags {
		t.Errorf("%d markers", n)
	}
	waits(t, l, "lost")
}

func TestFlushed(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AOF: "everysec"})
	l := used(t, connected(t, server))
	goesOn(t, l, 99, "before")
	server.Flush()
	waits(t, l, "flushed")
	// Tags that nobody asks about are held from when they are looked at, not from
	// when somebody asks.
	if err := l.Mark(context.Background(), Known); err != nil {
		t.Fatal(err)
	}
	if n := len(server.Client().Keys(context.Background(), "kg:m:*").Val()); n != tags {
		t.Errorf("%d markers", n)
	}
	// Who was here before knows better than who came to an empty Redis.
	server.Flush()
	if err := l.Mark(context.Background(), First); err != nil {
		t.Fatal(err)
	}
	goesOn(t, l, 99, "as if new")
	if err := l.Mark(context.Background(), Gone); err != nil {
		t.Fatal(err)
	}
	waits(t, l, "gone")
}

// A replica that was promoted may lack the end of what its master wrote, also
// where both keep an append-only file; so may the master that is promoted back.
func TestPromoted(t *testing.T) {
	master := redistest.Start(t, redistest.Options{AOF: "everysec"})
	replica := redistest.Start(t, redistest.Options{AOF: "everysec", Args: []string{"--repl-diskless-sync-delay", "0"}})
	follow := func(who, whom *redistest.Server) {
		who.Do("REPLICAOF", "127.0.0.1", fmt.Sprint(whom.Port))
		for try := 0; ; try++ {
			n, err := whom.Client().Wait(context.Background(), 1, time.Second).Result()
			if err == nil && n == 1 {
				return
			}
			if try == 30 {
				t.Fatalf("no replica: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	l := used(t, connected(t, master))
	goesOn(t, l, 99, "before")
	follow(replica, master)
	replica.Do("REPLICAOF", "NO", "ONE")
	promoted := New(connected(t, replica))
	waits(t, promoted, "promoted")
	// Back again, while nobody asked in between but the one that looks at all tags.
	server := redistest.Start(t, redistest.Options{AOF: "everysec", Args: []string{"--repl-diskless-sync-delay", "0"}})
	follow(server, replica)
	server.Do("REPLICAOF", "NO", "ONE")
	if err := New(connected(t, server)).Mark(context.Background(), Known); err != nil {
		t.Fatal(err)
	}
	waits(t, New(connected(t, server)), "promoted again")
}

// Where INFO is forbidden, a restart cannot be told from none; what is missing can.
func TestInfoForbidden(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	server.Do("ACL", "SETUSER", "gate", "on", ">secret", "~*", "+@all", "-info")
	client := goredis.NewUniversalClient(patient(&goredis.UniversalOptions{Addrs: []string{server.Addr()}, Username: "gate", Password: "secret"}))
	defer client.Close()
	l := used(t, client)
	goesOn(t, l, 99, "before")
	goesOn(t, l, 98, "and again")
	server.Flush()
	waits(t, l, "flushed")
}
