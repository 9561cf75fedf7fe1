package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/keys"
)

// fakeStore answers lookups under the test's control: what matters here is when
// an answer arrives in relation to a change.
type fakeStore struct {
	mu      sync.Mutex
	found   map[keys.Hash]keys.Found
	spaces  map[string]keys.Space
	forms   string // the setting's value
	err     error
	lookups atomic.Int64
	before  func() // runs inside each lookup, after the record was read
}

func (s *fakeStore) Lookup(_ context.Context, h keys.Hash) (keys.Found, error) {
	s.lookups.Add(1)
	s.mu.Lock()
	f, ok := s.found[h]
	err, before := s.err, s.before
	s.mu.Unlock()
	if before != nil {
		before()
	}
	if err != nil {
		return keys.Found{}, err
	}
	if !ok {
		return keys.Found{}, keys.ErrNotFound
	}
	return f, nil
}

func (s *fakeStore) Space(_ context.Context, organization, ref string) (keys.Space, error) {
	s.lookups.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp, ok := s.spaces[organization+"/"+ref]; ok {
		return sp, nil
	}
	return keys.Space{}, keys.ErrNotFound
}

func (s *fakeStore) Setting(_ context.Context, name string) (keys.Setting, error) {
	s.lookups.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return keys.Setting{}, s.err
	case s.forms == "" || name != keys.FormsSetting:
		return keys.Setting{}, keys.ErrNotFound
	}
	return keys.Setting{Name: name, Value: s.forms, Version: 1}, nil
}

func (s *fakeStore) put(secret string, k keys.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.Secrets = []keys.Secret{{Hash: keys.HashSecret(secret)}}
	s.found[keys.HashSecret(secret)] = keys.Found{Key: k, Organization: keys.Organization{ID: k.Organization, Plan: "free"}}
}

type fixture struct {
	*Authenticator
	store  *fakeStore
	policy *keys.Policy
	format keys.Format
	nanos  atomic.Int64
}

func (f *fixture) now() time.Time { return time.Unix(0, f.nanos.Load()) }

func (f *fixture) advance(d time.Duration) { f.nanos.Add(int64(d)) }

func newFixture(t testing.TB) *fixture {
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	catalogue, err := keys.NewCatalogue(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{
		store:  &fakeStore{found: make(map[keys.Hash]keys.Found), spaces: make(map[string]keys.Space)},
		policy: &keys.Policy{Catalogue: catalogue, Roles: keys.BuiltinRoles(), Plans: keys.BuiltinPlans(), DefaultPlan: keys.PlanFree},
		format: format,
	}
	f.nanos.Store(time.Now().UnixNano())
	f.Authenticator = New(Options{Store: f.store, Format: format, CacheKeys: 100, LookupTimeout: time.Second, Now: f.now})
	return f
}

func (f *fixture) reason(secret string) Reason {
	_, refusal := f.Authenticate(context.Background(), secret, noClient, f.policy)
	if refusal == nil {
		return 0
	}
	return refusal.Reason
}

// noClient is the address where none matters.
var noClient netip.Addr

var someKey = keys.Key{ID: "key_1", Organization: "org_1", Account: "acc_1", Version: 1}

func TestMalformedKeysCostNoLookup(t *testing.T) {
	f := newFixture(t)
	good := f.format.Generate()
	for _, token := range []string{"x", good[:len(good)-1], good + "0", "sk_live_" + good[8:], ""} {
		if got := f.reason(token); got != Invalid {
			t.Errorf("%q: reason %d", token, got)
		}
	}
	if n := f.store.lookups.Load(); n != 1 { // for the forms of foreign keys, once
		t.Errorf("%d lookups", n)
	}
}

func TestUnknownKeysAreRememberedForSeconds(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	for range 10 {
		if f.reason(secret) != Invalid {
			t.Fatal("admitted")
		}
	}
	if n := f.store.lookups.Load(); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
	f.advance(unknownFor)
	f.reason(secret)
	if n := f.store.lookups.Load(); n != 2 {
		t.Errorf("%d lookups after the time of remembering, want 2", n)
	}
	// A key made under a secret that was asked for before works at once.
	f.store.put(secret, someKey)
	f.Changed(keys.Change{Kind: keys.KindKey, ID: someKey.ID, Version: 1})
	if got := f.reason(secret); got != 0 {
		t.Errorf("a new key is refused: reason %d", got)
	}
}

func TestMissesOfOneKeyShareALookup(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	release := make(chan struct{})
	f.store.before = func() { <-release }
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got := f.reason(secret); got != 0 {
				t.Errorf("reason %d", got)
			}
		})
	}
	for f.store.lookups.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	// A goroutine that came after the first answer finds the cache filled.
	if n := f.store.lookups.Load(); n != 1 {
		t.Errorf("%d lookups for 50 requests", n)
	}
}

// TestChangeDuringALookup: a record read before a change must neither be
// remembered nor be handed to anybody who came after the change.
func TestChangeDuringALookup(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	read, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	f.store.before = func() {
		if first.CompareAndSwap(false, true) {
			close(read)
			<-release
		}
	}
	early := make(chan Reason)
	go func() { early <- f.reason(secret) }()
	<-read // the lookup holds the old record
	revoked := someKey
	revoked.Version, revoked.RevokedAt = 2, time.Now()
	f.store.put(secret, revoked)
	f.Changed(keys.Change{Kind: keys.KindKey, ID: revoked.ID, Version: 2})
	// Acknowledged: who asks from here on must see it, though the first lookup
	// is still under way.
	if got := f.reason(secret); got != KeyRevoked {
		t.Fatalf("after the change: reason %d, want %d", got, KeyRevoked)
	}
	close(release)
	<-early
	if got := f.reason(secret); got != KeyRevoked {
		t.Fatalf("the old record was remembered: reason %d", got)
	}
}

func TestChangesDropWhatDependsOnThem(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	lookups := func() int64 { f.reason(secret); return f.store.lookups.Load() }
	n := lookups()
	for _, c := range []keys.Change{
		{Kind: keys.KindKey, ID: someKey.ID, Version: 2},
		{Kind: keys.KindOrganization, ID: someKey.Organization, Version: 2},
		{Kind: keys.KindAccount, ID: someKey.Account, Version: 2},
		{Kind: keys.KindSpace, ID: "spc_1", Organization: someKey.Organization, Version: 2},
	} {
		f.Changed(c)
		if got := lookups(); got != n+1 {
			t.Errorf("%s: %d lookups, want 1", c.Kind, got-n)
		}
		n++
	}
	for range 10 {
		if got := lookups(); got != n {
			t.Fatal("nothing changed and the store was asked")
		}
	}
}

func TestStoreFailureIsNeverA401(t *testing.T) {
	f := newFixture(t)
	f.store.err = errors.New("gone")
	_, refusal := f.Authenticate(context.Background(), f.format.Generate(), noClient, f.policy)
	if refusal == nil || refusal.Reason != Unavailable || refusal.Err == nil {
		t.Fatalf("%+v", refusal)
	}
	if a := refusal.Answer("r", "GET /"); a.Status != 503 || a.Challenge != "" {
		t.Errorf("%+v", a)
	}
	// The failure is not remembered.
	f.store.err = nil
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	if got := f.reason(secret); got != 0 {
		t.Errorf("reason %d", got)
	}
}

func TestExpiryCountsFromItsInstant(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	k := someKey
	k.ExpiresAt = f.now().Add(time.Hour).Truncate(time.Microsecond) // as stores keep it
	f.store.put(secret, k)
	f.nanos.Store(k.ExpiresAt.UnixNano() - 1)
	if got := f.reason(secret); got != 0 {
		t.Errorf("a nanosecond before: reason %d", got)
	}
	f.advance(1)
	if got := f.reason(secret); got != KeyExpired {
		t.Errorf("at the instant: reason %d", got)
	}
}

func TestAnotherPolicyIsAnotherPrincipal(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	first, _ := f.Authenticate(context.Background(), secret, noClient, f.policy)
	again, _ := f.Authenticate(context.Background(), secret, noClient, f.policy)
	if first != again {
		t.Error("the principal was computed twice for one policy")
	}
	next := *f.policy
	next.Plans = map[string]keys.Plan{"other": {Name: "other", MaxKeys: keys.Unlimited}}
	next.DefaultPlan = "other"
	p, _ := f.Authenticate(context.Background(), secret, noClient, &next)
	if p.PlanKnown || p.Plan.Name != "other" {
		t.Errorf("plan %q, known %v", p.Plan.Name, p.PlanKnown)
	}
	if n := f.store.lookups.Load(); n != 1 {
		t.Errorf("%d lookups", n)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	f := newFixture(b)
	secret := f.format.Generate()
	f.store.put(secret, someKey)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, r := f.Authenticate(ctx, secret, noClient, f.policy); r != nil {
			b.Fatal(r)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	f := newFixture(b)
	secret := f.format.Generate()
	for b.Loop() {
		keys.HashSecret(secret)
	}
}

// Names of spaces that there are not are remembered, and clients make them up: each
// held the whole request line that it was cut from, and one of 60 KiB its 60 KiB, 4 GB
// in all. What is longer than any name is not even asked for.
func TestNamesOfSpacesAreNotHeldWhole(t *testing.T) {
	f := newFixture(t)
	ask := func(ref string) {
		t.Helper()
		if space, err := f.cache.space(t.Context(), "org_1", ref); space != nil || err != nil {
			t.Fatal(space, err)
		}
	}
	ask(strings.Repeat("x", maxRef+1))
	if n := f.store.lookups.Load(); n != 0 {
		t.Errorf("%d lookups of what cannot be a name", n)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const names, line = 4000, 8 << 10
	for i := range names {
		text := fmt.Sprintf("%d/%s", i, strings.Repeat("x", line))
		ask(text[:strings.IndexByte(text, '/')])
	}
	if grown := int64(heap()) - int64(before); grown > names*line/4 {
		t.Errorf("%d names take %d KiB", names, grown>>10)
	}
	if n := f.store.lookups.Load(); n != names {
		t.Errorf("%d lookups", n)
	}
	runtime.KeepAlive(f)
}
