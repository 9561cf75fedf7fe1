package test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keygate/internal/admin"
)

// explained is what keygate explain -o json prints.
type explained struct {
	Allowed bool     `json:"allowed"`
	Status  int      `json:"status"`
	Missing []string `json:"missing"`
}

// explain asks with exit code 0 for a request that would pass, 4 for another.
func (g *gateway) explain(key, method, path string) explained {
	g.t.Helper()
	r := g.cli("explain", "--key", key, method, path, "-o", "json")
	var e explained
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || (r.code == 0) != e.Allowed || r.code != 0 && r.code != 4 {
		g.t.Fatalf("explain %s %s: %v, %+v", method, path, err, r)
	}
	return e
}

// A person's keys from the first to the last day, as the command line and the
// gate show them.
func TestLifeOfAKey(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	g.must(nil, "orgs", "create", "--slug", "acme", "--plan", "pair")
	g.must(nil, "spaces", "create", "--organization", "acme", "--slug", "research")
	var ada admin.Account
	g.must(&ada, "accounts", "create", "--name", "Ada", "--organization", "acme", "--role", "reader", "--space", "research")
	k := g.newKey("nightly", "--organization", "acme", "--account", "Ada", "--space", "research", "--permissions", "orders:read")
	g.wants(http.StatusOK, "/spaces/research/orders", k.Secret)

	// Refused requests are explained, and asking changes nothing.
	if e := g.explain("nightly", "GET", "/spaces/research/orders"); !e.Allowed {
		t.Errorf("%+v", e)
	}
	if e := g.explain("nightly", "GET", "/any"); e.Status != http.StatusForbidden {
		t.Errorf("%+v", e)
	}
	if r := g.cli("keys", "test", "nightly", "--permission", "orders:write", "--space", "research"); r.code != 4 || !strings.Contains(r.stdout, "orders:write: no") {
		t.Errorf("%+v", r)
	}
	if r := g.cli("keys", "test", "nightly", "GET", "/spaces/research/orders"); r.code != 0 || !strings.Contains(r.stdout, "let through") {
		t.Errorf("%+v", r)
	}

	// Two secrets work while they overlap; a third ends the first.
	var second, third admin.CreatedKey
	g.must(&second, "keys", "rotate", "nightly", "--overlap", "24h")
	if second.ID != k.ID || second.Secret == k.Secret {
		t.Fatalf("%+v", second.Key)
	}
	g.wants(http.StatusOK, "/spaces/research/orders", k.Secret)
	g.wants(http.StatusOK, "/spaces/research/orders", second.Secret)
	g.must(&third, "keys", "rotate", "nightly", "--overlap", "1h", "--yes")
	g.refused(http.StatusUnauthorized, "API key has been revoked", "/spaces/research/orders", k.Secret)
	g.wants(http.StatusOK, "/spaces/research/orders", third.Secret)

	// An owner who loses a role loses it in all keys at once.
	if r := g.cli("accounts", "revoke-grant", "Ada", "reader@research", "--organization", "acme", "--yes"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	g.refused(http.StatusForbidden, "Insufficient permissions", "/spaces/research/orders", third.Secret)
	if e := g.explain("nightly", "GET", "/spaces/research/orders"); e.Allowed || len(e.Missing) != 1 {
		t.Errorf("%+v", e)
	}
	g.must(nil, "accounts", "grant", "Ada", "--organization", "acme", "--role", "reader", "--space", "research")
	g.wants(http.StatusOK, "/spaces/research/orders", third.Secret)

	// The plan has room for two keys.
	g.newKey("other", "--organization", "acme")
	if r := g.cli("keys", "create", "--name", "one too many", "--organization", "acme"); r.code != 4 || !strings.Contains(r.stderr, "2") {
		t.Errorf("%+v", r)
	}
	g.must(nil, "orgs", "edit", "acme", "--max-keys", "3")
	g.newKey("one more", "--organization", "acme")

	var edited admin.Key
	g.must(&edited, "keys", "edit", "nightly", "--name", "daily", "--allow-cidr", "192.0.2.0/24", "--expires", "30d")
	if edited.Name != "daily" || edited.ExpiresAt.IsZero() {
		t.Errorf("%+v", edited)
	}
	g.refused(http.StatusForbidden, "Insufficient permissions", "/spaces/research/orders", third.Secret)
	if r := g.cli("keys", "revoke", "daily", "--yes", "--wait"); r.code != 0 || !strings.Contains(r.stderr, "In force on ") {
		t.Errorf("%+v", r)
	}
	g.refused(http.StatusUnauthorized, "API key has been revoked", "/spaces/research/orders", third.Secret)
	if r := g.cli("keys", "rotate", "daily", "--yes"); r.code != 4 || !strings.Contains(r.stderr, "cannot be rotated") {
		t.Errorf("%+v", r)
	}

	// All of it is in the audit log, without a secret.
	r := g.cli("audit", "export", "--target", k.ID)
	var actions []string
	for line := range strings.Lines(r.stdout) {
		var e admin.AuditEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		actions = append(actions, e.Action)
	}
	if got := strings.Join(actions, " "); r.code != 0 || got != "key.revoke key.edit key.rotate key.rotate key.create" || anyKey.MatchString(r.stdout) {
		t.Errorf("%s\n%+v", got, r)
	}
	var listed []admin.AuditEntry
	g.must(&listed, "audit", "list", "--target", ada.ID, "--since", "1h")
	if len(listed) == 0 {
		t.Error("no entry about the account")
	}
}

// Customers keep the strings of their keys: an import knows them by their hash,
// says of each line what became of it, and flushes what was remembered of
// strings that were unknown before.
func TestImportAndExport(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	old := "sk_live_" + strings.Repeat("z9", 12)
	g.refused(http.StatusUnauthorized, "API key is invalid", "/any", old)
	hash := func(secret string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(secret))) }
	file := filepath.Join(t.TempDir(), "keys.jsonl")
	lines := []string{
		fmt.Sprintf(`{"name": "old one", "hash": %q, "permissions": ["orders:read"]}`, hash(old)),
		`{"name": "no hash"}`,
		``,
		`{"name": "misspelt", "hsah": "x"}`,
		fmt.Sprintf(`{"name": "once more", "hash": %q}`, hash(old)),
		fmt.Sprintf(`{"name": "past", "hash": %q, "status": "expired", "expires": "2020-05-31T00:00:00Z"}`, hash("sk_live_expired-long-ago-000")),
		`not JSON`,
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := g.cli("keys", "import", file, "--form", "sk_live_:16-64", "-o", "json")
	var report []struct {
		Line             int
		Name, ID, Detail string
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 4 {
		t.Fatalf("%v: %+v", err, r)
	}
	var outcome []string
	for _, l := range report {
		what := "imported"
		if l.ID == "" {
			what = l.Detail
		}
		outcome = append(outcome, fmt.Sprintf("%d %s", l.Line, what))
	}
	for i, want := range []string{"1 imported", "2 hash: ", `4 is not a key in JSON: unknown field "hsah"`, "5 ", "6 imported", "7 is not a key in JSON"} {
		if i >= len(outcome) || !strings.HasPrefix(outcome[i], want) || outcome[i] == "5 imported" {
			t.Fatalf("%q, want %q at %d", outcome, want, i)
		}
	}
	if !strings.Contains(r.stderr, "2 keys imported, 4 refused.") {
		t.Errorf("stderr %q", r.stderr)
	}
	g.wants(http.StatusOK, "/any", old) // at once, although it was remembered as unknown
	g.refused(http.StatusUnauthorized, "API key has expired", "/any", "sk_live_expired-long-ago-000")

	// What one instance exports another one imports, and nothing is lost.
	g.newKey("paused", "--permissions", "orders:read,orders:write", "--allow-cidr", "127.0.0.0/8")
	g.must(nil, "keys", "pause", "paused")
	exported := g.cli("keys", "export", "--organization", "default")
	if exported.code != 0 || strings.Count(exported.stdout, "\n") != 3 || anyKey.MatchString(exported.stdout) {
		t.Fatalf("%+v", exported)
	}
	other := start(t, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	if err := os.WriteFile(file, []byte(exported.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := other.cli("keys", "import", file, "--form", "sk_live_:16-64"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	other.wants(http.StatusOK, "/any", old)
	var all []admin.Key
	other.must(&all, "keys", "list", "--organization", "default")
	for _, k := range all {
		if want := map[string]string{"old one": "active", "past": "expired", "paused": "paused"}[k.Name]; k.Status != want || !k.Imported {
			t.Errorf("%+v, want status %s", k, want)
		}
	}
	if len(all) != 3 {
		t.Errorf("%d keys", len(all))
	}
	if r := other.cli("keys", "import", file); r.code != 4 || !strings.Contains(r.stderr, "0 keys imported, 3 refused.") {
		t.Errorf("a second import: %+v", r)
	}
}

// A member's key is enough to look after one's own organization from the command
// line, and sees nothing else.
func TestMembersCommandLine(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	g.must(nil, "orgs", "create", "--slug", "acme", "--plan", "enterprise")
	g.must(nil, "orgs", "create", "--slug", "globex", "--plan", "enterprise")
	g.newKey("theirs", "--organization", "globex")
	member := g.newKey("member", "--organization", "acme", "--permissions", "admin")
	mine := func(args ...string) result {
		t.Helper()
		return run(t, []string{"KEYGATE_ADMIN_URL=" + g.management, "KEYGATE_ADMIN_KEY=" + member.Secret}, args...)
	}
	for _, tt := range []struct {
		args []string
		code int
		say  string
	}{
		{[]string{"whoami"}, 0, "the organization acme"},
		{[]string{"keys", "create", "--name", "own"}, 0, "acme"},
		{[]string{"keys", "list"}, 0, "member"},
		{[]string{"keys", "get", "theirs"}, 5, "theirs"},
		{[]string{"keys", "create", "--name", "x", "--organization", "globex"}, 4, "--organization"},
		{[]string{"orgs", "get", "globex"}, 5, "globex"},
		{[]string{"orgs", "create", "--slug", "new"}, 4, "only an operator"},
		{[]string{"accounts", "create", "--name", "Bob", "--role", "reader"}, 0, "Bob"},
		{[]string{"audit", "list"}, 0, "account.create"},
		{[]string{"keys", "export"}, 4, "operator"},
		{[]string{"keys", "pause", "member"}, 2, "--yes"}, // the very key that asks
	} {
		r := mine(tt.args...)
		if r.code != tt.code || !strings.Contains(r.stdout+r.stderr, tt.say) || strings.Contains(r.stdout, "theirs") {
			t.Errorf("%v: %+v, want code %d and %q", tt.args, r, tt.code, tt.say)
		}
	}
	var announced answer
	g.must(nil, "keys", "edit", "own", "--expires", time.Now().AddDate(0, 0, 3).UTC().Format(time.DateOnly))
	var own admin.CreatedKey
	g.must(&own, "keys", "rotate", "own")
	announced = g.wants(http.StatusOK, "/any", own.Secret)
	found := false
	for name, values := range announced.header {
		found = found || strings.Contains(strings.ToLower(name), "expires") && len(values) == 1
	}
	if !found {
		t.Errorf("no header announces the expiry: %v", announced.header)
	}
}
