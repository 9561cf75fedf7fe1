package config

import (
	"errors"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
	"keygate/proxy/route"
	"keygate/proxy/upstream"
	"keygate/ratelimit"
)

var update = flag.Bool("update", false, "rewrite the expected errors in testdata/bad, the generated parts of docs/configuration.md and docs/policy.schema.json")

const wantMark = "# want: "

// Each file of testdata/bad breaks one rule and ends with the errors that it
// gives, as comments that start with "want:".
func TestBadPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files in testdata/bad", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, _, _ := strings.Cut(string(data), wantMark)
			_, err = ParsePolicy(name, []byte(text))
			if err == nil {
				t.Fatal("no error")
			}
			got := text
			for line := range strings.Lines(err.Error()) {
				got += wantMark + strings.TrimSuffix(strings.TrimPrefix(line, name+":"), "\n") + "\n"
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(data), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, secret := range []string{"secret", "user:"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows %q", secret)
				}
			}
		})
	}
}

// All that the example shows works.
func TestExampleIsSupported(t *testing.T) {
	p, err := ParsePolicy("policy.example.yaml", readFile(t, "testdata/policy.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 5 || len(p.Upstreams) != 1 {
		t.Errorf("%d rules, %d upstreams", len(p.Rules), len(p.Upstreams))
	}
}

func TestSupportedPolicy(t *testing.T) {
	p, err := ParsePolicy("supported.yaml", readFile(t, "testdata/supported.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	zurich, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]keys.Plan{
		"free":       {Name: "free", MaxKeys: 3, Limits: []ratelimit.Limit{{Name: "minute", Quota: 50, Per: time.Minute}}},
		"starter":    keys.BuiltinPlans()["starter"],
		"pro":        keys.BuiltinPlans()["pro"],
		"enterprise": {Name: "enterprise", MaxKeys: keys.Unlimited},
		"metered": {Name: "metered", MaxKeys: 0, Limits: []ratelimit.Limit{
			{Name: "burst", Quota: 20, Per: time.Second},
			{Name: "day", Quota: 600, Per: 24 * time.Hour, Shared: true},
			{Name: "month", Quota: 100000, Period: ratelimit.Month, Zone: zurich},
			{Name: "utc", Quota: 9000, Period: ratelimit.Day},
		}, Concurrent: 10},
	}, p.Keys.Plans, cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })); diff != "" {
		t.Errorf("plans (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{
		"viewer": {"read:all"}, "editor": {"read:all", "write:all", "query:execute"}, "owner": {"admin"},
	}, p.Keys.Roles); diff != "" {
		t.Errorf("roles (-want +got)\n%s", diff)
	}

	entry := func(name string) keys.Permission {
		i, ok := p.Keys.Catalogue.Index(name)
		if !ok {
			t.Fatalf("%s is not in the catalogue", name)
		}
		return p.Keys.Catalogue.Entries()[i]
	}
	if diff := cmp.Diff(keys.Permission{Name: "database:read", Group: "Read", Title: "Read databases", Description: "Read data from databases"}, entry("database:read")); diff != "" {
		t.Errorf("permission (-want +got)\n%s", diff)
	}
	for name, want := range map[string]bool{"team:manage": true, "team:list": false, "query:execute": false, "query:purge": true} {
		if entry(name).Administrative != want {
			t.Errorf("%s: administrative is %v", name, !want)
		}
	}
	if got := entry("collections:all").Implies; !slices.Equal(got, []string{"collections:*"}) {
		t.Errorf("collections:all implies %v", got)
	}

	need := func(names ...string) (positions []int) {
		for _, name := range names {
			i, _ := p.Keys.Catalogue.Index(name)
			positions = append(positions, i)
		}
		return positions
	}
	vault := route.Timeouts{Connect: time.Second, TLS: 2 * time.Second, FirstByte: 30 * time.Second, Idle: time.Minute}
	plain := route.Forwarding{Timeouts: vault, Retries: 1}
	query := route.Forwarding{
		Timeouts: vault, MaxBody: 10 << 20, ForwardKey: true,
		Rewrite: route.Rewrite{Strip: "/v1", Prefix: "/internal", Host: "api.internal:8080"},
		RequestHeaders: route.Headers{
			Set: []route.Field{{Name: "X-Tenant", Value: "a"}}, Add: []route.Field{{Name: "X-Via", Value: "keygate"}}, Remove: []string{"Cookie"},
		},
		ResponseHeaders: route.Headers{Remove: []string{"Server"}},
	}
	query.Timeouts.Idle, query.Timeouts.Total = 0, 5*time.Minute
	want := []route.Rule{
		{Upstream: "vault", Permissions: []string{"database:read"}, Need: need("database:read"), Forwarding: plain},
		{Upstream: "vault", Permissions: []string{"query:execute", "database:read"}, Need: need("query:execute", "database:read"), Cost: route.Cost{Reserve: 5}, Forwarding: query},
		{
			Upstream: "vault", Permissions: []string{"collections:read"}, Need: need("collections:read"),
			Organization: &route.Binding{Source: route.FromHeader, Name: "X-Organization"},
			Space:        &route.Binding{Source: route.FromPath, Name: "space"},
			Forwarding:   plain,
		},
		{Upstream: "vault", Any: true, Organization: &route.Binding{Source: route.FromQuery, Name: "org"}, Cost: route.Cost{Reserve: 5, Max: 20, Header: "X-Cost"}, Forwarding: plain},
		{Upstream: "vault", Any: true, Space: &route.Binding{Source: route.FromPath, Name: "rest"}, Forwarding: plain},
		{Upstream: "vault", Public: &route.Budget{Requests: 60, Per: time.Minute}, Forwarding: plain},
	}
	var got []route.Rule
	for _, r := range p.Rules {
		rule := *r
		rule.Pattern = route.Pattern{}
		got = append(got, rule)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b route.Pattern) bool { return a.String() == b.String() })); diff != "" {
		t.Errorf("rules (-want +got)\n%s", diff)
	}
	if m := p.Table.Match("GET", "example.com", "/v1/databases/a/b"); m.Rule != p.Rules[0] {
		t.Errorf("the table matches %+v", m)
	}
	if diff := cmp.Diff(map[string]upstream.Options{"vault": {
		Name: "vault", Targets: []*url.URL{{Scheme: "http", Host: "127.0.0.1:9001"}, {Scheme: "http", Host: "127.0.0.1:9002"}},
		Balance: upstream.LeastRequests, Health: &upstream.Health{Type: upstream.HTTPCheck, Path: "/healthz", Every: 5 * time.Second},
		Timeouts: vault, MaxConcurrent: 100, Breaker: &upstream.Breaker{Failures: 60, Requests: 20, Window: 10 * time.Second, Open: 5 * time.Second},
		RetryBudget: 10,
	}}, p.Upstreams); diff != "" {
		t.Errorf("upstreams (-want +got)\n%s", diff)
	}
}

const minimal = "version: 1\nroutes:\n  - { match: \"/a\", permission: any }\n"

func TestLoadPolicy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte("\ufeff"+minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	here, _ := url.Parse("http://127.0.0.1:9001/base")
	for _, c := range []struct {
		name     string
		cfg      Config
		routes   string // pattern of the only one
		upstream []*url.URL
		err      string
	}{
		{"built in, demonstration", Config{DefaultPlan: "free"}, "/{path...}", nil, ""},
		{"built in", Config{DefaultPlan: "pro", Upstream: here}, "/{path...}", []*url.URL{here}, ""},
		{"inline", Config{DefaultPlan: "free", Upstream: here, Policy: minimal}, "/a", []*url.URL{here}, ""},
		{"file", Config{DefaultPlan: "free", Upstream: here, PolicyFile: file}, "/a", []*url.URL{here}, ""},
		{
			"no upstream",
			Config{DefaultPlan: "free", Policy: minimal},
			"", nil,
			"KEYGATE_POLICY:3:5: routes[0]: names no upstream, and there is not exactly one to choose: name one under upstreams, or set KEYGATE_UPSTREAM",
		},
		{
			"default plan",
			Config{DefaultPlan: "gold", Upstream: here, Policy: minimal},
			"", nil,
			`KEYGATE_DEFAULT_PLAN: "gold" is not a plan of KEYGATE_POLICY; allowed: "enterprise", "free", "pro", "starter"`,
		},
		{
			"misspelt default plan",
			Config{DefaultPlan: "entreprise", Upstream: here, Policy: minimal},
			"", nil,
			`KEYGATE_DEFAULT_PLAN: "entreprise" is not a plan of KEYGATE_POLICY; allowed: "enterprise", "free", "pro", "starter"; did you mean "enterprise"?`,
		},
		{
			"no file",
			Config{DefaultPlan: "free", PolicyFile: "/nowhere.yaml"},
			"", nil,
			`KEYGATE_POLICY_FILE: "/nowhere.yaml" cannot be read: no such file or directory`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := LoadPolicy(c.cfg)
			if c.err != "" {
				if _, ok := errors.AsType[*Error](err); !ok || err.Error() != c.err {
					t.Fatalf("error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Rules) != 1 || p.Rules[0].Pattern.String() != c.routes || p.Rules[0].Upstream != OwnUpstream || !p.Rules[0].Any {
				t.Errorf("rules are %+v", p.Rules)
			}
			if up, ok := p.Upstreams[OwnUpstream]; !ok || !slices.Equal(up.Targets, c.upstream) {
				t.Errorf("upstreams are %+v", p.Upstreams)
			}
			if p.Keys.DefaultPlan != c.cfg.DefaultPlan {
				t.Errorf("default plan is %q", p.Keys.DefaultPlan)
			}
		})
	}
}

// A file's own upstream wins over KEYGATE_UPSTREAM where it is the only one;
// among several of them a route that names none goes to KEYGATE_UPSTREAM.
func TestRoutesWithoutUpstream(t *testing.T) {
	here, _ := url.Parse("http://127.0.0.1:9001")
	const one = "upstreams:\n  default: { targets: [\"http://127.0.0.1:1\"] }\n"
	for policy, want := range map[string]string{
		minimal: OwnUpstream, minimal + one: "default", minimal + one + "  other: { targets: [\"http://127.0.0.1:2\"] }\n": OwnUpstream,
	} {
		p, err := LoadPolicy(Config{DefaultPlan: "free", Upstream: here, Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		if p.Rules[0].Upstream != want {
			t.Errorf("with\n%s\nthe upstream is %q, not %q", policy, p.Rules[0].Upstream, want)
		}
	}
}

// Replicas compare digests to know whether they decide alike, wherever they
// forward to.
func TestDigest(t *testing.T) {
	digest := func(c Config) string {
		t.Helper()
		p, err := LoadPolicy(c)
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest
	}
	a, _ := url.Parse("http://127.0.0.1:1")
	b, _ := url.Parse("http://127.0.0.1:2")
	first := digest(Config{DefaultPlan: "free", Upstream: a, Policy: minimal})
	if len(first) != 64 || first != digest(Config{DefaultPlan: "free", Upstream: b, Policy: minimal}) {
		t.Error("the same policy has two digests")
	}
	if first == digest(Config{DefaultPlan: "pro", Upstream: a, Policy: minimal}) || first == digest(Config{DefaultPlan: "free", Upstream: a, Policy: minimal + " "}) {
		t.Error("two policies have the same digest")
	}
}

// A role that the file names replaces the built-in one, also owner.
func TestOwnerCanBeReplaced(t *testing.T) {
	p, err := LoadPolicy(Config{DefaultPlan: "free", Upstream: &url.URL{}, Policy: minimal + "roles:\n  owner: [\"read:all\"]\n"})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Keys.Roles[keys.RoleOwner]; !slices.Equal(got, []string{"read:all"}) {
		t.Errorf("owner holds %v", got)
	}
}

// An alias is good for a value that several routes share.
func TestAliases(t *testing.T) {
	p, err := LoadPolicy(Config{DefaultPlan: "free", Upstream: &url.URL{}, Policy: `version: 1
permissions: { "a:read": {}, "b:read": {} }
routes:
  - { match: "/a", permission: &both ["a:read", "b:read"] }
  - { match: "/b", permission: *both }
`})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Rules[1].Permissions; !slices.Equal(got, []string{"a:read", "b:read"}) {
		t.Errorf("permissions are %v", got)
	}
}

func TestPolicyBounds(t *testing.T) {
	_, err := ParsePolicy("big", []byte(minimal+strings.Repeat("#\n", maxPolicy/2)))
	if err == nil || !strings.Contains(err.Error(), "at most 4 MiB") {
		t.Errorf("error is %v", err)
	}
	_, err = ParsePolicy("wrong", []byte("version: 1\nroutes:\n"+strings.Repeat("  - 1\n", 2*maxProblems)))
	problems, ok := errors.AsType[*Error](err)
	if !ok || len(problems.Problems) != maxProblems+1 || problems.Problems[maxProblems].String() != "wrong:503:5: and 500 more problems from here on" {
		t.Errorf("error is %v", err)
	}
	_, err = ParsePolicy("routes", []byte("version: 1\nroutes:\n"+strings.Repeat("  - {}\n", maxItems+1)))
	if err == nil || err.Error() != "routes:3:3: routes: has 5001 entries; at most 5000 are allowed" {
		t.Errorf("error is %v", err)
	}
}

// Whatever is in a policy, an error has a place, and never a panic; what is good is
// so for the schema too.
func FuzzParsePolicy(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range append(files, "testdata/policy.example.yaml", "testdata/supported.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	schema := compiledSchema(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy("fuzz.yaml", data)
		if err == nil {
			if err := judge(schema, data); err != nil {
				t.Errorf("the schema refuses a good policy: %v", err)
			}
			if p.Table == nil || len(p.Rules) == 0 || p.Digest == "" {
				t.Fatalf("incomplete: %+v", p)
			}
			return
		}
		problems, ok := errors.AsType[*Error](err)
		if !ok || len(problems.Problems) == 0 {
			t.Fatalf("error is %T: %v", err, err)
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + strings.Count(string(data), "\u2028") +
			strings.Count(string(data), "\u2029") + strings.Count(string(data), "\u0085") + 2
		before := Problem{}
		for _, p := range problems.Problems {
			if p.File != "fuzz.yaml" || p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" || strings.ContainsAny(p.String(), "\n\r") {
				t.Errorf("problem without place: %+v", p)
			}
			if p.Line < before.Line || p.Line == before.Line && p.Column < before.Column {
				t.Errorf("%s stands after %s", p, before)
			}
			before = p
		}
	})
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
