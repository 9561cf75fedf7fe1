package sqlite

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/keys"
)

var fillKeys = flag.Int("fill", 500, "number of keys that TestManyKeys stores before it measures; 1000000 takes minutes")

// numbered is the n-th of many keys that are spread over 100 organizations.
func numbered(n int) keys.Key {
	id := fmt.Sprintf("key_%032x", n)
	now := time.UnixMicro(1_700_000_000_000_000 + int64(n))
	k := keys.Key{
		ID: id, Name: fmt.Sprint("service ", n%1000), Description: "made to measure", Organization: fmt.Sprintf("org_%032x", n%100),
		Account: fmt.Sprintf("acc_%032x", n%100), Permissions: []string{"orders:read", "orders:write", "invoices:*"}, CreatedAt: now, UpdatedAt: now,
		Secrets: []keys.Secret{{Hash: keys.HashSecret(id), Prefix: "kg_live", LastFour: "abcd", CreatedAt: now}},
	}
	// Of each organization's keys some are paused, revoked, expired or about to
	// be, in a space, or were used.
	switch n / 100 % 20 {
	case 0:
		k.PausedAt = now
	case 1:
		k.RevokedAt = now
	case 2:
		k.ExpiresAt = now.Add(time.Hour)
	case 3:
		k.ExpiresAt = now.Add(10_000 * time.Hour)
	case 4, 5, 6:
		k.Space = fmt.Sprintf("spc_%032x", n%100)
	case 7, 8, 9, 10:
		k.LastUsedAt = now.Add(time.Duration(n%1000) * time.Hour)
	}
	return k
}

func fill(tb testing.TB, s *Store, n int) {
	tb.Helper()
	var m keys.Mutation
	for i := range 100 {
		o := fmt.Sprintf("org_%032x", i)
		a := fmt.Sprintf("acc_%032x", i)
		m.Organizations = append(m.Organizations, keys.Organization{ID: o, Slug: fmt.Sprint("org-", i)})
		m.Spaces = append(m.Spaces, keys.Space{ID: fmt.Sprintf("spc_%032x", i), Organization: o, Slug: "production"})
		m.Accounts = append(m.Accounts, keys.Account{ID: a, Organization: o})
		m.Grants = append(m.Grants, keys.Grant{ID: fmt.Sprintf("grt_%032x", i), Account: a, Organization: o, Role: "owner"})
	}
	for i := 0; i <= n; i++ {
		if len(m.Keys) == 1000 || i == n {
			if _, err := s.Apply(context.Background(), m); err != nil {
				tb.Fatal(err)
			}
			m = keys.Mutation{}
		}
		m.Keys = append(m.Keys, numbered(i))
	}
}

func BenchmarkLookup(b *testing.B) {
	s := openStore(b, Options{Dir: b.TempDir()})
	const n = 10_000
	fill(b, s, n)
	hashes := make([]keys.Hash, n)
	for i := range hashes {
		hashes[i] = numbered(i).Secrets[0].Hash
	}
	ctx, cancel := context.WithCancel(context.Background()) // as requests have
	defer cancel()
	one := func() {
		if _, err := s.Lookup(ctx, hashes[rand.IntN(n)]); err != nil {
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
	b.Run("unknown", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Lookup(ctx, keys.Hash{1}); err != keys.ErrNotFound {
				b.Error(err)
			}
		}
	})
}

// BenchmarkCreate makes keys as the service does: a bound and an audit entry.
func BenchmarkCreate(b *testing.B) {
	for _, creators := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprint(creators, "-at-once"), func(b *testing.B) {
			s := openStore(b, Options{Dir: b.TempDir()})
			fill(b, s, 1000)
			var next atomic.Int64
			next.Store(1000)
			b.SetParallelism(max(1, creators/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					k := numbered(int(next.Add(1)))
					m := keys.Mutation{
						At: time.Now(), Keys: []keys.Key{k}, Audit: []keys.AuditEntry{{ID: "aud_" + k.ID, Action: "key.create"}},
						MaxKeys: &keys.MaxKeys{Organization: k.Organization, Max: 1000},
					}
					if _, err := s.Apply(context.Background(), m); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

// TestManyKeys stores -fill keys and says what pages, lookups, a bounded
// creation and a start cost then. With -v and a million:
//
//	go test ./internal/store/sqlite -run ManyKeys -v -fill 1000000 -timeout 30m
func TestManyKeys(t *testing.T) {
	n := *fillKeys
	rounds := min(500, n/20)
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir})
	ctx := t.Context()
	start := time.Now()
	fill(t, s, n)
	t.Logf("%d keys stored in %v", n, time.Since(start).Round(time.Millisecond))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("control.db: %d MiB, %d bytes a key", info.Size()>>20, info.Size()/int64(n))
	start = time.Now()
	s = openStore(t, Options{Dir: dir})
	t.Logf("opened in %v", time.Since(start).Round(time.Microsecond))

	measure := func(what string, times int, do func(i int) error) {
		t.Helper()
		start := time.Now()
		for i := range times {
			if err := do(i); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Logf("%-48s %v", what, (time.Since(start) / time.Duration(times)).Round(100*time.Nanosecond))
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
	middle := func() string { return newestFirst.cursor(place{id: numbered(n/2 + rand.IntN(n/2)).ID}) }
	one := fmt.Sprintf("org_%032x", 7)
	measure("Lookup", rounds, func(int) error {
		_, err := s.Lookup(ctx, numbered(rand.IntN(n)).Secrets[0].Hash)
		return err
	})
	measure("first page of 50, all", rounds, page(keys.KeyFilter{}, first))
	measure("page of 50 in the middle, all", rounds, page(keys.KeyFilter{}, middle))
	measure("page of 50 in the middle, an organization", rounds, page(keys.KeyFilter{Organization: one}, middle))
	measure("page of 50, a name", rounds, page(keys.KeyFilter{Name: "service 7"}, first))
	measure("page of 50, a name in an organization", rounds, page(keys.KeyFilter{Organization: one, Name: "service 7"}, first))
	at := numbered(0).CreatedAt.Add(100 * time.Hour)
	for _, filter := range []struct {
		what string
		f    keys.KeyFilter
	}{
		{"an account", keys.KeyFilter{Account: fmt.Sprintf("acc_%032x", 7)}},
		{"a space", keys.KeyFilter{Space: fmt.Sprintf("spc_%032x", 7)}},
		{"active", keys.KeyFilter{Status: keys.Active}},
		{"paused", keys.KeyFilter{Status: keys.Paused}},
		{"revoked", keys.KeyFilter{Status: keys.Revoked}},
		{"expired", keys.KeyFilter{Status: keys.Expired}},
		{"expiring", keys.KeyFilter{ExpiresBefore: at.Add(20_000 * time.Hour)}},
		{"unused", keys.KeyFilter{UnusedSince: at}},
		{"part of a name that many have", keys.KeyFilter{Query: "SERVICE 7"}},
	} {
		filter.f.At = at
		measure("page of 50, "+filter.what, rounds, page(filter.f, first))
		filter.f.Organization = one
		measure("page of 50, "+filter.what+", in an organization", rounds, page(filter.f, first))
	}
	measure("a call that finds no part of a name", min(10, rounds), func(int) error {
		_, err := s.Keys(ctx, keys.KeyFilter{Query: "nothing of the kind"}, keys.Page{Limit: 50})
		return err
	})
	measure("1,000 uses", min(20, rounds/5), func(i int) error {
		uses := make([]keys.Use, 1000)
		for j := range uses {
			k := numbered(rand.IntN(n))
			uses[j] = keys.Use{Key: k.ID, Secret: k.Secrets[0].Hash, At: at.Add(time.Duration(i) * 10_000 * time.Hour)}
		}
		return s.Used(ctx, uses)
	})
	measure("create, bounded by 1,000,000 keys", 20, func(i int) error {
		_, err := s.Apply(ctx, keys.Mutation{At: time.Now(), Keys: []keys.Key{numbered(n + i)}, MaxKeys: &keys.MaxKeys{Organization: one, Max: 1_000_000}})
		return err
	})
	var all sync.WaitGroup
	start = time.Now()
	for i := range 64 {
		all.Go(func() {
			if _, err := s.Apply(ctx, keys.Mutation{At: time.Now(), Keys: []keys.Key{numbered(n + 100 + i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("%-48s %v", "64 creations at once, all of them", time.Since(start).Round(time.Microsecond))
}
