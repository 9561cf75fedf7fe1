package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"keygate/auth"
	"keygate/internal/keys"
)

var madeAt = time.Now().UTC()

// madeUp answers every lookup with a key of its own, and counts.
type madeUp struct {
	lookups atomic.Int64
	pause   time.Duration
}

func (m *madeUp) Lookup(_ context.Context, h keys.Hash) (keys.Found, error) {
	n := int(m.lookups.Add(1))
	time.Sleep(m.pause)
	now := madeAt // of what keys share, as a store says it each time
	k := scaleKey(n, now)
	k.Secrets[0].Hash, k.PausedAt, k.ExpiresAt = h, time.Time{}, time.Time{}
	return keys.Found{
		Key:          k,
		Organization: keys.Organization{ID: k.Organization, Slug: fmt.Sprint("org-", n%scaleOrganizations), Name: "Organization", Plan: keys.PlanFree, CreatedAt: now},
		Grants:       []keys.Grant{{ID: "grt_" + k.Organization[4:], Account: k.Account, Organization: k.Organization, Role: keys.RoleOwner, CreatedAt: now}},
	}, nil
}

func (m *madeUp) Space(context.Context, string, string) (keys.Space, error) {
	return keys.Space{}, keys.ErrNotFound
}

func (m *madeUp) Setting(context.Context, string) (keys.Setting, error) {
	return keys.Setting{}, keys.ErrNotFound
}

// cachedKey measures what a remembered key takes in memory, in this process, and
// counts what the store is asked when many requests miss the same key at once.
func cachedKey(ctx context.Context, stdout io.Writer) error {
	const n = 100_000
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		return err
	}
	catalogue, err := keys.NewCatalogue([]keys.Permission{{Name: "items:read"}, {Name: "orders:read"}, {Name: "orders:write"}})
	if err != nil {
		return err
	}
	policy := &keys.Policy{Catalogue: catalogue, Roles: keys.BuiltinRoles(), Plans: keys.BuiltinPlans(), DefaultPlan: keys.PlanFree}
	store := &madeUp{}
	a := auth.New(auth.Options{Store: store, Format: format, CacheKeys: 2 * n, Now: time.Now})
	before := heap()
	for range n {
		if err := authenticate(ctx, a, format.Generate(), policy); err != nil {
			return err
		}
	}
	after := heap()
	fmt.Fprintf(stdout, "a remembered key takes %d bytes, with all that decisions need (%d keys)\n", (after-before)/n, n)

	store.lookups.Store(0)
	store.pause = 20 * time.Millisecond
	secret := format.Generate()
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 200 {
		all.Go(func() {
			if err := authenticate(ctx, a, secret, policy); err != nil {
				failed.Store(&err)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	fmt.Fprintf(stdout, "200 requests that miss one key at the same time ask the store %d time(s)\n", store.lookups.Load())
	runtime.KeepAlive(a)
	return nil
}

func authenticate(ctx context.Context, a *auth.Authenticator, secret string, policy *keys.Policy) error {
	if _, refused := a.Authenticate(ctx, secret, netip.Addr{}, policy); refused != nil {
		return errors.New("a made-up key was refused: " + refused.Detail)
	}
	return nil
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
