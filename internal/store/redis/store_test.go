package redis

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
	"keygate/internal/store/storetest"
)

// full says whether the heavier suites run too.
var full = os.Getenv("KEYGATE_TEST_FULL") != ""

// openStore opens a store and closes it at the test's end.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func client(t testing.TB, url string) goredis.UniversalClient {
	t.Helper()
	c, err := NewClient(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestContract runs each test on a database of its own: a store has the whole
// Redis to itself, and databases are cheaper than processes.
func TestContract(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AOF: "everysec", Args: []string{"--databases", "64"}})
	next := make(chan int, 64)
	for i := range cap(next) {
		next <- i
	}
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		url := strings.TrimSuffix(server.URL(), "/0") + fmt.Sprint("/", <-next)
		return harness(t, url)
	})
}

func harness(t *testing.T, url string) storetest.Harness {
	keep := 5000
	if strings.HasSuffix(t.Name(), "/FeedGap") {
		keep = 300
	}
	s := openStore(t, Options{Client: client(t, url), KeepChanges: keep})
	return storetest.Harness{Store: s, KeepChanges: keep, Reopen: func(t *testing.T) keys.Store {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		return openStore(t, Options{Client: client(t, url), KeepChanges: keep})
	}}
}

var _ = time.Second
