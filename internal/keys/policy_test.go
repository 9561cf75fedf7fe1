package keys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

func policy(t testing.TB) *keys.Policy {
	return &keys.Policy{
		Catalogue: catalogue(t, shop()...),
		Roles: map[string][]string{
			"owner":  {"admin"},
			"viewer": {"read:all"},
			"seller": {"orders:read", "orders:write"},
			"forged": {"keygate:operator", "keygate:usage"}, // CheckRole refuses it; a file that got past must gain nothing
		},
		Plans:       keys.BuiltinPlans(),
		DefaultPlan: keys.PlanFree,
	}
}

func TestGranted(t *testing.T) {
	p := policy(t)
	grants := []keys.Grant{
		{Organization: "org_1", Role: "viewer"},
		{Organization: "org_1", Permission: "goods:create"},
		{Organization: "org_1", Space: "spc_1", Role: "seller"},
		{Organization: "org_1", Space: "spc_2", Permission: "orders:*"},
		{Organization: "org_2", Role: "gone"},
		{Organization: "org_2", Permission: "gone:read"},
		{Organization: "org_3", Role: "forged"},
		{Organization: "org_3", Permission: "keygate:operator"},
		{Organization: "org_3", Space: "spc_3", Permission: "keygate:operator"},
		{Permission: "keygate:operator"},
		{Permission: "logs:read"},
	}
	tests := []struct {
		name, organization, space string
		want                      []string
	}{
		{"organization: roles and permissions, not those of its spaces", "org_1", "", []string{"goods:create", "goods:read", "orders:read", "read:all"}},
		{"space: only what is added there", "org_1", "spc_1", []string{"orders:read", "orders:write"}},
		{"the other space", "org_1", "spc_2", []string{"orders:delete", "orders:read", "orders:write"}},
		{"a space without grants", "org_1", "spc_9", []string{}},
		{"a space's id under another organization", "org_2", "spc_1", []string{}},
		{"unknown roles and permissions grant nothing", "org_2", "", []string{}},
		{"operator never counts at an organization", "org_3", "", []string{"keygate:usage"}},
		{"nor at a space", "org_3", "spc_3", []string{}},
		{"instance grants do not reach into organizations", "org_9", "", []string{}},
		{"operator counts at the instance", "", "", []string{"keygate:operator", "logs:read"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, p.Catalogue.Names(p.Granted(grants, tt.organization, tt.space))); diff != "" {
				t.Errorf("granted (-want +got):\n%s", diff)
			}
		})
	}
	// Asking does not wear the catalogue: operator is removed from a copy.
	if diff := cmp.Diff([]string{"keygate:operator"}, granted(p.Catalogue, "keygate:operator")); diff != "" {
		t.Errorf("after Granted (-want +got):\n%s", diff)
	}
}

// K9: a key never has more permission than its owner, whatever is written on it.
func TestCeiling(t *testing.T) {
	p := policy(t)
	grants := []keys.Grant{
		{Organization: "org_1", Role: "viewer"},
		{Organization: "org_1", Space: "spc_1", Role: "seller"},
	}
	key := p.Catalogue.Expand([]string{"admin", "keygate:operator"})
	atOrganization := p.Granted(grants, "org_1", "")
	if diff := cmp.Diff([]string{"goods:read", "orders:read", "read:all"}, p.Catalogue.Names(key.And(atOrganization))); diff != "" {
		t.Errorf("at the organization (-want +got):\n%s", diff)
	}
	atSpace := atOrganization.Or(p.Granted(grants, "org_1", "spc_1"))
	if diff := cmp.Diff([]string{"goods:read", "orders:read", "orders:write", "read:all"}, p.Catalogue.Names(key.And(atSpace))); diff != "" {
		t.Errorf("at the space (-want +got):\n%s", diff)
	}
	if got := p.Catalogue.Names(p.Catalogue.Expand([]string{"orders:write"}).And(atOrganization)); len(got) != 0 {
		t.Errorf("a key with a permission that its owner lost keeps %q", got)
	}
}

func TestCheckRole(t *testing.T) {
	p := policy(t)
	for _, grant := range []string{"admin", "read:all", "orders:*", "*", "keygate:*", "keygate:members"} {
		if err := p.CheckRole(grant); err != nil {
			t.Errorf("CheckRole(%q): %v", grant, err)
		}
	}
	for grant, problem := range map[string]string{"keygate:operator": "instance only", "gone:read": "not in the catalogue", "gone:*": "matches nothing"} {
		if err := p.CheckRole(grant); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("CheckRole(%q): %v: want %q", grant, err, problem)
		}
	}
}

func TestBuiltinPlansAndRoles(t *testing.T) {
	perMinute := func(name string, requests int64, most int) keys.Plan {
		return keys.Plan{Name: name, MaxKeys: most, Limits: []ratelimit.Limit{{Name: "minute", Quota: requests, Per: time.Minute}}}
	}
	want := map[string]keys.Plan{
		"free":       perMinute("free", 100, 5),
		"starter":    perMinute("starter", 500, 10),
		"pro":        perMinute("pro", 2000, 50),
		"enterprise": {Name: "enterprise", MaxKeys: keys.Unlimited},
	}
	if diff := cmp.Diff(want, keys.BuiltinPlans()); diff != "" {
		t.Errorf("plans (-want +got):\n%s", diff)
	}
	for name, plan := range keys.BuiltinPlans() {
		if err := plan.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(map[string][]string{"owner": {"admin"}}, keys.BuiltinRoles()); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
}

func TestPlanOf(t *testing.T) {
	p := policy(t)
	for _, tt := range []struct {
		organization, key, want string
		known                   bool
	}{
		{"pro", "", "pro", true},
		{"pro", "starter", "starter", true},
		{"pro", "enterprise", "enterprise", true},
		{"gone", "", "free", false},
		{"pro", "gone", "free", false},
		{"", "", "free", false},
	} {
		plan, known := p.PlanOf(tt.organization, tt.key)
		if plan.Name != tt.want || known != tt.known {
			t.Errorf("PlanOf(%q, %q) = %s, %t: want %s, %t", tt.organization, tt.key, plan.Name, known, tt.want, tt.known)
		}
	}
}

func TestPlanValidate(t *testing.T) {
	limit := func(name string) ratelimit.Limit {
		return ratelimit.Limit{Name: name, Quota: 1, Per: time.Second}
	}
	many := func(n int) (limits []ratelimit.Limit) {
		for i := range n {
			limits = append(limits, limit("l"+string(rune('a'+i))))
		}
		return limits
	}
	for _, tt := range []struct {
		name    string
		plan    keys.Plan
		problem string // empty: valid
	}{
		{"no limits, no keys", keys.Plan{}, ""},
		{"unlimited keys", keys.Plan{MaxKeys: keys.Unlimited}, ""},
		{"as many limits as allowed", keys.Plan{Limits: many(8)}, ""},
		{"one more", keys.Plan{Limits: many(9)}, "at most 8"},
		{"fewer than unlimited keys", keys.Plan{MaxKeys: -2}, "max_keys is -2"},
		{"two limits of a name", keys.Plan{Limits: []ratelimit.Limit{limit("a"), limit("b"), limit("a")}}, `two limits named "a"`},
		{"a wrong limit", keys.Plan{Limits: []ratelimit.Limit{limit("a"), {Name: "b", Per: time.Second}}}, `limit "b"`},
	} {
		err := tt.plan.Validate()
		if tt.problem == "" && err != nil || tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: %v: want %q", tt.name, err, tt.problem)
		}
	}
}
