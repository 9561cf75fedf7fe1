package route

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// ConflictError says that two rules match a common request and neither is more
// specific, so that nobody could say which of them covers it.
type ConflictError struct {
	A, B int // positions in the rules given to NewTable, A < B
	// Example is a request that both match, "METHOD [host]/path", the path escaped.
	Example string

	a, b Pattern
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("rules %d (%s) and %d (%s) both match %s and neither is more specific", e.A, e.a, e.B, e.b, e.Example)
}

// maxConflicts bounds what NewTable reports: one careless rule conflicts with
// hundreds, and nobody reads them all.
const maxConflicts = 50

// checkConflicts compares every pair, as a chain of most specific rules exists
// for each request exactly if no pair conflicts. The half million pairs of a
// thousand rules take some milliseconds.
func checkConflicts(rules []*Rule) error {
	var found []error
	more := 0
	for i, a := range rules {
		for j := i + 1; j < len(rules); j++ {
			b := rules[j]
			if !conflict(&a.Pattern, &b.Pattern) {
				continue
			}
			if len(found) == maxConflicts {
				more++
				continue
			}
			found = append(found, &ConflictError{A: i, B: j, Example: example(a.Pattern, b.Pattern), a: a.Pattern, b: b.Pattern})
		}
	}
	if more > 0 {
		found = append(found, fmt.Errorf("and %d more pairs of rules in conflict", more))
	}
	return errors.Join(found...)
}

// conflict reports whether a and b overlap and neither is a strict subset of
// the other. A pattern is the product of its methods and its paths, and neither
// factor is ever empty, so each factor can be compared by itself. Between a
// pattern with a host and one without, the host decides.
func conflict(a, b *Pattern) bool {
	if a.host != b.host || !pathsOverlap(a.segments, b.segments) || !methodsOverlap(a.methods, b.methods) {
		return false
	}
	aInB := methodsWithin(a.methods, b.methods) && pathsWithin(a.segments, b.segments)
	bInA := methodsWithin(b.methods, a.methods) && pathsWithin(b.segments, a.segments)
	return aInB == bInA // both: the same requests; none: neither is more specific
}

func methodsOverlap(a, b []string) bool {
	if a == nil || b == nil {
		return true
	}
	return slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}

// methodsWithin reports a ⊆ b. No list of methods is all of them: clients may
// invent their own.
func methodsWithin(a, b []string) bool {
	if b == nil {
		return true
	}
	if a == nil {
		return false
	}
	return !slices.ContainsFunc(a, func(m string) bool { return !slices.Contains(b, m) })
}

// pathsOverlap reports whether some path is in both.
func pathsOverlap(a, b []segment) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	for i := range a {
		if a[i].kind == rest || b[i].kind == rest {
			return true
		}
		if !a[i].meets(b[i]) {
			return false
		}
	}
	return len(a) == len(b) || b[len(a)].kind == rest
}

// meets reports whether some text is in both; neither is the rest.
func (s segment) meets(other segment) bool {
	switch {
	case s.kind == literal && other.kind == literal:
		return s.text == other.text
	case s.kind == literal:
		return s.text != ""
	case other.kind == literal:
		return other.text != ""
	}
	return true
}

// pathsWithin reports a ⊆ b.
func pathsWithin(a, b []segment) bool {
	for i := range b {
		if b[i].kind == rest {
			return true
		}
		if i == len(a) || a[i].kind > b[i].kind || !a[i].meets(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// example returns a request that both match; they overlap.
func example(a, b Pattern) string {
	both := slices.DeleteFunc(slices.Concat(a.methods, b.methods), func(m string) bool {
		return a.methods != nil && !slices.Contains(a.methods, m) || b.methods != nil && !slices.Contains(b.methods, m)
	})
	method := "GET"
	if len(both) > 0 && !slices.Contains(both, method) {
		method = slices.Min(both)
	}
	var path strings.Builder
	for i := range max(len(a.segments), len(b.segments)) {
		s := narrower(a.segments, b.segments, i)
		if s.kind == rest {
			break
		}
		path.WriteString("/" + s.text) // a parameter's name is as good a value as any
	}
	if path.Len() == 0 {
		path.WriteByte('/')
	}
	return method + " " + a.host + (&url.URL{Path: path.String()}).EscapedPath()
}

// narrower returns the segment at i that says more; where one path has ended
// the other's rest, or what follows the one's rest, stands alone.
func narrower(a, b []segment, i int) segment {
	if i >= len(a) || i < len(b) && b[i].kind < a[i].kind {
		return b[i]
	}
	return a[i]
}
