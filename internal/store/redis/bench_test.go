package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

const benchmarks = 10_000 // keys stored for benchmarks

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
