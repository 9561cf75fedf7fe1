package auth

import (
	"context"
	"slices"
	"testing"

	"keygate/internal/keys"
)

// authorityOf is that of a key with these permissions whose owner has these grants.
func authorityOf(t *testing.T, f *fixture, k keys.Key, grants ...keys.Grant) keys.Authority {
	t.Helper()
	secret := f.format.Generate()
	f.store.put(secret, k)
	found := f.store.found[keys.HashSecret(secret)]
	found.Grants = grants
	if k.Organization == "" {
		found.Organization = keys.Organization{}
	}
	if k.Space != "" {
		found.Space = keys.Space{ID: k.Space, Organization: k.Organization, Slug: "slug"}
	}
	f.store.found[keys.HashSecret(secret)] = found
	p, refusal := f.Authenticate(context.Background(), secret, noClient, f.policy)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return p.Authority()
}

func TestAuthority(t *testing.T) {
	f := newFixture(t)
	owner := keys.Grant{Organization: "org_1", Role: keys.RoleOwner}
	viewer := keys.Grant{Organization: "org_1", Permission: keys.PermissionKeysRead}
	berlin := keys.Grant{Organization: "org_1", Space: "spc_b", Role: keys.RoleOwner}
	for _, c := range []struct {
		name   string
		key    keys.Key
		grants []keys.Grant

		operator         bool
		organization     string
		space            string
		here, in, beyond []string // held at the organization, in spc_b, in spc_x
	}{
		{
			name:     "an operator's",
			key:      keys.Key{ID: "k1", Permissions: []string{keys.PermissionOperator}},
			grants:   []keys.Grant{{Permission: keys.PermissionOperator}},
			operator: true,
			here:     []string{keys.PermissionOperator}, in: []string{keys.PermissionOperator}, beyond: []string{keys.PermissionOperator},
		},
		{
			name:   "the operators' without the permission",
			key:    keys.Key{ID: "k2", Permissions: []string{keys.PermissionAdmin}},
			grants: []keys.Grant{{Permission: keys.PermissionOperator}},
		},
		{
			name:         "an organization never has it",
			key:          keys.Key{ID: "k3", Organization: "org_1", Permissions: []string{keys.PermissionOperator, keys.PermissionKeysRead}},
			grants:       []keys.Grant{owner, {Organization: "org_1", Permission: keys.PermissionOperator}, {Permission: keys.PermissionOperator}},
			organization: "org_1",
			here:         []string{keys.PermissionKeysRead}, in: []string{keys.PermissionKeysRead}, beyond: []string{keys.PermissionKeysRead},
		},
		{
			name:         "what the owner has in one space",
			key:          keys.Key{ID: "k4", Organization: "org_1", Permissions: []string{keys.PermissionKeysRead, keys.PermissionKeysWrite}},
			grants:       []keys.Grant{viewer, berlin},
			organization: "org_1",
			here:         []string{keys.PermissionKeysRead},
			in:           []string{keys.PermissionKeysRead, keys.PermissionKeysWrite},
			beyond:       []string{keys.PermissionKeysRead},
		},
		{
			name:         "restricted to a space",
			key:          keys.Key{ID: "k5", Organization: "org_1", Space: "spc_b", Permissions: []string{keys.PermissionKeysRead, keys.PermissionKeysWrite}},
			grants:       []keys.Grant{viewer, berlin},
			organization: "org_1", space: "spc_b",
			in: []string{keys.PermissionKeysRead, keys.PermissionKeysWrite},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := authorityOf(t, f, c.key, c.grants...)
			if a.Operator != c.operator || a.Organization != c.organization || a.Space != c.space || a.Policy != f.policy {
				t.Errorf("%+v", a)
			}
			for space, want := range map[string][]string{"": c.here, "spc_b": c.in, "spc_x": c.beyond} {
				if got := f.policy.Catalogue.Names(a.Held(space)); !slices.Equal(got, want) {
					t.Errorf("in %q: %q, want %q", space, got, want)
				}
			}
			if n := testing.AllocsPerRun(100, func() { a.Held("spc_b") }); n != 0 {
				t.Errorf("Held allocates %v times", n)
			}
		})
	}
}
