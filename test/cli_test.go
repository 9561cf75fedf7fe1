package test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keygate/internal/admin"
)

// The life of a customer and its keys, as a script lives it.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(api, tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})

	var org admin.Organization
	g.must(&org, "orgs", "create", "--slug", "acme", "--name", "Acme Inc.", "--plan", "twenty")
	if org.Slug != "acme" || org.Name != "Acme Inc." || org.Plan != "twenty" {
		t.Errorf("%+v", org)
	}
	var orgs []admin.Organization
	if g.must(&orgs, "orgs", "list"); len(orgs) != 2 || orgs[0].ID != org.ID {
		t.Errorf("%+v", orgs)
	}
	var space admin.Space
	g.must(&space, "spaces", "create", "--organization", "acme", "--slug", "research")
	var spaces []admin.Space
	if g.must(&spaces, "spaces", "list", "--organization", org.ID); len(spaces) != 1 || spaces[0].ID != space.ID {
		t.Errorf("%+v", spaces)
	}
	var account admin.Account
	g.must(&account, "accounts", "create", "--name", "Ada Lovelace", "--email", "ada@example.com", "--organization", "acme", "--role", "reader")
	var accounts []admin.Account
	if g.must(&accounts, "accounts", "list", "--organization", "acme"); len(accounts) != 2 || accounts[0].ID != account.ID {
		t.Errorf("%+v", accounts)
	}

	k := g.newKey("nightly", "--description", "reads orders", "--organization", "acme", "--space", "research", "--account", account.ID,
		"--permissions", "orders:read", "--plan", "quick", "--expires", "1y", "--allow-cidr", "127.0.0.0/8,::1")
	if k.Organization != org.ID || k.Space != space.ID || k.Account != account.ID || k.Plan != "quick" || k.Description != "reads orders" ||
		!slices.Equal(k.AllowedCIDRs, []string{"127.0.0.0/8", "::1/128"}) || !k.ExpiresAt.Equal(k.CreatedAt.AddDate(1, 0, 0)) {
		t.Errorf("%+v", k.Key)
	}
	g.wants(http.StatusOK, "/spaces/research/orders", k.Secret)
	for _, step := range []struct {
		verb, status string
		answer       int
	}{{"pause", "paused", 401}, {"resume", "active", 200}, {"revoke", "revoked", 401}} {
		args := []string{"keys", step.verb, "nightly"} // a name that only one key has is as good as its id
		if step.verb == "revoke" {
			if r := g.cli(args...); r.code != 2 || !strings.Contains(r.stderr, "--yes") {
				t.Errorf("%s without a terminal: %+v", step.verb, r)
			}
			args = append(args, "--yes")
		}
		var changed admin.Key
		if g.must(&changed, args...); changed.Status != step.status {
			t.Errorf("%s: status %q", step.verb, changed.Status)
		}
		g.wants(step.answer, "/spaces/research/orders", k.Secret) // at once
	}
	if r := g.cli("keys", "delete", k.ID, "--yes"); r.code != 0 || r.stdout != "" {
		t.Errorf("delete: %+v", r)
	}
	if r := g.cli("keys", "get", k.ID); r.code != 5 {
		t.Errorf("getting a deleted key: %+v", r)
	}

	// Nothing but the creation ever shows a secret.
	shown := g.newKey("shown")
	for _, format := range []string{"table", "json", "yaml"} {
		for _, args := range [][]string{{"keys", "list"}, {"keys", "get", "shown"}} {
			if r := g.cli(append(args, "-o", format)...); r.code != 0 || anyKey.MatchString(r.stdout+r.stderr) || !strings.Contains(r.stdout, shown.ID) {
				t.Errorf("%v -o %s: code %d", args, format, r.code)
			}
		}
	}
	for _, format := range []string{"table", "yaml"} {
		if r := g.cli("keys", "create", "--name", "in a "+format, "-o", format); r.code != 0 || len(anyKey.FindAllString(r.stdout, -1)) != 1 {
			t.Errorf("keys create -o %s: code %d", format, r.code)
		}
	}
}

// Scripts go by exit codes: 1 failure, 2 usage, 3 configuration, 4 refused, 5 not found.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	plain := g.newKey("plain")
	url := "KEYGATE_ADMIN_URL=" + g.management
	key := "KEYGATE_ADMIN_KEY=" + g.key
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		say  string
	}{
		{"help", nil, []string{"--help"}, 0, ""},
		{"nobody there", []string{"KEYGATE_ADMIN_URL=http://127.0.0.1:1", key}, []string{"keys", "list"}, 1, "cannot be reached"},
		{"not the management API", []string{"KEYGATE_ADMIN_URL=" + g.proxy, key}, []string{"keys", "list"}, 1, "KEYGATE_ADMIN_URL"},
		{"not the management API, where a key would be made", []string{"KEYGATE_ADMIN_URL=" + g.proxy, key}, []string{"keys", "create", "--name", "x", "-o", "json"}, 1, "KEYGATE_ADMIN_URL"},
		{"no such command", nil, []string{"kyes"}, 2, "did you mean keys?"},
		{"no such flag", []string{url, key}, []string{"keys", "create", "--nmae", "x"}, 2, "--nmae"},
		{"a flag is missing", []string{url, key}, []string{"keys", "create"}, 2, "--name is missing"},
		{"an empty flag", []string{url, key}, []string{"keys", "create", "--name", "x", "--organization", ""}, 2, "--organization is empty"},
		{"no key is set", []string{url}, []string{"keys", "list"}, 3, "KEYGATE_ADMIN_KEY is not set"},
		{"no URL", []string{"KEYGATE_ADMIN_URL=nonsense", key}, []string{"keys", "list"}, 3, "KEYGATE_ADMIN_URL"},
		{"a key would cross the network", []string{"KEYGATE_ADMIN_URL=http://192.0.2.1", key}, []string{"keys", "list"}, 3, "KEYGATE_ADMIN_INSECURE"},
		{"an unknown key", []string{url, "KEYGATE_ADMIN_KEY=" + newSecret(t)}, []string{"keys", "list"}, 4, "API key is invalid"},
		{"a key that may not", []string{url, "KEYGATE_ADMIN_KEY=" + plain.Secret}, []string{"keys", "list"}, 4, "keygate:keys-read"},
		{"an unknown plan", []string{url, key}, []string{"orgs", "create", "--slug", "x", "--plan", "gold"}, 4, "--plan"},
		{"a slug that is taken", []string{url, key}, []string{"orgs", "create", "--slug", "default"}, 4, "default"},
		{"a wrong date", []string{url, key}, []string{"keys", "create", "--name", "x", "--expires", "yesterday"}, 4, "--expires"},
		{"no such key", []string{url, key}, []string{"keys", "get", "key_nothing"}, 5, "key_nothing"},
		{"no such name", []string{url, key}, []string{"keys", "get", "nobody"}, 5, "nobody"},
		{"no such organization", []string{url, key}, []string{"orgs", "get", "nowhere"}, 5, "nowhere"},
		{"a route that is not there", []string{`KEYGATE_POLICY={version: 1, upstreams: {a: {targets: ["http://127.0.0.1:1"]}}, routes: [{match: "GET /x", permission: any}]}`}, []string{"routes", "explain", "GET", "/y"}, 5, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, tt.env, tt.args...)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.say) {
				t.Errorf("%+v, want code %d and %q", r, tt.code, tt.say)
			}
		})
	}
}

// What a container's health check and a deployment's script ask, without a
// gateway's help.
func TestOfflineCommands(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, nil)
	addr := "KEYGATE_ADMIN_ADDR=" + strings.TrimPrefix(g.management, "http://")
	if r := run(t, []string{addr}, "healthcheck"); r.code != 0 {
		t.Errorf("healthcheck: %+v", r)
	}
	g.stop()
	if r := run(t, []string{addr}, "healthcheck"); r.code != 1 || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("healthcheck of nobody: %+v", r)
	}

	good, bad := written(t, "good.yaml", inFrontOf(api, tenantPolicy)), written(t, "bad.yaml", "version: 1\nroutes: []\n")
	if r := run(t, nil, "routes", "check", good); r.code != 0 || !strings.Contains(r.stdout, "/spaces/{space}/orders") {
		t.Errorf("routes check: %+v", r)
	}
	if r := run(t, nil, "routes", "check", bad); r.code != 3 || !strings.Contains(r.stderr, "bad.yaml:2:") {
		t.Errorf("routes check of a bad file: %+v", r)
	}
	r := run(t, []string{"KEYGATE_POLICY_FILE=" + good}, "routes", "explain", "GET", "/orgs/acme/orders")
	if r.code != 0 || !strings.Contains(r.stdout, "orders:read") || !strings.Contains(r.stdout, "GET /orgs/{org}/orders") {
		t.Errorf("routes explain: %+v", r)
	}

	secret := strings.TrimSpace(run(t, nil, "keys", "generate").stdout)
	if !anyKey.MatchString(secret) {
		t.Errorf("keys generate printed %d characters", len(secret))
	}
	for _, format := range []string{"table", "json", "yaml"} {
		r := run(t, []string{"KEYGATE_BOOTSTRAP_KEY=" + secret, "KEYGATE_REALM=shop"}, "config", "-o", format)
		if r.code != 0 || anyKey.MatchString(r.stdout) || !strings.Contains(r.stdout, "KEYGATE_BOOTSTRAP_KEY") || !strings.Contains(r.stdout, "shop") {
			t.Errorf("config -o %s: code %d, %s", format, r.code, r.stderr)
		}
		if format == "json" && !json.Valid([]byte(r.stdout)) {
			t.Errorf("config -o json: %s", r.stdout)
		}
	}
	// A mistyped key is not repeated either.
	if r := run(t, []string{"KEYGATE_BOOTSTRAP_KEY=" + secret[:len(secret)-1] + private}, "config"); r.code != 3 || strings.Contains(r.stderr, secret[8:30]) {
		t.Errorf("config with a mistyped key: code %d", r.code)
	}
	if r := run(t, nil, "version"); r.code != 0 || !strings.HasPrefix(r.stdout, "keygate ") {
		t.Errorf("version: %+v", r)
	}
}
