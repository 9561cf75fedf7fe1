package test

import (
	"strings"
	"testing"
)

// chosen is a gateway whose administrator's key each start may set anew.
type chosen struct{ *gateway }

// with starts again with another key, or with none.
func (c chosen) with(key string) {
	c.t.Helper()
	if delete(c.env, "KEYGATE_BOOTSTRAP_KEY"); key != "" {
		c.env["KEYGATE_BOOTSTRAP_KEY"] = key
	}
	c.restart()
}

// works asks the management API with a key.
func (c chosen) works(key string, want bool) {
	c.t.Helper()
	r := run(c.t, []string{"KEYGATE_ADMIN_URL=" + c.management, "KEYGATE_ADMIN_KEY=" + key}, "orgs", "get", "default")
	if code := map[bool]int{true: 0, false: 4}[want]; r.code != code {
		c.t.Errorf("exit code %d, want %d: %s", r.code, code, r.stderr)
	}
}

// warned tells whether the start warned about the variable.
func (c chosen) warned(word string, want bool) {
	c.t.Helper()
	if got := strings.Contains(c.stderr.String(), `"KEYGATE_BOOTSTRAP_KEY: `) && strings.Contains(c.stderr.String(), word); got != want {
		c.t.Errorf("a warning with %q: %v, want %v:\n%s", word, got, want, c.said())
	}
}

// The variable says what the administrator's key is: changing it replaces the
// former one, and what was put out of use on purpose stays so.
func TestBootstrapKey(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	c, first, second := chosen{g}, g.key, newSecret(t)
	c.works(first, true)
	if said := g.stderr.String(); strings.Contains(said, "first time") {
		t.Errorf("a start that made no secret says:\n%s", said)
	}

	c.with(second)
	c.works(second, true)
	c.works(first, false)
	c.with(first)
	c.works(first, true)
	c.works(second, false)
	c.with("") // it is remembered
	c.works(first, true)

	c.key = first
	var all []struct{ ID, Name string }
	c.must(&all, "keys", "list", "--name", "administrator")
	if len(all) != 1 {
		t.Fatalf("administrator's keys: %+v", all)
	}
	if r := c.cli("keys", "revoke", all[0].ID, "--yes"); r.code != 0 {
		t.Fatalf("revoke: %+v", r)
	}
	c.works(first, false)
	c.with(first)
	c.works(first, false)
	c.warned("revoked", true)

	third := newSecret(t)
	c.with(third)
	c.works(third, true)
	c.warned("", false)

	c.key = third
	c.must(&all, "keys", "list", "--name", "administrator", "--limit", "1")
	if r := c.cli("keys", "delete", all[0].ID, "--yes"); r.code != 0 {
		t.Fatalf("delete: %+v", r)
	}
	c.with(third)
	c.works(third, false)
	c.warned("deleted", true)
	c.with(second) // it was a secret of the key that was revoked
	c.works(second, false)
	c.warned("revoked", true)
	fourth := newSecret(t) // a way in is always left
	c.with(fourth)
	c.works(fourth, true)
}

// A secret in a file, as orchestrators give it.
func TestBootstrapKeyFile(t *testing.T) {
	t.Parallel()
	key := newSecret(t)
	file := written(t, "admin-key", key+"\n")
	g := start(t, settings{"KEYGATE_BOOTSTRAP_KEY_FILE": file})
	c := chosen{g}
	c.works(key, true)
	r := run(t, []string{"KEYGATE_ADMIN_URL=" + g.management, "KEYGATE_ADMIN_KEY_FILE=" + file}, "orgs", "list")
	if r.code != 0 {
		t.Errorf("the command line with the same file: %+v", r)
	}
	other := newSecret(t)
	write(t, file, other)
	g.restart()
	c.works(other, true)
	c.works(key, false)

	g.stop()
	g.env["KEYGATE_BOOTSTRAP_KEY"] = other
	if said := g.refuses(3); !strings.Contains(said, "KEYGATE_BOOTSTRAP_KEY_FILE") {
		t.Errorf("both set: %s", said)
	}
}

// A client's key must not become the administrator's by a mistake.
func TestBootstrapKeyTaken(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	k := g.newKey("a client's")
	g.stop()
	g.env["KEYGATE_BOOTSTRAP_KEY"] = k.Secret
	said := g.refuses(3)
	if !strings.Contains(said, "KEYGATE_BOOTSTRAP_KEY") || !strings.Contains(said, k.ID) || strings.Count(said, "\n") != 1 {
		t.Errorf("it said: %s", said)
	}
}

// Whatever was done to the administrator's key through the API, another one in the
// variable lets the operator in again, and the start says when the present one is
// of little use.
func TestBootstrapKeyMendsItself(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	c := chosen{g}
	for _, spoil := range []struct {
		word string
		args func(id, account string) []string
	}{
		{"some addresses only", func(id, _ string) []string { return []string{"keys", "edit", id, "--allow-cidr", "127.0.0.0/8"} }},
		{"no longer has keygate:operator", func(_, account string) []string {
			return []string{"accounts", "revoke-grant", account, "keygate:operator", "--yes"}
		}},
	} {
		var all []struct{ ID, Account string }
		c.must(&all, "keys", "list", "--name", "administrator", "--limit", "1")
		if r := c.cli(spoil.args(all[0].ID, all[0].Account)...); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		c.with(c.key)
		c.warned(spoil.word, true)
		c.key = newSecret(t)
		c.with(c.key)
		c.works(c.key, true)
		c.warned("", false)
	}
	var log []struct{ Action, Actor string }
	c.must(&log, "audit", "list", "--actor", "system", "--action", "grant.add")
	if len(log) != 1 {
		t.Errorf("the grant that was given back is not in the audit log: %v", log)
	}
}
