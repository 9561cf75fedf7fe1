package management

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keygate/internal/keys"
)

// TestModel drives the management API through all replicas at random and holds
// every answer, every list, the audit log and what each secret that was ever
// shown can do against a simple model in memory.
func TestModel(t *testing.T) {
	checks, steps := "3", "60"
	if full() {
		checks, steps = "20", "200"
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
	shown  []*secret // all that were ever shown or imported
	fixed  bool      // the beginning is the same in each run
	names  int       // Idempotency-Keys so far
	asks   *modelKey // who does at the moment
	replay []answered
	gone   map[string][]string // ids of what was deleted, by their kind
}

// secret is one that somebody was shown.
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
	m.tenant(t, "acme", object{"max_keys": 8})
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
		m.createKey(t, m.admin, object{"name": "auditor", "organization": slug, "account": auditor, "permissions": []string{"keygate:audit", "*:read"}[:1]})
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

// forecast is what the model says will become of a request.
type forecast struct {
	status int
	wrong  []string // fields that a refusal points at; nil: not told
	early  bool     // refused before the version is looked at
	// version of what is to be changed; 0: the request has none to name.
	version int64
	// happens changes the model by what the answer says is new, and returns what
	// is shown and its version. nil: nothing changes, and shows is the answer.
	happens func(got object) (shown object, version int64)
	shows   func() (shown object, version int64)
}

func refused(status int, wrong ...string) forecast { return forecast{status: status, wrong: wrong} }

func early(status int, wrong ...string) forecast {
	return forecast{status: status, wrong: wrong, early: true}
}

// admit is what the API says to a secret before it looks at the request.
func (m *machine) admit(s *secret) (status int, text string) {
	if text := m.refusal(s.text); text != "" {
		return 401, text
	}
	k, _ := m.holder(s.text)
	const no = "Insufficient permissions"
	loopback := netip.MustParseAddr("127.0.0.1")
	if len(k.cidrs) > 0 && !slices.ContainsFunc(k.cidrs, func(c string) bool { return netip.MustParsePrefix(c).Contains(loopback) }) {
		return 403, no
	}
	places := []string{""}
	for _, g := range m.account(k.account).grants {
		places = append(places, g.space)
	}
	for _, place := range places {
		for name := range m.reach(k, place) {
			if strings.HasPrefix(name, "keygate:") && name != "keygate:?" {
				return 0, ""
			}
		}
	}
	return 403, no
}

// perform sends a request, with a version or a name of its own now and then, and
// wants what was foretold, of the answer and of everything else.
func (m *machine) perform(t *rapid.T, by *secret, q request, f func(modelActor) forecast) {
	t.Helper()
	want, text := forecast{}, ""
	q.key, q.header = by.text, map[string]string{}
	if status, why := m.admit(by); status != 0 {
		want, text = early(status), why
	} else {
		m.asks, _ = m.holder(by.text)
		want = f(m.actor(m.asks))
	}
	if !m.fixed {
		q.replica = rapid.IntRange(0, 1).Draw(t, "replica")
	}
	if want.version > 0 && !want.early && !m.fixed {
		switch rapid.IntRange(0, 7).Draw(t, "If-Match") {
		case 1:
			q.header["If-Match"] = strconv.Quote(fmt.Sprint(want.version))
		case 2:
			q.header["If-Match"] = "*"
		case 3:
			q.header["If-Match"] = strconv.Quote(fmt.Sprint(want.version + int64(rapid.SampledFrom([]int{1, 7}).Draw(t, "ahead"))))
			want = forecast{status: 412, version: want.version}
		}
	}
	if q.method == "POST" && !m.fixed && rapid.IntRange(0, 3).Draw(t, "named") == 0 {
		m.names++
		q.header["Idempotency-Key"] = fmt.Sprint("request ", m.names)
	}
	got := m.w.send(t, q)
	m.seen[fmt.Sprint(got.status)]++
	asked := fmt.Sprintf("%s %s %v %v by %s on replica %d", q.method, q.target, q.body, q.header, m.describe(by), q.replica)
	if got.status != want.status {
		t.Fatalf("%s:\n%d %s\nthe model says %d %q", asked, got.status, got.raw, want.status, want.wrong)
	}
	if got.status >= 400 {
		m.checkProblem(t, asked, got, want, text)
		m.checkNews(t, asked, nil, "", got)
		return
	}
	m.succeeded(t, asked, by, q, got, want)
}

// succeeded compares the answer to a request that was not refused.
func (m *machine) succeeded(t *rapid.T, asked string, by *secret, q request, got answer, want forecast) {
	t.Helper()
	var body, shown object
	var version int64
	if len(got.raw) > 0 {
		body = got.object(t)
	}
	made := len(m.log)
	switch {
	case want.happens != nil:
		shown, version = want.happens(body)
		if len(m.log) > made && got.header.Get("X-Keygate-Durable") == "" {
			t.Fatalf("%s: the answer does not say whether the change is durable", asked)
		}
	case want.shows != nil:
		shown, version = want.shows()
	}
	if text, ok := body["secret"].(string); ok && shown["secret"] == nil {
		delete(body, "secret")
		if !m.w.format.Valid(text) {
			t.Fatalf("%s: the secret %q has not the form of one", asked, text)
		}
	}
	if diff := cmp.Diff(asJSON(shown), asJSON(body)); diff != "" {
		t.Fatalf("%s (-model +real):\n%s", asked, diff)
	}
	tag := ""
	if version > 0 {
		tag = strconv.Quote(fmt.Sprint(version))
	}
	if got.header.Get("ETag") != tag {
		t.Fatalf("%s: ETag %s, the model says %s", asked, got.header.Get("ETag"), tag)
	}
	m.checkNews(t, asked, m.log[made:], by.text, got)
	if q.header["Idempotency-Key"] != "" && q.target != "/v1/explain" && !strings.HasSuffix(q.target, "/test") {
		then := got.object(t)
		delete(then, "secret")
		m.replay = append(m.replay, answered{by: by, q: q, body: then, etag: tag, code: got.status, at: m.now()})
	}
	if len(m.log) == made {
		return
	}
	m.checkSecrets(t, q.replica) // at once on the replica that made the change
	m.settle(t, q.replica%len(m.w.replicas))
}

func (m *machine) describe(s *secret) string {
	if k := m.key(s.key); k != nil {
		return fmt.Sprintf("key %s %q", k.status(m.now()), k.name)
	}
	return "a deleted key"
}

// checkProblem wants a refusal to say what and where.
func (m *machine) checkProblem(t *rapid.T, asked string, got answer, want forecast, text string) {
	t.Helper()
	p := got.object(t)
	if text == "" {
		text = map[int]string{403: "Insufficient permissions", 404: "Not found", 409: "Conflict", 412: "Changed meanwhile", 422: "Invalid input"}[want.status]
	}
	if p["error"] != text || p["request_id"] != got.header.Get("X-Request-Id") || got.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%s:\n%s %s\nthe model says %q", asked, got.header.Get("Content-Type"), got.raw, text)
	}
	if tag := strconv.Quote(fmt.Sprint(want.version)); want.status == 412 && got.header.Get("ETag") != tag {
		t.Fatalf("%s: ETag %s, the model says %s", asked, got.header.Get("ETag"), tag)
	}
	if want.wrong == nil {
		return
	}
	pointers := []string{}
	for _, e := range p["errors"].([]any) {
		pointer, _ := e.(object)["pointer"].(string)
		if pointer == "" {
			pointer, _ = e.(object)["field"].(string)
		}
		pointers = append(pointers, pointer)
	}
	slices.Sort(pointers)
	wrong := slices.Sorted(slices.Values(want.wrong))
	if diff := cmp.Diff(slices.Compact(wrong), slices.Compact(pointers)); diff != "" {
		t.Fatalf("%s:\n%s\nwrong fields (-model +real):\n%s", asked, got.raw, diff)
	}
}

// checkNews wants just these entries at the end of the audit log.
func (m *machine) checkNews(t *rapid.T, asked string, news []modelEntry, address string, got answer) {
	t.Helper()
	target := fmt.Sprint("/v1/audit?limit=", len(news)+1)
	real := m.w.must(t, m.w.operator, "GET", target, nil)["items"].([]any)
	tail := m.log[max(0, len(m.log)-len(news)-1):]
	for i := range real {
		e := real[i].(object)
		want := tail[len(tail)-1-i]
		if diff := cmp.Diff(asJSON(want.show()), asJSON(bare(e))); diff != "" {
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

// entry adds to the audit log, on behalf of whoever asks at the moment.
func (m *machine) entry(action, kind, target, organization string, before, after object) {
	m.log = append(m.log, modelEntry{
		action: action, actor: m.asks.id, account: m.asks.account, at: m.now(),
		kind: kind, target: target, organization: organization, before: before, after: after,
	})
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
			if diff := cmp.Diff(m.held(k, place).names(), append([]string{}, authority.Names(place)...)); diff != "" {
				t.Fatalf("what %s can do at %q on replica %d (-model +real):\n%s", m.describe(s), place, replica, diff)
			}
		}
		if p.Key.ID != k.id || p.Key.Version != k.version {
			t.Fatalf("a secret of %s is that of version %d of %s on replica %d; the model says version %d of %s", m.describe(s), p.Key.Version, p.Key.ID, replica, k.version, k.id)
		}
	}
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
	rotate := on(func(t *rapid.T, by *secret, id string) { m.rotateKey(t, by, id, m.drawRotation(t)) })
	return map[string]func(*rapid.T){
		"key: create": func(t *rapid.T) { by := m.caller(t); m.createKey(t, by, m.drawKey(t, by)) },
		"key: edit":   on(func(t *rapid.T, by *secret, id string) { m.editKey(t, by, id, m.drawEdit(t)) }),
		"key: pause or resume": on(func(t *rapid.T, by *secret, id string) {
			m.transition(t, by, id, pick(t, "verb", "pause", "resume"))
		}),
		"key: revoke":              on(func(t *rapid.T, by *secret, id string) { m.transition(t, by, id, "revoke") }),
		"key: rotate":              rotate,
		"key: rotate again":        rotate,
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

func pick[T any](t *rapid.T, what string, of ...T) T { return rapid.SampledFrom(of).Draw(t, what) }

// odds is true once in so many times.
func odds(t *rapid.T, what string, n int) bool { return rapid.IntRange(0, n-1).Draw(t, what) == n-1 }

// caller is mostly one that can do something.
func (m *machine) caller(t *rapid.T) *secret {
	switch rapid.IntRange(0, 9).Draw(t, "caller") {
	case 0, 1, 2, 3:
		return m.admin
	case 9:
		return rapid.SampledFrom(m.shown).Draw(t, "any")
	}
	able := []*secret{}
	for _, s := range m.shown {
		if status, _ := m.admit(s); status == 0 {
			able = append(able, s)
		}
	}
	return rapid.SampledFrom(able).Draw(t, "able")
}

// either is one of these ids, mostly one of mine, or now and then of one that is
// no more.
func (m *machine) either(t *rapid.T, kind string, mine, all []string) string {
	if len(all) == 0 || odds(t, kind+" gone", 12) {
		return rapid.SampledFrom(append(slices.Clone(m.gone[kind]), kind[:3]+"_"+strings.Repeat("0", 32))).Draw(t, kind)
	}
	if len(mine) == 0 || odds(t, "any "+kind, 6) {
		mine = all
	}
	return rapid.SampledFrom(mine).Draw(t, kind)
}

// home is the organization of which a caller speaks mostly.
func (m *machine) home(by *secret) string {
	if k := m.key(by.key); k != nil && k.organization != "" {
		return k.organization
	}
	return m.organizations[min(1, len(m.organizations)-1)].id
}

func (m *machine) keyID(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, k := range m.keys[1:] { // the administrator's stays
		if all = append(all, k.id); k.organization == m.home(by) {
			mine = append(mine, k.id)
		}
	}
	return m.either(t, "key", mine, all)
}

func (m *machine) organizationRef(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, o := range m.organizations {
		if all = append(all, o.id, o.slug); o.id == m.home(by) {
			mine = []string{o.id, o.slug}
		}
	}
	return m.either(t, "organization", mine, all)
}

func (m *machine) spaceRef(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, s := range m.spaces {
		if all = append(all, s.id, s.slug); s.organization == m.home(by) {
			mine = append(mine, s.id, s.slug)
		}
	}
	return m.either(t, "space", mine, all)
}

func (m *machine) accountID(t *rapid.T, by *secret) string {
	var mine, all []string
	for _, a := range m.accounts {
		if a.id == m.key(m.admin.key).account { // the administrator stays one
			continue
		}
		if all = append(all, a.id); a.organization == m.home(by) {
			mine = append(mine, a.id)
		}
	}
	return m.either(t, "account", mine, all)
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

// again repeats a request that had a name, or takes its name for another.
func (m *machine) again(t *rapid.T) {
	var fresh []answered
	for _, r := range m.replay {
		if status, _ := m.admit(r.by); status == 0 && m.now().Sub(r.at) < 24*time.Hour {
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return
	}
	r := rapid.SampledFrom(fresh).Draw(t, "request")
	r.q.replica = rapid.IntRange(0, 1).Draw(t, "replica")
	asked := fmt.Sprint(r.q)
	if odds(t, "another", 3) {
		r.q.body = object{"name": "another"}
		if strings.HasSuffix(r.q.target, "/pause") || strings.HasSuffix(r.q.target, "/resume") || strings.HasSuffix(r.q.target, "/revoke") {
			return // they have no body to differ
		}
		if strings.HasSuffix(r.q.target, "/rotate") {
			r.q.body = object{"overlap": "23h"}
		}
		if strings.HasSuffix(r.q.target, "/grants") {
			r.q.body = object{"role": "another"}
		}
		if r.q.target == "/v1/keys/import" {
			r.q.body = object{"keys": []object{}}
		}
		if r.q.target == "/v1/organizations" || r.q.target == "/v1/spaces" {
			r.q.body = object{"slug": "another"}
		}
		got := m.w.send(t, r.q)
		m.seen["name taken"]++
		if got.status != 422 || !strings.Contains(string(got.raw), `"field":"Idempotency-Key"`) {
			t.Fatalf("%s: %d %s", asked, got.status, got.raw)
		}
		m.checkNews(t, asked, nil, "", got)
		return
	}
	got := m.w.send(t, r.q)
	m.seen["replayed"]++
	if got.status != r.code || got.header.Get("ETag") != r.etag {
		t.Fatalf("%s: %d %s %s; it was %d %s", asked, got.status, got.header.Get("ETag"), got.raw, r.code, r.etag)
	}
	want := object{"replayed": true}
	for name, value := range r.body {
		want[name] = value
	}
	if diff := cmp.Diff(asJSON(want), asJSON(got.object(t))); diff != "" {
		t.Fatalf("%s again (-then +now):\n%s", asked, diff)
	}
	m.checkNews(t, asked, nil, "", got)
}

// misspelt sends what no operation understands.
func (m *machine) misspelt(t *rapid.T, by *secret, id string) {
	method, target := "POST", pick(t, "target", "/v1/keys", "/v1/organizations", "/v1/spaces", "/v1/accounts")
	if odds(t, "an edit", 2) {
		method, target = http.MethodPatch, target+"/"+id
	}
	field := pick(t, "field", "secret", "id", "name")
	body := object{}
	switch {
	case method == http.MethodPatch:
	case target == "/v1/keys", target == "/v1/accounts":
		body["name"] = "n"
	default:
		body["slug"] = "s"
	}
	body[field] = 5
	m.perform(t, by, request{method: method, target: target, body: body}, func(modelActor) forecast { return early(422, "#/"+field) })
}
