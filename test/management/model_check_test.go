package management

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	compare "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keygate/internal/keys"
)

// checkNews wants just these entries at the end of the audit log.
func (m *machine) checkNews(t *rapid.T, asked string, news []modelEntry, address string, got answer) {
	t.Helper()
	target := fmt.Sprint("/v1/audit?limit=", len(news)+1)
	real := m.w.must(t, m.w.operator, "GET", target, nil)["items"].([]any)
	tail := m.log[max(0, len(m.log)-len(news)-1):]
	for i := range real {
		e := real[i].(object)
		want := tail[len(tail)-1-i]
		if diff := compare.Diff(asJSON(want.show()), asJSON(bare(e))); diff != "" {
			t.Fatalf("%s: the audit log, %d from the end (-model +real):\n%s", asked, i, diff)
		}
		if i < len(news) && (e["address"] != "127.0.0.1" || e["request_id"] != got.header.Get("X-Request-Id")) {
			t.Fatalf("%s: the audit log has address %v and request %v", asked, e["address"], e["request_id"])
		}
	}
}

func (e *modelEntry) show() object {
	o := object{"action": e.action, "actor": e.actor, "kind": e.kind, "target": e.target, "at": e.at}
	put(o, "actor_account", e.account)
	put(o, "organization", e.organization)
	put(o, "before", e.before)
	put(o, "after", e.after)
	return o
}

// bare is an entry without what the model does not foretell.
func bare(e object) object {
	o := object{}
	for name, value := range e {
		if name != "id" && name != "address" && name != "request_id" {
			o[name] = value
		}
	}
	return o
}

// settle waits until all replicas have acted on all changes, and asks those that
// were not asked yet.
func (m *machine) settle(t *rapid.T, asked ...int) {
	t.Helper()
	m.w.settle(t)
	for i := range m.w.replicas {
		if !slices.Contains(asked, i) {
			m.checkSecrets(t, i)
		}
	}
}

// checkSecrets asks a replica about all secrets that were ever shown.
func (m *machine) checkSecrets(t *rapid.T, replica int) {
	t.Helper()
	a := m.w.replicas[replica%len(m.w.replicas)].auth
	for _, s := range m.shown {
		want := m.refusal(s.text)
		p, refusal := a.Authenticate(context.Background(), s.text, netip.Addr{}, m.w.policy)
		got := ""
		if refusal != nil {
			got = refusal.Answer("keygate", "GET /").Error
		}
		if got != want {
			t.Fatalf("replica %d answers a secret of %s with %q at %s; the model says %q", replica, m.describe(s), got, m.now(), want)
		}
		m.seen[want]++
		if want != "" {
			continue
		}
		k, presented := m.holder(s.text)
		if !presented.ends.IsZero() {
			m.seen["in its overlap"]++
		}
		authority := p.Authority()
		places := []string{""}
		for _, sp := range m.spaces {
			if sp.organization == k.organization {
				places = append(places, sp.id)
			}
		}
		for _, place := range places {
			if diff := compare.Diff(m.held(k, place).names(), append([]string{}, authority.Names(place)...)); diff != "" {
				t.Fatalf("what %s can do at %q on replica %d (-model +real):\n%s", m.describe(s), place, replica, diff)
			}
		}
		if p.Key.ID != k.id || p.Key.Version != k.version {
			t.Fatalf("a secret of %s is that of version %d of %s on replica %d; the model says version %d of %s", m.describe(s), p.Key.Version, p.Key.ID, replica, k.version, k.id)
		}
	}
}

// checkAll compares all that there is at the end of a run.
func (m *machine) checkAll(t *rapid.T) {
	m.settle(t)
	raw := m.w.send(t, request{key: m.admin.text, method: "GET", target: "/v1/audit/export"}).raw
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) != len(m.log) {
		t.Fatalf("the audit log has %d entries, the model %d", len(lines), len(m.log))
	}
	for i, line := range lines {
		var e object
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if diff := compare.Diff(asJSON(m.log[len(m.log)-1-i].show()), asJSON(bare(e))); diff != "" {
			t.Fatalf("the audit log, %d from its end (-model +real):\n%s", i, diff)
		}
	}
	for _, s := range m.shown {
		h := keys.HashSecret(s.text)
		for _, form := range []string{s.text, keys.HashText(h), base64.StdEncoding.EncodeToString(h[:])} {
			if strings.Contains(string(raw), form) {
				t.Fatalf("the audit log holds a secret or its hash")
			}
		}
	}
	now := m.now()
	every := func(target string, n int, show func(i int) object) {
		var want []object
		for i := range n {
			want = append(want, show(n-1-i))
		}
		if diff := compare.Diff(asObjects(want), asObjects(m.w.all(t, m.admin.text, target))); diff != "" {
			t.Fatalf("%s (-model +real):\n%s", target, diff)
		}
	}
	every("/v1/keys", len(m.keys), func(i int) object { return m.keys[i].show(now) })
	every("/v1/organizations", len(m.organizations), func(i int) object { return m.organizations[i].show() })
	operator := m.actor(m.keys[0])
	for _, o := range append(slices.Clone(m.organizations), &modelOrganization{}) {
		of := slices.DeleteFunc(slices.Clone(m.accounts), func(a *modelAccount) bool { return a.organization != o.id })
		every("/v1/accounts?organization="+o.id, len(of), func(i int) object { return of[i].show(operator) })
		if o.id != "" {
			in := slices.DeleteFunc(slices.Clone(m.spaces), func(s *modelSpace) bool { return s.organization != o.id })
			every("/v1/spaces?organization="+o.id, len(in), func(i int) object { return in[i].show() })
		}
	}
}
