package cli

import (
	"strings"
	"testing"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

// The audit log once answered a name or a misspelt action with an empty table.
func TestAuditFilters(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "billing", "--permissions", "orders:read", "-o", "json"))
	in.must("keys", "edit", "billing", "--description", "Nightly.")

	for _, ref := range []string{"billing", k.ID} {
		if got := decoded[[]admin.AuditEntry](t, in.must("audit", "list", "--target", ref, "-o", "json")); len(got) != 2 || got[0].Target != k.ID {
			t.Errorf("--target %s: %+v", ref, got)
		}
	}
	if got := decoded[[]admin.AuditEntry](t, in.must("audit", "list", "--actor", "administrator", "-o", "json")); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if r := in.run("audit", "list", "--target", "biling"); r.code != exitNotFound || !strings.Contains(r.stderr, `"biling"`) {
		t.Errorf("%+v", r)
	}
	for _, command := range []string{"list", "export"} {
		if r := in.run("audit", command, "--action", "key.revoked"); r.code != exitRefused || !strings.Contains(r.stderr, "--action: must be one of account.create, ") || r.stdout != "" {
			t.Errorf("%s: %+v", command, r)
		}
	}
	if r := in.must("audit", "list", "--action", "key.revoke"); r.stderr != "none\n" {
		t.Errorf("%+v", r)
	}
	if r := in.must("audit", "list", "--action", "key.revoke", "-o", "json"); r.stderr != "" || r.stdout != "[]\n" {
		t.Errorf("%+v", r)
	}
}

func TestAuditTableSaysWhatWasDone(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme", "--plan", "pro")
	in.must("spaces", "create", "--organization", "acme", "--slug", "research")
	in.must("accounts", "create", "--name", "Ada", "--organization", "acme", "--role", "owner")
	in.must("accounts", "grant", "Ada", "--organization", "acme", "--permission", "orders:read", "--space", "research")
	k := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "nightly", "--organization", "acme", "--space", "research", "--permissions", "orders:read", "-o", "json"))
	in.must("keys", "edit", "nightly", "--description", "Reads.")
	// Of an exposed key only the id was told: neither which it is, nor where it was seen
	// and who sent it.
	sender := keys.System
	sender.Address = "192.0.2.7"
	for _, where := range []string{"url", "plain_http"} {
		if err := in.service.ReportExposed(t.Context(), sender, k.ID, where); err != nil {
			t.Fatal(err)
		}
	}
	in.must("keys", "delete", "nightly", "--yes")
	table := in.must("audit", "list").stdout
	for _, want := range [][]string{
		{"organization.create", "acme (org_", "plan pro"},
		{"space.create", "research (spc_"},
		{"account.create", "Ada (acc_", "owner"},
		{"grant.add", "Ada (acc_", "orders:read@research"},
		{"key.create", "nightly (" + k.ID + ")", "orders:read; space research"},
		{"key.edit", "nightly (" + k.ID + ")", "description"},
		{"key.exposed", "nightly (" + k.ID + ")", "stood in a URL", "system", "192.0.2.7"},
		{"key.exposed", "nightly (" + k.ID + ")", "came over plain HTTP", "system", "192.0.2.7"},
		{"key.delete", "nightly (" + k.ID + ")", "orders:read; space research"},
	} {
		found := false
		for line := range strings.Lines(table) {
			all := true
			for _, part := range want {
				all = all && strings.Contains(line, part)
			}
			found = found || all
		}
		if !found {
			t.Errorf("no line has %q:\n%s", want, table)
		}
	}
}
