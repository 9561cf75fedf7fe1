package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keygate/internal/admin"
	"keygate/internal/keys"
	"keygate/internal/problem"
)

func hashOf(name string) string { return keys.HashText(keys.HashSecret("sk_live_of_" + name)) }

func (in *instance) importing(lines ...string) (result, []importedLine) {
	in.t.Helper()
	file := filepath.Join(in.t.TempDir(), "keys.jsonl")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		in.t.Fatal(err)
	}
	r := in.run("keys", "import", file, "-o", "json")
	if r.stdout == "" {
		return r, nil
	}
	return r, decoded[[]importedLine](in.t, r)
}

// One line of many with a status that does not exist, a limit that is none or a
// byte that is no text kept a thousand good ones out, and the report was lost.
func TestImportOfOneWrongLine(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme", "--plan", "enterprise")
	lines := []string{
		"\ufeff" + fmt.Sprintf(`{"name": "first", "hash": %q, "organization": "acme"}`, hashOf("first")),
		fmt.Sprintf(`{"name": "asleep", "hash": %q, "organization": "acme", "status": "asleep"}`, hashOf("asleep")),
		fmt.Sprintf(`{"name": "limits", "hash": %q, "organization": "acme", "overrides": {"limits": [{"name": "minute", "requests": 0, "per": "soon"}]}}`, hashOf("limits")),
		fmt.Sprintf(`{"name": "%s", "hash": %q, "organization": "acme"}`, "\xff", hashOf("bytes")),
		fmt.Sprintf(`{"name": "padded", "hash": "%s==", "organization": "acme"}`, strings.Repeat("A", 43)),
		fmt.Sprintf(`{"name": "last", "hash": %q, "organization": "acme"}`, hashOf("last")),
	}
	r, report := in.importing(lines...)
	if r.code != exitRefused || len(report) != len(lines) {
		t.Fatalf("%+v", r)
	}
	for i, want := range []string{"", `status: must be active`, `overrides.limits[0].requests: must lie between 1 and 1000000000000 (given: "0"); overrides.limits[0].per: must be a duration`, "is not UTF-8", "hash: must be the SHA-256", ""} {
		if l := report[i]; (want == "") != (l.ID != "") || !strings.HasPrefix(l.Detail, want) {
			t.Errorf("line %d: %+v, want %q", i+1, l, want)
		}
	}
}

// Requests are bounded in bytes too: long lines are sent in several.
func TestImportOfLongLines(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme", "--plan", "enterprise")
	var lines []string
	for i := range 9 {
		lines = append(lines, fmt.Sprintf(`{"name": "k%d", "hash": %q, "organization": "acme", "description": %q}`, i, hashOf(fmt.Sprint(i)), strings.Repeat("x", 300_000*(i%2))))
	}
	r, report := in.importing(lines...)
	if r.code != exitRefused || len(report) != 9 || !strings.Contains(r.stderr, "5 keys imported, 4 refused.") {
		t.Fatalf("%+v", r)
	}
}

// An API that is stricter than this program refuses a request as a whole: what it
// names is that line's report, and the rest is sent again.
func TestImportRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	refused := func(fields ...string) error {
		e := &admin.APIError{Status: http.StatusUnprocessableEntity}
		for _, f := range fields {
			e.Problem.Errors = append(e.Problem.Errors, problem.FieldError{Field: f, Detail: "is wrong"})
		}
		return e
	}
	im := &importer{
		report: make([]importedLine, 4), batch: []admin.ImportedKey{{Hash: "a"}, {Hash: "b"}, {Hash: "c"}}, waiting: []int{0, 2, 3},
	}
	for _, other := range []error{refused(), refused("form.prefix"), refused("keys[1].name", "form.min"), refused("keys[3].name"), &admin.APIError{Status: 409}} {
		if im.drop(other) {
			t.Errorf("%v is taken for one about lines", other)
		}
	}
	if !im.drop(refused("keys[1].name", "keys[1]")) || len(im.batch) != 2 || im.batch[1].Hash != "c" || !slices.Equal(im.waiting, []int{0, 3}) || im.report[2].Detail != "name: is wrong; is wrong" {
		t.Errorf("%+v", im)
	}
	in := start(t)
	if r := in.run("keys", "import", "-", "--form", "kg_live_x:20-30"); r.code != exitOK {
		t.Fatalf("nothing to import: %+v", r)
	}
	var stderr bytes.Buffer
	a := &app{stderr: &stderr}
	cmd := a.keysImport()
	for field, want := range map[string]string{"form.prefix": "--form", "keys[3].permissions[1]": "keys[3].permissions[1]", "hash": "hash"} {
		if got := flagOf(cmd, field); got != want {
			t.Errorf("field %s is called %s, want %s", field, got, want)
		}
	}
}

// What one instance exports, another one imports as it stands, and the same key
// is there: revoked and past its end, expired and paused, with an owner of its own
// and what is left of its lifetime.
func TestExportIsAnImport(t *testing.T) {
	t.Parallel()
	from, to := start(t), start(t)
	for _, in := range []*instance{from, to} {
		in.must("orgs", "create", "--slug", "acme", "--plan", "enterprise")
		in.must("spaces", "create", "--organization", "acme", "--slug", "research")
		in.must("accounts", "create", "--name", "Ada", "--organization", "acme", "--role", "owner")
		in.must("accounts", "create", "--name", "Twin", "--organization", "acme", "--role", "owner")
	}
	from.must("keys", "create", "--name", "live", "--organization", "acme", "--account", "Ada", "--space", "research", "--expires", "90d")
	r, report := from.importing(
		fmt.Sprintf(`{"name": "over", "hash": %q, "organization": "acme", "account": "Ada", "status": "revoked", "expires": "2024-03-01T00:00:00Z", "created_at": "2024-01-01T00:00:00Z"}`, hashOf("over")),
		fmt.Sprintf(`{"name": "asleep", "hash": %q, "organization": "acme", "status": "expired", "paused": true, "expires": "2024-03-01T00:00:00Z", "lifetime": "90d"}`, hashOf("asleep")),
		fmt.Sprintf(`{"name": "nobody's", "hash": %q, "organization": "acme", "account": "Eve"}`, hashOf("eve")),
	)
	if r.code != exitRefused || report[0].ID == "" || report[1].ID == "" || report[2].Detail != `account: no account of the organization has this name or id (given: "Eve")` {
		t.Fatalf("%+v", r)
	}
	exported := from.must("keys", "export")
	if !strings.Contains(exported.stderr, "1 key of the instance's operators left out") || strings.Contains(exported.stdout, "org_") || strings.Contains(exported.stdout, "acc_") {
		t.Fatalf("%+v", exported)
	}
	r, _ = to.importing(strings.Split(strings.TrimSpace(exported.stdout), "\n")...)
	sorted := func(r result) []string { return slices.Sorted(strings.Lines(r.stdout)) }
	if again := to.must("keys", "export"); r.code != exitOK || !slices.Equal(sorted(again), sorted(exported)) {
		t.Fatalf("%+v\nexported\n%sand then\n%s", r, exported.stdout, again.stdout)
	}
	rotated := decoded[admin.CreatedKey](t, to.must("keys", "rotate", "asleep", "--yes", "-o", "json"))
	if left := rotated.ExpiresAt.Sub(rotated.RotatedAt).Hours(); left != 90*24 || rotated.Status != "paused" {
		t.Errorf("brought back for %v h, %s", left, rotated.Status)
	}

	// A name that two have finds nobody: the export has the id then.
	from.must("accounts", "create", "--name", "Twin", "--organization", "acme", "--role", "owner")
	twin := decoded[[]admin.Account](t, from.must("accounts", "list", "--organization", "acme", "-o", "json"))[0]
	from.must("keys", "create", "--name", "twin's", "--account", twin.ID)
	if out := from.must("keys", "export").stdout; !strings.Contains(out, twin.ID) {
		t.Errorf("%s", out)
	}
}
