package route

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The reference takes nothing from the package: it reads the pattern's text by
// itself, lists the requests of a small world that each pattern matches, and
// compares those lists.
//
// The world is large enough that a relation between two generated patterns
// holds in it exactly if it holds for all requests: it has a segment ("c") and
// a method ("PUT") that no pattern names, and paths longer than any prefix.

type request struct{ method, path string }

var (
	worldMethods = []string{"GET", "HEAD", "POST", "PUT"}
	worldPaths   = func() []string {
		paths := []string{"/"}
		level := []string{""}
		for range maxPrefix + 1 {
			var next []string
			for _, p := range level {
				for _, s := range []string{"a", "b", "c"} {
					next = append(next, p+"/"+s)
					paths = append(paths, p+"/"+s, p+"/"+s+"/")
				}
			}
			level = next
		}
		return paths
	}()
)

// maxPrefix bounds the segments of a generated pattern before a {rest...}.
const maxPrefix = 3

type referenceRule struct {
	text    string
	host    string
	methods []string // nil: all
	path    *regexp.Regexp
	set     map[request]bool
}

var parameter = regexp.MustCompile(`^\{\w+\}$`)

func newReferenceRule(text string) *referenceRule {
	r := &referenceRule{text: text}
	target := text
	if methods, after, found := strings.Cut(text, " "); found {
		r.methods = strings.Split(methods, ",")
		target = after
	}
	slash := strings.Index(target, "/")
	r.host = target[:slash]
	expr := "^"
	for _, s := range strings.Split(target[slash+1:], "/") {
		switch {
		case strings.HasSuffix(s, "...}"):
			expr += "(/.*)?"
		case parameter.MatchString(s):
			expr += "/[^/]+"
		default:
			expr += "/" + regexp.QuoteMeta(s)
		}
	}
	r.path = regexp.MustCompile(expr + "$")
	r.set = map[request]bool{}
	for _, path := range worldPaths {
		for _, method := range worldMethods {
			if r.allows(method) && r.path.MatchString(path) {
				r.set[request{method, path}] = true
			}
		}
	}
	return r
}

func (r *referenceRule) allows(method string) bool {
	return r.methods == nil || slices.Contains(r.methods, method) ||
		method == "HEAD" && slices.Contains(r.methods, "GET")
}

func (r *referenceRule) knows(host, path string) bool {
	return (r.host == "" || r.host == host) && r.path.MatchString(path)
}

// moreSpecific is the definition: the host decides, else the strict subset.
func (r *referenceRule) moreSpecific(than *referenceRule) bool {
	if (r.host == "") != (than.host == "") {
		return r.host != ""
	}
	for q := range r.set {
		if !than.set[q] {
			return false
		}
	}
	return len(r.set) < len(than.set)
}

func (r *referenceRule) conflicts(other *referenceRule) bool {
	if r.host != other.host || r.moreSpecific(other) || other.moreSpecific(r) {
		return false
	}
	for q := range r.set {
		if other.set[q] {
			return true
		}
	}
	return false
}

// referenceMatch returns the position of the rule, or -1, and whether the path
// is known. Exactly one rule must beat all others that match.
func referenceMatch(t rapid.TB, rules []*referenceRule, method, host, path string) (int, bool) {
	known := false
	var matching, best []int
	for i, r := range rules {
		if r.knows(host, path) {
			known = true
			if r.allows(method) {
				matching = append(matching, i)
			}
		}
	}
	for _, i := range matching {
		if !slices.ContainsFunc(matching, func(j int) bool { return j != i && !rules[i].moreSpecific(rules[j]) }) {
			best = append(best, i)
		}
	}
	if len(matching) == 0 {
		return -1, known
	}
	if len(best) != 1 {
		t.Fatalf("%s %s%s has %d most specific rules", method, host, path, len(best))
	}
	return best[0], known
}

func referenceAllow(rules []*referenceRule, host, path string) string {
	var methods []string
	for _, m := range worldMethods {
		if slices.ContainsFunc(rules, func(r *referenceRule) bool { return r.knows(host, path) && r.allows(m) }) {
			methods = append(methods, m)
		}
	}
	if slices.Contains(methods, "PUT") { // only rules for all methods have it
		return ""
	}
	return strings.Join(methods, ", ") // worldMethods is sorted
}

// What patterns of the world are made of.
var (
	methodChoices  = []string{"", "", "GET ", "HEAD ", "POST ", "GET,POST ", "HEAD,POST ", "POST,GET,HEAD "}
	hostChoices    = []string{"", "", "h.example", "i.example"}
	segmentChoices = []string{"", "/a", "/b", "/{p%d}"}
	endChoices     = []string{"", "", "/", "/{r...}"}
)

// pattern builds a pattern's text; choose returns a number below n.
func pattern(choose func(n int) int) string {
	method, host := methodChoices[choose(len(methodChoices))], hostChoices[choose(len(hostChoices))]
	path := ""
	for i := range maxPrefix {
		path += strings.ReplaceAll(segmentChoices[choose(len(segmentChoices))], "%d", strconv.Itoa(i))
	}
	path += endChoices[choose(len(endChoices))]
	if path == "" {
		path = "/"
	}
	return method + host + path
}

func TestTableAgainstReference(t *testing.T) {
	patterns := rapid.Custom(func(t *rapid.T) string {
		return pattern(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
	})
	rapid.Check(t, func(t *rapid.T) {
		checkAgainstReference(t, rapid.SliceOfN(patterns, 1, maxPatterns).Draw(t, "patterns"))
	})
}

// maxPatterns keeps all conflicts below the cap.
const maxPatterns = 10

// FuzzTable reads two bytes for each pattern.
func FuzzTable(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("0123456789abcdef"))
	f.Add([]byte("\x02\x1d\x03\x27\xff\xff\x00\xc0"))
	f.Add([]byte("GET /a, POST /{b}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var texts []string
		for ; len(data) >= 2 && len(texts) < maxPatterns; data = data[2:] {
			bits := int(data[0])<<8 | int(data[1])
			texts = append(texts, pattern(func(n int) int {
				choice := bits % n
				bits /= n
				return choice
			}))
		}
		checkAgainstReference(t, texts)
	})
}

func checkAgainstReference(t rapid.TB, texts []string) {
	t.Helper()
	reference := make([]*referenceRule, len(texts))
	for i, s := range texts {
		reference[i] = newReferenceRule(s)
	}
	checkConflictsAgainstReference(t, texts, reference)

	var clean []*referenceRule
	var rules []*Rule
	for i, r := range reference {
		if !slices.ContainsFunc(clean, r.conflicts) {
			p, err := ParsePattern(texts[i])
			if err != nil {
				t.Fatal(err)
			}
			clean = append(clean, r)
			rules = append(rules, &Rule{Pattern: p})
		}
	}
	table, err := NewTable(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []struct{ sent, name string }{{"", ""}, {"H.Example.:80", "h.example"}, {"i.example", "i.example"}} {
		for _, path := range worldPaths {
			for _, method := range worldMethods {
				want, known := referenceMatch(t, clean, method, host.name, path)
				got := table.Match(method, host.sent, path)
				if i := slices.Index(rules, got.Rule); i != want || got.PathKnown != known {
					t.Fatalf("%s %s%s: rule %d, path known %v; want %d, %v", method, host.name, path, i, got.PathKnown, want, known)
				}
			}
			if got, want := table.Allow(host.sent, path), referenceAllow(clean, host.name, path); got != want {
				t.Fatalf("Allow(%s%s) = %q, want %q", host.name, path, got, want)
			}
		}
	}
}

func checkConflictsAgainstReference(t rapid.TB, texts []string, reference []*referenceRule) {
	rules := make([]*Rule, len(texts))
	for i, s := range texts {
		p, err := ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		rules[i] = &Rule{Pattern: p}
	}
	var want, got [][2]int
	for i, a := range reference {
		for j := i + 1; j < len(reference); j++ {
			if a.conflicts(reference[j]) {
				want = append(want, [2]int{i, j})
			}
		}
	}
	_, err := NewTable(rules)
	if err != nil {
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var c *ConflictError
			if !errors.As(e, &c) {
				t.Fatal(e)
			}
			got = append(got, [2]int{c.A, c.B})
			method, target, _ := strings.Cut(c.Example, " ")
			slash := strings.Index(target, "/")
			for _, r := range []*referenceRule{reference[c.A], reference[c.B]} {
				if !r.allows(method) || r.host != target[:slash] || !r.path.MatchString(target[slash:]) {
					t.Fatalf("%q does not match the example %q", r.text, c.Example)
				}
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("conflicts %v, want %v", got, want)
	}
}
