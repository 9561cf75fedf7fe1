package redis

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

var (
	fillKeys   = flag.Int("fill", 2000, "number of keys that TestManyKeys stores before it measures; 1000000 takes minutes")
	perTenant  = flag.Int("per-organization", 10, "number of keys of each organization in TestManyKeys")
	benchmarks = 10_000 // keys stored for benchmarks
)

// numbered is the n-th of many keys.
func numbered(n, perTenant int) keys.Key {
	id := fmt.Sprintf("key_%032x", n)
	now := time.UnixMicro(1_700_000_000_000_000 + int64(n))
	return keys.Key{
		ID: id, Name: fmt.Sprint("service ", n%1000), Description: "made to measure", Organization: fmt.Sprintf("org_%032x", n/perTenant),
		Account: fmt.Sprintf("acc_%032x", n/perTenant), Permissions: []string{"orders:read", "orders:write", "invoices:*"}, CreatedAt: now, UpdatedAt: now,
		Secrets: []keys.Secret{{Hash: keys.HashSecret(id), Prefix: "kg_live", LastFour: "abcd", CreatedAt: now}},
	}
}

// fillTenants stores the organizations for n keys, fill then the keys.
func fillTenants(tb testing.TB, s *Store, n, perTenant int) {
	tb.Helper()
	var m keys.Mutation
	for i := 0; i <= n/perTenant; i++ {
		o, a := fmt.Sprintf("org_%032x", i), fmt.Sprintf("acc_%032x", i)
		m.Organizations = append(m.Organizations, keys.Organization{ID: o, Slug: fmt.Sprint("org-", i), Plan: "free"})
		m.Accounts = append(m.Accounts, keys.Account{ID: a, Organization: o, Name: "default"})
		m.Grants = append(m.Grants, keys.Grant{ID: fmt.Sprintf("grt_%032x", i), Account: a, Organization: o, Role: "owner"})
		if len(m.Grants) == 300 || i == n/perTenant {
			apply(tb, s, m)
			m = keys.Mutation{}
		}
	}
}

func fill(tb testing.TB, s *Store, n, perTenant int) {
	tb.Helper()
	var m keys.Mutation
	for i := range n {
		m.Keys = append(m.Keys, numbered(i, perTenant))
		if len(m.Keys) == 500 || i == n-1 {
			apply(tb, s, m)
			m = keys.Mutation{}
		}
	}
}

// creation is a key made as the service makes it: a bound and an audit entry.
func creation(n, perTenant int) keys.Mutation {
	k := numbered(n, perTenant)
	return keys.Mutation{
		At: time.Now(), Keys: []keys.Key{k}, MaxKeys: &keys.MaxKeys{Organization: k.Organization, Max: 1_000_000},
		Audit: []keys.AuditEntry{{ID: "aud_" + k.ID, At: time.Now(), Action: "key.create", Actor: k.ID, Kind: keys.KindKey, Target: k.ID, After: []byte(`{"id":"` + k.ID + `"}`)}},
	}
}

func BenchmarkLookup(b *testing.B) {
	s := openStore(b, Options{Client: client(b, redistest.Start(b, redistest.Options{}).URL())})
	fillTenants(b, s, benchmarks, 100)
	fill(b, s, benchmarks, 100)
	ctx, cancel := context.WithCancel(context.Background()) // as requests have
	defer cancel()
	one := func() {
		if _, err := s.Lookup(ctx, numbered(rand.IntN(benchmarks), 100).Secrets[0].Hash); err != nil {
			b.Error(err)
		}
	}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			one()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				one()
			}
		})
	})
}

func BenchmarkCreate(b *testing.B) {
	for _, aof := range []string{"", "everysec", "always"} {
		b.Run("aof="+aof, func(b *testing.B) {
			s := openStore(b, Options{Client: client(b, redistest.Start(b, redistest.Options{AOF: aof}).URL())})
			fillTenants(b, s, 100, 1_000_000_000)
			var next atomic.Int64
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := s.Apply(context.Background(), creation(int(next.Add(1)), 1_000_000_000)); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

// TestManyKeys stores -fill keys and says what each takes of Redis's memory, and
// of its time. With -v and a million:
//
//	go test ./internal/store/redis -run ManyKeys -v -fill 1000000 -timeout 30m
func TestManyKeys(t *testing.T) {
	n, each := *fillKeys, *perTenant
	server := redistest.Start(t, redistest.Options{})
	s := openStore(t, Options{Client: client(t, server.URL())})
	ctx := t.Context()
	used := func() int {
		server.Do("MEMORY", "PURGE")
		info := fmt.Sprint(server.Do("INFO", "memory"))
		bytes, err := strconv.Atoi(regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(info)[1])
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	empty := used()
	fillTenants(t, s, n, each)
	tenants := used()
	start := time.Now()
	fill(t, s, n, each)
	took := time.Since(start)
	server.Do("DEL", changesKey) // its length is bounded
	t.Logf("%d keys, %d of each organization, stored in %v; a key takes %d bytes, an organization with an account and its grant %d",
		n, each, took.Round(time.Millisecond), (used()-tenants)/n, (tenants-empty)/(n/each+1))

	// µs of Redis's own time, and with the trip over loopback and this side's work.
	measure := func(what string, times int, do func(i int) error) {
		t.Helper()
		server.Do("CONFIG", "RESETSTAT")
		start := time.Now()
		for i := range times {
			if err := do(i); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		whole := time.Since(start) / time.Duration(times)
		own, trips := 0, 0
		for _, line := range regexp.MustCompile(`cmdstat_(\w+):calls=(\d+),usec=(\d+)`).FindAllStringSubmatch(fmt.Sprint(server.Do("INFO", "commandstats")), -1) {
			if line[1] != "evalsha" && line[1] != "get" && line[1] != "zrevrangebylex" || line[1] == "get" && own > 0 {
				continue // what scripts call counts as theirs
			}
			calls, _ := strconv.Atoi(line[2])
			usec, _ := strconv.Atoi(line[3])
			own, trips = max(own, usec), max(trips, calls)
		}
		t.Logf("%-44s %6.1fµs of Redis, %v in all", what, float64(own)/float64(times), whole.Round(time.Microsecond))
	}
	page := func(f keys.KeyFilter, after func() string) func(int) error {
		return func(int) error {
			got, err := s.Keys(ctx, f, keys.Page{After: after(), Limit: 50})
			if err == nil && len(got.Keys) == 0 {
				err = fmt.Errorf("an empty page")
			}
			return err
		}
	}
	first := func() string { return "" }
	middle := func() string { return numbered(n/2+rand.IntN(n/2), each).ID }
	one := numbered(n/2, each).Organization
	measure("Lookup", 2000, func(int) error {
		_, err := s.Lookup(ctx, numbered(rand.IntN(n), each).Secrets[0].Hash)
		return err
	})
	measure("first page of 50, all", 200, page(keys.KeyFilter{}, first))
	measure("page of 50 in the middle, all", 200, page(keys.KeyFilter{}, middle))
	measure("page of 50, an organization", 200, page(keys.KeyFilter{Organization: one}, first))
	measure("page of 50, a name", 200, page(keys.KeyFilter{Name: "service 7"}, first))
	measure("create, bounded, with an audit entry", 500, func(i int) error {
		m := creation(n+i, each)
		m.Keys[0].Organization, m.Keys[0].Account = one, numbered(n/2, each).Account
		m.MaxKeys.Organization = one
		_, err := s.Apply(ctx, m)
		return err
	})
	measure("pause", 500, func(i int) error {
		k := numbered(i, each)
		k.Version, k.PausedAt = 1, time.Now()
		_, err := s.Apply(ctx, keys.Mutation{Keys: []keys.Key{k}, Audit: []keys.AuditEntry{{ID: fmt.Sprint("aud_pause", i)}}})
		return err
	})
}
