package management

import (
	"flag"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/internal/keys"
)

// TestModel drives the management API through all replicas at random and holds
// every answer, every list, the audit log and what each secret that was ever
// shown can do against a simple model in memory.
func TestModel(t *testing.T) {
	checks, steps := "3", "60"
	if full() {
		checks, steps = "12", "200"
	}
	set := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { set[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.steps": steps} {
		if !set[name] {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			open, seen := e.open(t), map[string]int{}
			rapid.Check(t, func(t *rapid.T) {
				m := newMachine(t, open, seen)
				defer m.w.end()
				m.settle(t)
				t.Repeat(m.actions())
				m.checkAll(t)
			})
			if !full() {
				return
			}
			// What is never met is not tested.
			for _, outcome := range []string{
				"200", "201", "204", "401", "403", "404", "409", "412", "422", "replayed",
				"API key is invalid", "API key has been revoked", "API key has expired", "API key is paused", "in its overlap",
			} {
				if seen[outcome] == 0 {
					t.Errorf("no request or secret was met with %q: %v", outcome, seen)
				}
			}
		})
	}
}

// machine is one run: a real instance, and the model of it.
type machine struct {
	instance
	w      *world
	seen   map[string]int // outcomes, over all runs
	admin  *secret
	shown  []*secret // all that were ever shown, or are to be imported
	fixed  bool      // the beginning is the same in each run
	names  int       // Idempotency-Keys so far
	asks   *modelKey // who does at the moment
	replay []answered
	gone   map[string][]string // ids of what was deleted, by their kind
}

// secret is one that somebody knows, and the key that it is or was of.
type secret struct{ text, key string }

// answered is a change that a client may ask for again.
type answered struct {
	by   *secret
	q    request
	body object
	etag string
	code int
	at   time.Time
}

func newMachine(t *rapid.T, open func(*clock) []keys.Store, seen map[string]int) *machine {
	c := &clock{at: time.Now().Truncate(time.Second)}
	m := &machine{instance: instance{clock: c}, w: newWorld(t, c, open(c)), seen: seen, gone: map[string][]string{}, fixed: true}
	m.adopt(t)
	m.tenant(t, "acme", object{"max_keys": 7})
	m.tenant(t, "globex", nil)
	m.fixed = false
	return m
}

// adopt takes over what an instance begins with.
func (m *machine) adopt(t *rapid.T) {
	get := func(target string) object {
		return m.w.must(t, m.w.operator, "GET", target, nil)["items"].([]any)[0].(object)
	}
	k, a, o := get("/v1/keys"), get("/v1/accounts"), get("/v1/organizations")
	now := m.now()
	m.organizations = append(m.organizations, &modelOrganization{id: o["id"].(string), slug: "default", name: "default", plan: "small", version: 1, created: now, updated: now})
	g := a["grants"].([]any)[0].(object)
	m.accounts = append(m.accounts, &modelAccount{
		id: a["id"].(string), name: "operator", version: 1, created: now, updated: now,
		grants: []modelGrant{{id: g["id"].(string), permission: "keygate:operator", created: now}},
	})
	m.keys = append(m.keys, &modelKey{
		id: k["id"].(string), name: "administrator", description: k["description"].(string), account: a["id"].(string), permissions: []string{"keygate:operator"},
		secrets: []modelSecret{m.newSecret(m.w.operator, "")}, version: 1, created: now, updated: now,
	})
	m.admin = &secret{m.w.operator, k["id"].(string)}
	m.shown = append(m.shown, m.admin)
	m.adoptDefault(t, m.organizations[0])
	m.log = append(m.log,
		modelEntry{action: "organization.create", actor: "system", kind: "organization", target: m.organizations[0].id, organization: m.organizations[0].id, at: now, after: m.organizations[0].view()},
		modelEntry{action: "account.create", actor: "system", kind: "account", target: a["id"].(string), at: now, after: m.accounts[0].view(m.accounts[0].grants...)},
		modelEntry{action: "key.create", actor: "system", kind: "key", target: k["id"].(string), at: now, after: m.keys[0].view()})
}

// adoptDefault takes over the account that comes with an organization.
func (m *machine) adoptDefault(t *rapid.T, o *modelOrganization) {
	id := "acc_" + strings.TrimPrefix(o.id, "org_")
	g := m.w.must(t, m.w.operator, "GET", "/v1/accounts/"+id, nil)["grants"].([]any)[0].(object)
	m.accounts = append(m.accounts, &modelAccount{
		id: id, organization: o.id, name: "default", version: 1, created: o.created, updated: o.created,
		grants: []modelGrant{{id: g["id"].(string), organization: o.id, role: "owner", created: o.created}},
	})
}

// tenant makes an organization with people and keys of several kinds.
func (m *machine) tenant(t *rapid.T, slug string, overrides object) {
	body := object{"slug": slug, "plan": "small"}
	put(body, "overrides", overrides)
	m.createOrganization(t, m.admin, body)
	for _, space := range []string{"north", "south"} {
		m.createSpace(t, m.admin, object{"organization": slug, "slug": space})
	}
	account := func(name, role, space string) string {
		body := object{"organization": slug, "name": name, "role": role}
		put(body, "space", space)
		m.createAccount(t, m.admin, body)
		return m.accounts[len(m.accounts)-1].id
	}
	owner, keeper := account("owner", "owner", ""), account("keeper", "keeper", "")
	m.createKey(t, m.admin, object{"name": "owner", "organization": slug, "account": owner, "permissions": []string{"admin"}})
	m.createKey(t, m.admin, object{"name": "keeper", "organization": slug, "account": keeper, "permissions": []string{"keygate:keys-read", "keygate:keys-write", "orders:read"}})
	m.createKey(t, m.admin, object{"name": "restricted", "organization": slug, "account": owner, "permissions": []string{"admin"}, "space": "north"})
	if overrides != nil {
		auditor := account("auditor", "auditor", "")
		account("northerner", "people", "north")
		m.createKey(t, m.admin, object{"name": "auditor", "organization": slug, "account": auditor, "permissions": []string{"keygate:audit"}})
		m.createKey(t, m.admin, object{"name": "brief", "organization": slug, "expires": "1d", "permissions": []string{"orders:read"}})
		m.createKey(t, m.admin, object{"name": "waiting", "organization": slug, "expires": "30d"})
		m.transition(t, m.admin, m.keys[len(m.keys)-1].id, "pause")
	}
}

func (m *machine) newSecret(text, prefix string) modelSecret {
	s := modelSecret{text: text, prefix: prefix, created: m.now()}
	if prefix == "" {
		s.prefix = m.w.format.Prefix()
	}
	s.lastFour = text[len(text)-4:]
	return s
}

// draws

func (m *machine) actions() map[string]func(*rapid.T) {
	// on is an action by somebody on some key.
	on := func(do func(t *rapid.T, by *secret, id string)) func(*rapid.T) {
		return func(t *rapid.T) {
			by := m.caller(t)
			do(t, by, m.keyID(t, by))
		}
	}
	create := func(t *rapid.T) { by := m.caller(t); m.createKey(t, by, m.drawKey(t, by)) }
	return map[string]func(*rapid.T){
		"key: create":      create,
		"key: create more": create,
		"key: edit":        on(func(t *rapid.T, by *secret, id string) { m.editKey(t, by, id, m.drawEdit(t)) }),
		"key: pause or resume": on(func(t *rapid.T, by *secret, id string) {
			m.transition(t, by, id, pick(t, "verb", "pause", "resume"))
		}),
		"key: revoke":              on(func(t *rapid.T, by *secret, id string) { m.transition(t, by, id, "revoke") }),
		"key: rotate":              on(func(t *rapid.T, by *secret, id string) { m.rotateKey(t, by, id, m.drawRotation(t)) }),
		"key: rotate again":        m.rotateAgain,
		"key: delete":              on(m.deleteKey),
		"key: import":              func(t *rapid.T) { by := m.caller(t); m.importKeys(t, by, m.drawImport(t, by)) },
		"key: get, test":           on(m.askKey),
		"key: explain":             on(m.explain),
		"key: use":                 m.use,
		"organizations":            m.changeOrganizations,
		"spaces":                   m.changeSpaces,
		"accounts":                 m.changeAccounts,
		"grants":                   m.changeGrants,
		"lists: keys":              func(t *rapid.T) { m.listKeys(t, m.caller(t)) },
		"lists: others":            func(t *rapid.T) { m.listOthers(t, m.caller(t)) },
		"requests: again":          m.again,
		"requests: not understood": on(m.misspelt),
		"time":                     m.pass,
	}
}

// pass lets time go on: mostly to just before or at the end of something.
func (m *machine) pass(t *rapid.T) {
	var edges []time.Time
	for _, k := range m.keys {
		for _, at := range append([]time.Time{k.expires}, ends(k)...) {
			if at.After(m.now()) && at.Before(m.now().AddDate(5, 0, 0)) {
				edges = append(edges, at)
			}
		}
	}
	if len(edges) == 0 || odds(t, "some time", 2) {
		m.clock.advance(pick(t, "time", time.Second, time.Minute, time.Hour, 25*time.Hour, 10*24*time.Hour))
		m.settle(t)
		return
	}
	edge := rapid.SampledFrom(edges).Draw(t, "edge").Sub(m.now())
	for _, step := range []time.Duration{edge - time.Microsecond, time.Microsecond} {
		m.clock.advance(step)
		m.settle(t)
	}
}

func ends(k *modelKey) []time.Time {
	var all []time.Time
	for _, s := range k.secrets {
		all = append(all, s.ends)
	}
	return all
}
