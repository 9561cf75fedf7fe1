package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// imported is a key string that was made elsewhere.
const imported = "sk_live_0123456789abcdefghij"

var (
	attacker = netip.MustParseAddr("2001:db8:1:2::1")
	customer = netip.MustParseAddr("192.0.2.1")
)

// limitFailures gives every address a budget.
func (f *fixture) limitFailures(t testing.TB, requests int, per time.Duration) {
	t.Helper()
	var err error
	if f.failures, err = ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: requests, Per: per, Now: f.now}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) declare(forms string) {
	f.store.mu.Lock()
	f.store.forms = forms
	f.store.mu.Unlock()
	f.Changed(keys.Change{Kind: keys.KindSetting, ID: keys.FormsSetting, Version: 1})
}

func (f *fixture) reasonFor(token string, client netip.Addr) Reason {
	_, refusal := f.Authenticate(context.Background(), token, client, f.policy)
	if refusal == nil {
		return 0
	}
	return refusal.Reason
}

// What has no form of ours is looked up only once an import has declared it; the
// declarations are read once, and again when one is added.
func TestForeignForms(t *testing.T) {
	f := newFixture(t)
	f.store.put(imported, keys.Key{ID: "key_1", Organization: "org_1"})
	for range 3 {
		if got := f.reasonFor(imported, customer); got != Invalid {
			t.Errorf("not declared: reason %d", got)
		}
	}
	if n := f.store.lookups.Load(); n != 1 {
		t.Errorf("%d questions to the store, want one for the forms", n)
	}
	f.declare(`[{"prefix":"sk_live_","min":20,"max":40}]`)
	for range 3 {
		if got := f.reasonFor(imported, customer); got != 0 {
			t.Errorf("declared: reason %d", got)
		}
	}
	if n := f.store.lookups.Load(); n != 3 {
		t.Errorf("%d questions to the store, want one more for the forms and one for the key", n)
	}
	for _, token := range []string{"sk_live_tooshort", imported + strings.Repeat("x", 40), "SK_LIVE_0123456789abcdefghij", "x" + imported, "kg_live_" + strings.Repeat("0", 36)} {
		if got := f.reasonFor(token, customer); got != Invalid {
			t.Errorf("%s: reason %d", token, got)
		}
	}
	if n := f.store.lookups.Load(); n != 3 {
		t.Errorf("junk cost %d questions to the store", n-3)
	}
}

// While it is not known which forms there are, a foreign key may be good: it is
// not invalid. Forms that were known stay so when the store is away.
func TestForeignFormsWithoutAStore(t *testing.T) {
	f := newFixture(t)
	f.store.put(imported, keys.Key{ID: "key_1", Organization: "org_1"})
	f.store.err = errors.New("away")
	if got := f.reasonFor(imported, customer); got != Unavailable {
		t.Errorf("reason %d, want unavailable", got)
	}
	f.store.err = nil
	f.declare(`[{"prefix":"sk_live_","min":20,"max":40}]`)
	if got := f.reasonFor(imported, customer); got != 0 {
		t.Fatalf("reason %d", got)
	}
	f.store.err = errors.New("away")
	f.Changed(keys.Change{Kind: keys.KindSetting, ID: keys.FormsSetting, Version: 2})
	if got := f.reasonFor(imported, customer); got != 0 {
		t.Errorf("in memory: reason %d", got)
	}
	if got := f.reasonFor("junk", customer); got != Invalid {
		t.Errorf("junk: reason %d", got)
	}
	f.store.err, f.store.forms = nil, "not JSON"
	f.Changed(keys.Change{Kind: keys.KindSetting, ID: keys.FormsSetting, Version: 3})
	if got := f.reasonFor(imported, customer); got != 0 {
		t.Errorf("an unreadable setting: reason %d", got)
	}
}

// An address that fails too often is told so, true to the second; what it is told
// about valid keys does not change, nor what others are told.
func TestFailuresHaveABudget(t *testing.T) {
	f := newFixture(t)
	f.limitFailures(t, 3, 30*time.Second)
	good, paused := f.format.Generate(), f.format.Generate()
	f.store.put(good, keys.Key{ID: "key_1", Organization: "org_1"})
	f.store.put(paused, keys.Key{ID: "key_2", Organization: "org_1", PausedAt: f.now()})
	for i := range 3 {
		if got := f.reasonFor(f.format.Generate(), attacker); got != Invalid {
			t.Errorf("failure %d: reason %d", i, got)
		}
	}
	neighbour := netip.MustParseAddr("2001:db8:1:2:ffff::9") // of the same /64
	for _, token := range []string{"junk", f.format.Generate()} {
		_, refusal := f.Authenticate(context.Background(), token, neighbour, f.policy)
		if refusal == nil || refusal.Reason != TooManyFailures || refusal.RetryAfter != 11 && refusal.RetryAfter != 10 {
			t.Errorf("%+v", refusal)
		}
	}
	if got := f.reasonFor(good, attacker); got != 0 {
		t.Errorf("a valid key: reason %d", got)
	}
	if got := f.reasonFor(paused, attacker); got != KeyPaused {
		t.Errorf("a key whose secret is right: reason %d", got)
	}
	if got := f.reasonFor("junk", customer); got != Invalid {
		t.Errorf("another address: reason %d", got)
	}
	f.advance(11 * time.Second)
	if got := f.reasonFor("junk", attacker); got != Invalid {
		t.Errorf("after the wait: reason %d", got)
	}
	if got := f.reasonFor("junk", netip.Addr{}); got != Invalid {
		t.Errorf("without an address: reason %d", got)
	}
}

// Tokens of a declared form have no checksum. Whoever makes them up pays with its
// own budget, not with lookups.
func TestForeignTokensBehindTheBudget(t *testing.T) {
	f := newFixture(t)
	f.limitFailures(t, 5, time.Minute)
	f.declare(`[{"prefix":"sk_live_","min":20,"max":40}]`)
	f.store.put(imported, keys.Key{ID: "key_1", Organization: "org_1"})
	if got := f.reasonFor(imported, customer); got != 0 {
		t.Fatalf("reason %d", got)
	}
	before := f.store.lookups.Load()
	for i := range 100 {
		got := f.reasonFor(fmt.Sprintf("sk_live_made-up-%012d", i), attacker)
		if want := map[bool]Reason{true: Invalid, false: TooManyFailures}[i < 5]; got != want {
			t.Fatalf("token %d: reason %d, want %d", i, got, want)
		}
	}
	if n := f.store.lookups.Load() - before; n != 5 {
		t.Errorf("100 made-up tokens cost %d lookups, want 5", n)
	}
	if got := f.reasonFor(imported, attacker); got != 0 {
		t.Errorf("an imported key in memory: reason %d", got)
	}
}
