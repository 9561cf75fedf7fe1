package route

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

func newRules(tb testing.TB, patterns ...string) []*Rule {
	tb.Helper()
	rules := make([]*Rule, len(patterns))
	for i, s := range patterns {
		rules[i] = &Rule{Pattern: mustParse(tb, s)}
	}
	return rules
}

func newTable(tb testing.TB, patterns ...string) *Table {
	tb.Helper()
	table, err := NewTable(newRules(tb, patterns...))
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

func splitExample(tb testing.TB, s string) (method, host, path string) {
	tb.Helper()
	method, target, found := strings.Cut(s, " ")
	slash := strings.IndexByte(target, '/')
	if !found || slash < 0 {
		tb.Fatalf("example %q is not METHOD [host]/path", s)
	}
	path, err := url.PathUnescape(target[slash:])
	if err != nil {
		tb.Fatal(err)
	}
	return method, target[:slash], path
}

func TestMatch(t *testing.T) {
	table := newTable(t,
		"GET /v1/databases/{database...}",
		"POST /v1/databases/{database}",
		"GET /v1/databases/main",
		"DELETE /v1/databases/main",
		"HEAD /v1/databases/main",
		"PURGE /v1/databases/main/{x...}",
		"POST /v1/query",
		"/slash/",
		"GET /{a}/b",
		"POST /a/{b}",
		"api.example.com/v1/{x...}",
		"PUT api.example.com/v1/query",
		"GET [2001:db8::1]/only",
		"GET /",
	)
	const known, unknown = "405", "404"
	for _, tt := range []struct{ method, host, path, want string }{
		{"GET", "", "/v1/databases", "GET /v1/databases/{database...}"},
		{"GET", "", "/v1/databases/", "GET /v1/databases/{database...}"},
		{"HEAD", "", "/v1/databases/a/b", "GET /v1/databases/{database...}"},
		{"GET", "", "/v1/databases/main", "GET /v1/databases/main"},
		{"HEAD", "", "/v1/databases/main", "HEAD /v1/databases/main"},
		{"POST", "", "/v1/databases/main", "POST /v1/databases/{database}"}, // the literal has no POST
		{"DELETE", "", "/v1/databases/main", "DELETE /v1/databases/main"},
		{"DELETE", "", "/v1/databases/other", known},
		{"POST", "", "/v1/databases/", known}, // a parameter is never empty
		{"PURGE", "", "/v1/databases/main/", "PURGE /v1/databases/main/{x...}"},
		{"GET", "", "/v1/databasesx", unknown},
		{"GET", "", "/V1/databases", unknown},
		{"GET", "", "/v1/query", known},
		{"GET", "", "/v1/query/", unknown},
		{"GET", "", "/slash", unknown},
		{"GET", "", "/slash/", "/slash/"},
		{"GET", "", "/slash/x", unknown},
		{"GET", "", "/a/b", "GET /{a}/b"},
		{"POST", "", "/a/b", "POST /a/{b}"},
		{"PUT", "", "/a/b", known},
		{"GET", "", "/", "GET /"},
		{"POST", "", "/", known},
		{"get", "", "/", known},
		{"GET", "", "", unknown},
		{"OPTIONS", "", "*", unknown},
		// Hosts.
		{"POST", "other.example.com", "/v1/query", "POST /v1/query"},
		{"POST", "api.example.com", "/v1/query", "api.example.com/v1/{x...}"},
		{"PUT", "API.Example.com.:8080", "/v1/query", "PUT api.example.com/v1/query"},
		{"GET", "api.example.com:", "/", "GET /"}, // the host has no rule for it
		{"POST", "api.example.com", "/a/b", "POST /a/{b}"},
		{"PUT", "api.example.com", "/a/b", known},
		{"GET", "[2001:DB8::1]:443", "/only", "GET [2001:db8::1]/only"},
		{"GET", "[2001:db8::1]", "/only", "GET [2001:db8::1]/only"},
		{"POST", "[2001:db8::1]", "/only", known},
		{"GET", "[2001:db8::1", "/only", unknown},
		{"GET", "2001:db8::1", "/only", unknown},
		{"POST", "xapi.example.com", "/v1/query", "POST /v1/query"},
		{"POST", strings.Repeat("a", 5000), "/v1/query", "POST /v1/query"},
	} {
		m := table.Match(tt.method, tt.host, tt.path)
		got := unknown
		switch {
		case m.Rule != nil:
			got = m.Rule.Pattern.String()
		case m.PathKnown:
			got = known
		}
		if got != tt.want || m.Rule != nil && !m.PathKnown {
			t.Errorf("Match(%q, %q, %q) = %s (PathKnown %v), want %s", tt.method, tt.host, tt.path, got, m.PathKnown, tt.want)
		}
	}
}

func TestAllow(t *testing.T) {
	table := newTable(t,
		"GET /a/{x...}",
		"POST,PATCH /a/{x}",
		"DELETE /a/b",
		"PUT a.example/a/b",
		"/all/{x}",
	)
	for _, tt := range []struct{ host, path, want string }{
		{"", "/a", "GET, HEAD"},
		{"", "/a/c", "GET, HEAD, PATCH, POST"},
		{"", "/a/b", "DELETE, GET, HEAD, PATCH, POST"},
		{"A.example:80", "/a/b", "DELETE, GET, HEAD, PATCH, POST, PUT"},
		{"A.example:80", "/a/c", "GET, HEAD, PATCH, POST"},
		{"", "/all/x", ""},
		{"", "*", ""},
	} {
		if got := table.Allow(tt.host, tt.path); got != tt.want {
			t.Errorf("Allow(%q, %q) = %q, want %q", tt.host, tt.path, got, tt.want)
		}
	}
	if got := newTable(t, "GET /a").Allow("", "/b"); got != "" {
		t.Errorf("Allow of an unknown path is %q", got)
	}
}

func TestEmptyTable(t *testing.T) {
	empty, err := NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{nil, {}, empty} {
		if m := table.Match("GET", "a", "/"); m != (Match{}) || table.Allow("a", "/") != "" {
			t.Errorf("%v matches", table)
		}
	}
}

func TestNewTableWithoutPattern(t *testing.T) {
	for _, r := range []*Rule{nil, {}} {
		if _, err := NewTable([]*Rule{r}); err == nil {
			t.Errorf("NewTable accepts %v", r)
		}
	}
}

func TestMatchAllocations(t *testing.T) {
	table := newTable(t, "GET /v1/{a}/b/{c...}", "POST /v1/x/b", "api.example.com/v1/{x...}", "GET [::1]/")
	for _, tt := range [][3]string{
		{"GET", "API.Example.com.:8443", "/v1/x/b/d"},
		{"GET", "other.example.com:8443", "/v1/x/b"},
		{"PUT", "[::1]:80", "/v1/x/b"},
		{"GET", strings.Repeat("x", 300), "/none"},
	} {
		if n := testing.AllocsPerRun(100, func() { _ = table.Match(tt[0], tt[1], tt[2]) }); n != 0 {
			t.Errorf("Match(%v) allocates %v times", tt, n)
		}
	}
}

// Every level of the tree offers a literal and a parameter, every rule has its
// own last segment, and the request has none of them: the search visits the
// whole tree, and still each node only once.
func TestHostilePath(t *testing.T) {
	const depth = 9
	var patterns []string
	for i := range 1 << depth {
		var b strings.Builder
		for level := range depth {
			if i>>level&1 == 0 {
				b.WriteString("/a")
			} else {
				fmt.Fprintf(&b, "/{p%d}", level)
			}
		}
		patterns = append(patterns, fmt.Sprintf("GET %s/last%d", &b, i))
	}
	table := newTable(t, patterns...)
	for name, path := range map[string]string{
		"almost":    strings.Repeat("/a", depth) + "/a",
		"deep":      strings.Repeat("/a", 500_000),
		"long":      strings.Repeat("/a", depth) + "/" + strings.Repeat("x", 1<<16),
		"odd slash": strings.Repeat("/", 1<<20), // CheckPath refuses it
	} {
		start := time.Now()
		for range 10 {
			if m := table.Match("GET", "h", path); m.Rule != nil || m.PathKnown {
				t.Errorf("%s: found %v", name, m)
			}
		}
		// About 100 µs each; the bound leaves room for a busy machine and -race.
		if took := time.Since(start) / 10; took > 50*time.Millisecond {
			t.Errorf("%s: one match took %v", name, took)
		}
	}
	if m := table.Match("GET", "h", strings.Repeat("/a", depth)+"/last511"); m.Rule == nil || m.Rule.Pattern.String() != patterns[511] {
		t.Errorf("the widest rule is not found: %v", m)
	}
}

func TestConflicts(t *testing.T) {
	for _, tt := range []struct{ a, b, example string }{
		{"/a", "/a", "GET /a"},
		{"/{x}", "/{y}", "GET /x"},
		{"/{x...}", "/{y...}", "GET /"},
		{"GET /a", "GET,HEAD /a", "GET /a"},
		{"GET,POST /a", "POST,PUT /a", "POST /a"},
		{"GET /a", "HEAD,PUT /a", "HEAD /a"},
		{"/a/{x}", "/{y}/b", "GET /a/b"},
		{"GET /{x...}", "/a", "GET /a"},
		{"GET /{x}", "/a", "GET /a"},
		{"PUT,DELETE /{x}/{y...}", "/{z...}", ""},
		{"/a/{x...}", "/{y}/b/{z...}", "GET /a/b"},
		{"/a/{x...}", "/{y}/", "GET /a/"},
		{"h.example/{x}/c%20d", "H.example/a%3F/{y}", "GET h.example/a%3F/c%20d"},
		{"/caf%C3%A9", "/café", "GET /caf%C3%A9"},
		{"h.example/a", "/a", ""},
		{"GET h.example/{x...}", "/a", ""},
		{"h.example/a", "i.example/a", ""},
		{"GET /a", "POST /a", ""},
		{"GET /a", "/a", ""},
		{"HEAD /a", "GET /a", ""},
		{"/a", "/a/", ""},
		{"/{x}", "/", ""},
		{"/a/{x}", "/a/", ""},
		{"/a/{x...}", "/a", ""},
		{"/a/{x...}", "/a/", ""},
		{"/a/{x...}", "/a/{y}", ""},
		{"/a/{x...}", "/a/{y}/{z...}", ""},
		{"/{x...}", "/{y}/{z...}", ""},
		{"/a/{x}", "/b/{y}", ""},
	} {
		_, err := NewTable(newRules(t, tt.a, tt.b))
		var conflict *ConflictError
		switch {
		case !errors.As(err, &conflict):
			if err != nil || tt.example != "" {
				t.Errorf("%s, %s: %v, want a conflict in %q", tt.a, tt.b, err, tt.example)
			}
		case conflict.Example != tt.example || conflict.A != 0 || conflict.B != 1:
			t.Errorf("%s, %s: %v, want %q", tt.a, tt.b, err, tt.example)
		}
	}
}

func TestConflictsAreCapped(t *testing.T) {
	patterns := []string{"/{x}/b"}
	for i := range 100 {
		patterns = append(patterns, fmt.Sprintf("/a%d/{y}", i))
	}
	_, err := NewTable(newRules(t, patterns...))
	all := err.(interface{ Unwrap() []error }).Unwrap()
	if len(all) != maxConflicts+1 || !strings.Contains(err.Error(), "and 50 more pairs") {
		t.Errorf("%d errors: %v", len(all), err)
	}
}

// manyRules looks like an API of n routes.
func manyRules(tb testing.TB, n int) []*Rule {
	var patterns []string
	for i := 0; len(patterns) < n; i++ {
		patterns = append(patterns,
			fmt.Sprintf("GET,POST /v1/spaces/{space}/resource%d", i),
			fmt.Sprintf("GET /v1/spaces/{space}/resource%d/{id}", i),
			fmt.Sprintf("PUT,PATCH,DELETE /v1/spaces/{space}/resource%d/{id}", i),
			fmt.Sprintf("POST /v1/spaces/{space}/resource%d/{id}/actions/{action...}", i),
			fmt.Sprintf("GET /v1/spaces/{space}/resource%d/latest", i))
	}
	return newRules(tb, patterns[:n]...)
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000} {
		table, err := NewTable(manyRules(b, n))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Match("DELETE", "api.example.com:8080", "/v1/spaces/acme/resource1/latest")
			}
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	rules := manyRules(b, 1000)
	for b.Loop() {
		if _, err := NewTable(rules); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPath(b *testing.B) {
	for _, target := range []string{"/v1/spaces/acme/resource1/latest", "/v1/caf%c3%a9/a%2Cb"} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("check "+target, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				CheckPath(u)
			}
		})
		b.Run("canonical "+target, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Canonical(u)
			}
		})
	}
}

func TestCheckHost(t *testing.T) {
	for host, want := range map[string]bool{
		"": true, "a": true, "A-b_c.example.": true, "a.example:8080": true, "[2001:db8::1]:80": true, "192.0.2.1": true,
		"a b": false, "a/b": false, "a,b": false, "a\tb": false, "a\"": false, "a@b": false, "a%2e": false, "é.example": false, "\xff": false, "a\x00": false, "a~b": false, "a;b": false,
	} {
		if got := CheckHost(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}
