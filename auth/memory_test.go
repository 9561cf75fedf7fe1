package auth

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"keygate/internal/keys"
)

// customers has keys of a thousand organizations, each string and record of every
// answer a copy of its own, as stores decode them.
type customers struct {
	fakeStore
	n int
}

func (c *customers) Lookup(_ context.Context, h keys.Hash) (keys.Found, error) {
	c.n++
	organization, account := fmt.Sprintf("org_%032x", c.n%1000), fmt.Sprintf("acc_%032x", c.n%1000)
	now := time.Now()
	return keys.Found{
		Key: keys.Key{
			ID: fmt.Sprintf("key_%032x", c.n), Name: fmt.Sprintf("key number %d", c.n), Organization: organization, Account: account,
			Description: fmt.Sprintf("the key number %d of those that the test makes up", c.n), Permissions: []string{fmt.Sprint("read", ":all"), fmt.Sprint("*", ":write")},
			Secrets:   []keys.Secret{{Hash: h, Prefix: fmt.Sprint("kg_", "live"), LastFour: fmt.Sprintf("%04d", c.n%10000), CreatedAt: now}},
			CreatedAt: now, UpdatedAt: now, ExpiresAt: now.AddDate(0, 0, 90), Version: 1,
		},
		Organization: keys.Organization{ID: organization, Slug: "slug-" + organization, Name: "The name of " + organization, Plan: keys.PlanFree, CreatedAt: now, Version: 1},
		Grants:       []keys.Grant{{ID: fmt.Sprintf("grt_%032x", c.n%1000), Account: account, Organization: organization, Role: keys.RoleOwner}},
	}, nil
}

// A remembered key takes less than 1 KiB, with all that decisions need, and gives
// it back when it is forgotten: what keys share goes with the last of them.
func TestMemoryOfARememberedKey(t *testing.T) {
	const n = 20_000
	f := newFixture(t)
	a := New(Options{Store: &customers{}, Format: f.format, CacheKeys: 2 * n, Now: time.Now})
	before := heapInUse()
	for range n {
		if _, refusal := a.Authenticate(context.Background(), f.format.Generate(), netip.Addr{}, f.policy); refusal != nil {
			t.Fatal(refusal)
		}
	}
	each := (heapInUse() - before) / n
	t.Logf("%d bytes", each)
	if each > 1024 {
		t.Errorf("a remembered key takes %d bytes", each)
	}
	a.cache.found.InvalidateAll()
	a.cache.found.CleanUp()
	owners := a.cache.shared.owners
	left := -1
	for range 500 { // clean-ups run some time after a collection
		runtime.GC()
		owners.mu.Lock()
		left = len(owners.values)
		owners.mu.Unlock()
		if left == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d owners are left of keys that were forgotten", left)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
