package auth

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// TestTerms: what was negotiated for an organization or key replaces and adds to
// the limits of the plan, and the key holds them all.
func TestTerms(t *testing.T) {
	f := newFixture(t)
	secret := f.format.Generate()
	k := someKey
	k.Overrides = keys.Overrides{Limits: []ratelimit.Limit{{Name: "minute", Quota: 7, Per: time.Minute}}}.Encode()
	f.store.put(secret, k)
	found := f.store.found[keys.HashSecret(secret)]
	found.Organization.Overrides = keys.Overrides{Limits: []ratelimit.Limit{
		{Name: "minute", Quota: 1000, Per: time.Minute}, {Name: "day", Quota: 50, Per: 24 * time.Hour},
	}}.Encode()
	f.store.found[keys.HashSecret(secret)] = found
	p, refusal := f.Authenticate(context.Background(), secret, noClient, f.policy)
	if refusal != nil {
		t.Fatal(refusal)
	}
	want := []ratelimit.Limit{
		{Name: "minute", Holder: k.ID, Quota: 7, Per: time.Minute}, {Name: "day", Holder: k.ID, Quota: 50, Per: 24 * time.Hour},
	}
	if !slices.Equal(p.Plan.Limits, want) {
		t.Errorf("limits %+v", p.Plan.Limits)
	}
	if !slices.Equal(p.LimitPolicy, []string{`"minute";q=7;w=60, "day";q=50;w=86400`}) {
		t.Errorf("%q", p.LimitPolicy)
	}
	if got := f.policy.Plans["free"].Limits[0]; got.Quota != 100 || got.Holder != "" {
		t.Errorf("the policy's plan was changed: %+v", got)
	}
}

// TestUnreadableTerms: a key whose terms cannot be read is not served under the
// plan alone, and its owner is not told that the key is wrong.
func TestUnreadableTerms(t *testing.T) {
	for name, raw := range map[string]string{
		"no JSON":        `{`,
		"no duration":    `{"limits":[{"name":"a","requests":1,"per":"soon"}]}`,
		"no limit":       `{"limits":[{"name":"a","requests":0,"per":"1m"}]}`,
		"too many of it": `{"max_keys":-7}`,
	} {
		f := newFixture(t)
		secret := f.format.Generate()
		k := someKey
		k.Overrides = json.RawMessage(raw)
		f.store.put(secret, k)
		_, refusal := f.Authenticate(context.Background(), secret, noClient, f.policy)
		if refusal == nil || refusal.Reason != Unavailable || refusal.Err == nil {
			t.Errorf("%s: %+v", name, refusal)
		}
		k.RevokedAt = f.now()
		f.store.put(secret, k)
		f.Changed(keys.Change{Kind: keys.KindKey, ID: k.ID, Version: 2})
		if got := f.reason(secret); got != KeyRevoked {
			t.Errorf("%s, revoked: reason %d", name, got)
		}
	}
}
