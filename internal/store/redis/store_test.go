package redis

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
	"keygate/internal/store/storetest"
)

// full says whether the heavier suites run too. It asks when a test runs: what is
// read before that does not keep the go command from a cached result.
func full() bool { return os.Getenv("KEYGATE_TEST_FULL") != "" }

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

func client(t testing.TB, url string, tune ...func(*goredis.UniversalOptions)) goredis.UniversalClient {
	t.Helper()
	c, err := NewClient(url, tune...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// databases hands the tests a database each: a store has one to itself, and they
// are cheaper than processes.
func databases(url string) func() string {
	url = strings.TrimSuffix(url, "/0")
	var mu sync.Mutex
	next := 0
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		next++
		return fmt.Sprint(url, "/", next-1)
	}
}

func TestContract(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AOF: "everysec", Args: []string{"--databases", "64"}})
	next := databases(server.URL())
	storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, next()) })
}

func TestContractBehindSentinel(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it; TestSentinel tries the main things")
	}
	group := redistest.StartSentinel(t, 3, redistest.Options{Args: []string{"--databases", "64"}})
	next := databases(group.URL())
	storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, next()) })
}

// A cluster has one database, so there the tests wait for each other.
func TestContractOnCluster(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it; TestCluster tries the main things")
	}
	cluster := redistest.StartCluster(t)
	var turn sync.Mutex
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		turn.Lock()
		t.Cleanup(turn.Unlock)
		cluster.Flush()
		return harness(t, cluster.URL())
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

// tenant is what keys are made for.
func tenant(t testing.TB, s *Store) {
	t.Helper()
	apply(t, s, keys.Mutation{
		Organizations: []keys.Organization{{ID: "org_1", Slug: "acme"}}, Accounts: []keys.Account{{ID: "acc_1", Organization: "org_1"}},
		Grants: []keys.Grant{{ID: "grt_1", Account: "acc_1", Organization: "org_1", Role: "owner"}},
	})
}

func newKey(id string) keys.Key {
	return keys.Key{
		ID: "key_" + id, Name: "test " + id, Organization: "org_1", Account: "acc_1",
		Secrets: []keys.Secret{{Hash: keys.HashSecret(id), Prefix: "kg_live", LastFour: "abcd"}},
	}
}

func apply(t testing.TB, s *Store, m keys.Mutation) {
	t.Helper()
	if m.At.IsZero() {
		m.At = time.Now()
	}
	if _, err := s.Apply(t.Context(), m); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

// smoke tries each kind of call once.
func smoke(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	tenant(t, s)
	end, err := s.Changes(ctx, keys.FeedEnd, 0)
	if err != nil {
		t.Fatalf("Changes: %v", err)
	}
	told := make(chan keys.ChangeBatch, 1)
	go func() {
		batch, _ := s.Changes(ctx, end.Next, 20*time.Second)
		told <- batch
	}()
	time.Sleep(50 * time.Millisecond) // most likely it waits by now
	apply(t, s, keys.Mutation{Keys: []keys.Key{newKey("1")}, Audit: []keys.AuditEntry{{ID: "aud_1", Action: "key.create"}}, MaxKeys: &keys.MaxKeys{Organization: "org_1", Max: 1}})
	if batch := <-told; batch.Gap || len(batch.Changes) != 1 || batch.Changes[0].ID != "key_1" {
		t.Errorf("the feed tells %+v", batch)
	}
	if f, err := s.Lookup(ctx, keys.HashSecret("1")); err != nil || f.Key.ID != "key_1" || f.Organization.Slug != "acme" || len(f.Grants) != 1 {
		t.Errorf("Lookup: %+v, %v", f, err)
	}
	if o, err := s.Organization(ctx, "acme"); err != nil || o.ID != "org_1" {
		t.Errorf("Organization: %+v, %v", o, err)
	}
	if list, err := s.Keys(ctx, keys.KeyFilter{Organization: "org_1", Name: "test 1"}, keys.Page{Limit: 2}); err != nil || len(list.Keys) != 1 {
		t.Errorf("Keys: %+v, %v", list, err)
	}
	if log, err := s.AuditLog(ctx, keys.AuditFilter{}, keys.Page{Limit: 2}); err != nil || len(log.Entries) != 1 {
		t.Errorf("AuditLog: %+v, %v", log, err)
	}
	now := time.Now()
	if err := s.Used(ctx, []keys.Use{{Key: "key_1", Secret: keys.HashSecret("1"), At: now}}); err != nil {
		t.Errorf("Used: %v", err)
	}
	if list, err := s.Keys(ctx, keys.KeyFilter{UnusedSince: now, Account: "acc_1", Query: "TEST"}, keys.Page{Limit: 2}); err != nil || len(list.Keys) != 1 || list.Keys[0].LastUsedAt.IsZero() {
		t.Errorf("Keys that are unused: %+v, %v", list, err)
	}
	if grants, err := s.Grants(ctx, "acc_1", "acc_0"); err != nil || len(grants) != 1 {
		t.Errorf("Grants: %+v, %v", grants, err)
	}
	apply(t, s, keys.Mutation{Accounts: []keys.Account{{ID: "acc_2", Organization: "org_1"}}, Remember: &keys.Remembered{ID: "request", Until: now.Add(time.Hour)}})
	apply(t, s, keys.Mutation{DeleteAccounts: []keys.Account{{ID: "acc_2", Version: 1}}})
	if _, err := s.Remembered(ctx, "request"); err != nil {
		t.Errorf("Remembered: %v", err)
	}
	var tooMany *keys.TooManyKeysError
	if _, err := s.Apply(ctx, keys.Mutation{Keys: []keys.Key{newKey("2")}, MaxKeys: &keys.MaxKeys{Organization: "org_1", Max: 1}}); !errors.As(err, &tooMany) {
		t.Errorf("a key too many: %v", err)
	}
	if n, err := s.RegisterPolicy(ctx, "digest", keys.AuditEntry{ID: "aud_2"}); err != nil || n != 1 {
		t.Errorf("RegisterPolicy: %d, %v", n, err)
	}
	if err := s.RegisterReplica(ctx, keys.Replica{ID: "rep_1"}); err != nil {
		t.Errorf("RegisterReplica: %v", err)
	}
	if all, err := s.Replicas(ctx); err != nil || len(all) != 1 {
		t.Errorf("Replicas: %+v, %v", all, err)
	}
	if err := s.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

func TestTLSAndPassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{TLS: true, Password: "s3cret"})
	smoke(t, openStore(t, Options{Client: client(t, server.URL(), func(o *goredis.UniversalOptions) { o.TLSConfig = server.TLSConfig() })}))

	c := client(t, server.URL()) // without the certificate
	defer c.Close()
	if _, err := Open(t.Context(), Options{Client: c}); err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a certificate that nothing vouches for: %v", err)
	}
}

func TestSocketAndUser(t *testing.T) {
	t.Parallel()
	socket := t.TempDir() + "/redis.sock"
	server := redistest.Start(t, redistest.Options{Args: []string{"--unixsocket", socket}})
	server.Do("ACL", "SETUSER", "keygate", "on", ">p@ss/word", "+@all", "-config", "~kg:*")
	smoke(t, openStore(t, Options{Client: client(t, "unix://keygate:p%40ss%2Fword@"+socket+"?db=3")}))
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Password: "s3cret"})
	for url, want := range map[string]string{
		"redis://" + server.Addr():                              "Redis wants a password",
		"redis://:wrong@" + server.Addr():                       "refuses the user name or the password",
		fmt.Sprint("redis://127.0.0.1:", redistest.FreePort(t)): "cannot reach Redis",
	} {
		c := client(t, url)
		start := time.Now()
		if _, err := Open(t.Context(), Options{Client: c}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "wrong@") {
			t.Errorf("%s: %v; want %q", url, err, want)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: refused after %v", url, took)
		}
		c.Close()
	}

	server.Do("HSET", schemaKey, "version", 7, "id", "newer")
	c := client(t, server.URL())
	defer c.Close()
	var newer *SchemaError
	if _, err := Open(t.Context(), Options{Client: c}); !errors.As(err, &newer) || newer.Schema != 7 {
		t.Errorf("a newer store: %v", err)
	}
	server.Do("DEL", schemaKey)
	server.Do("SET", sequenceKey, 7)
	if openStore(t, Options{Client: client(t, server.URL())}).Fresh() {
		t.Error("a store that lost its schema record is fresh")
	}
	server.Do("DEL", schemaKey, sequenceKey)
	s := openStore(t, Options{Client: client(t, server.URL())})
	if !s.Fresh() {
		t.Error("a first start is not fresh")
	}
	if openStore(t, Options{Client: client(t, server.URL())}).Fresh() {
		t.Error("a second start is fresh")
	}
	server.Do("HSET", schemaKey, "version", 7)
	if _, err := s.Apply(t.Context(), keys.Mutation{}); !errors.As(err, &newer) {
		t.Errorf("a change after an upgrade by another: %v", err)
	}
	if err := s.Ping(t.Context()); !errors.As(err, &newer) {
		t.Errorf("Ping after an upgrade by another: %v", err)
	}
	if _, err := Open(t.Context(), Options{}); err == nil {
		t.Error("a store without a client")
	}
}
