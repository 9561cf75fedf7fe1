package management

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	compare "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

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
	if diff := compare.Diff(asJSON(shown), asJSON(body)); diff != "" {
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
	return "no key"
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
	if diff := compare.Diff(slices.Compact(wrong), slices.Compact(pointers)); diff != "" {
		t.Fatalf("%s:\n%s\nwrong fields (-model +real):\n%s", asked, got.raw, diff)
	}
}

// entry adds to the audit log, on behalf of whoever asks at the moment.
func (m *machine) entry(action, kind, target, organization string, before, after object) {
	m.log = append(m.log, modelEntry{
		action: action, actor: m.asks.id, account: m.asks.account, at: m.now(),
		kind: kind, target: target, organization: organization, before: before, after: after,
	})
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
	if body := another(r.q.target); body != nil && odds(t, "another", 3) {
		r.q.body = body
		got := m.w.send(t, r.q)
		m.seen["name taken"]++
		if got.status != 422 || !strings.Contains(string(got.raw), `"field":"Idempotency-Key"`) {
			t.Fatalf("%s with another body: %d %s", asked, got.status, got.raw)
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
	if diff := compare.Diff(asJSON(want), asJSON(got.object(t))); diff != "" {
		t.Fatalf("%s again (-then +now):\n%s", asked, diff)
	}
	m.checkNews(t, asked, nil, "", got)
}

// another is a body that no request of the model's has; nil where there is none.
func another(target string) object {
	for end, body := range map[string]object{
		"/keys": {"name": "another"}, "/accounts": {"name": "another"}, "/organizations": {"slug": "another"}, "/spaces": {"slug": "another"},
		"/rotate": {"overlap": "23h"}, "/grants": {"role": "another"}, "/import": {"keys": []object{}},
	} {
		if strings.HasSuffix(target, end) {
			return body
		}
	}
	return nil
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
