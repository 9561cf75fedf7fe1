package management

import (
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// testPolicy has few names, so that random choices meet.
func testPolicy(t failer) *keys.Policy {
	t.Helper()
	catalogue, err := keys.NewCatalogue([]keys.Permission{{Name: "orders:read"}, {Name: "orders:write"}, {Name: "reports:read"}})
	if err != nil {
		t.Fatalf("%v", err)
	}
	plan := func(name string, most int) keys.Plan {
		return keys.Plan{Name: name, MaxKeys: most, Limits: []ratelimit.Limit{{Name: "minute", Quota: 100, Per: time.Minute}}}
	}
	return &keys.Policy{
		Catalogue: catalogue,
		Roles: map[string][]string{
			"owner":   {"admin"},
			"keeper":  {"keygate:keys-read", "keygate:keys-write", "orders:read", "orders:write"},
			"people":  {"keygate:members", "orders:read"},
			"auditor": {"keygate:audit", "keygate:keys-read"},
			"viewer":  {"read:all"},
		},
		Plans: map[string]keys.Plan{
			"small": plan("small", 4), "wide": plan("wide", keys.Unlimited), "none": plan("none", 0),
		},
		DefaultPlan: "small",
	}
}
