package route

import (
	"fmt"
	"slices"
	"strings"
)

// Table finds the rule that covers a request. It is immutable and safe for
// concurrent use; a nil table matches nothing.
//
// Of the rules that match a request the most specific wins: one with a host
// before one without, else the one that matches a strict subset of the other's
// requests, methods and paths together. NewTable refuses rules for which this
// leaves a doubt.
type Table struct {
	anyHost node
	hosts   map[string]*node
}

// Match is the answer to one request.
type Match struct {
	// Rule covers the request; nil if none does.
	Rule *Rule
	// PathKnown says that the path exists, for this or another method. With a
	// nil Rule it tells 405 from 404.
	PathKnown bool
}

// NewTable compiles rules. The error joins a *ConflictError for each pair of
// rules that overlap with neither more specific, up to a limit.
func NewTable(rules []*Rule) (*Table, error) {
	for i, r := range rules {
		if r == nil || len(r.Pattern.segments) == 0 {
			return nil, fmt.Errorf("rule %d has no pattern", i)
		}
	}
	if err := checkConflicts(rules); err != nil {
		return nil, err
	}
	t := &Table{hosts: map[string]*node{}}
	for _, r := range rules {
		root := &t.anyHost
		if host := r.Pattern.host; host != "" {
			if t.hosts[host] == nil {
				t.hosts[host] = &node{}
			}
			root = t.hosts[host]
		}
		root.add(r)
	}
	return t, nil
}

// Match finds the rule for a request. host is the Host header as it came, path
// the decoded path that CheckPath accepted. It does not allocate.
//
// Time is bounded by the table, not by what a path makes possible: see
// node.match.
func (t *Table) Match(method, host, path string) Match {
	if t == nil || !strings.HasPrefix(path, "/") {
		return Match{}
	}
	var here Match
	if root := t.byHost(host); root != nil {
		if here = root.match(method, path); here.Rule != nil {
			return here
		}
	}
	m := t.anyHost.match(method, path)
	m.PathKnown = m.PathKnown || here.PathKnown
	return m
}

// Allow returns the value of the Allow header (RFC 9110, section 10.2.1) for a
// 405: what all rules that match the path allow, sorted. It is empty if none
// does, and if one of them allows every method, since no 405 can follow then.
func (t *Table) Allow(host, path string) string {
	if t == nil || !strings.HasPrefix(path, "/") {
		return ""
	}
	leaves := t.anyHost.leaves(path, nil)
	if root := t.byHost(host); root != nil {
		leaves = root.leaves(path, leaves)
	}
	var methods []string
	for _, l := range leaves {
		if l.others != nil {
			return ""
		}
		for _, m := range l.methods {
			methods = append(methods, m.name)
		}
	}
	slices.Sort(methods)
	return strings.Join(slices.Compact(methods), ", ")
}

func (t *Table) byHost(host string) *node {
	if len(t.hosts) == 0 {
		return nil
	}
	var buf [maxHost]byte
	return t.hosts[string(hostKey(&buf, host))] // the compiler makes no string for a look-up
}

// hostKey writes the name in a Host header to buf: lower case, without port and
// trailing dot. All spellings of a name must end up equal, or a client could
// pick one that escapes the rules of that host.
func hostKey(buf *[maxHost]byte, host string) []byte {
	end := strings.IndexByte(host, ':')
	if strings.HasPrefix(host, "[") {
		end = strings.IndexByte(host, ']') + 1
	}
	if end >= 0 {
		host = host[:end]
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > len(buf) {
		return nil
	}
	key := buf[:len(host)]
	for i := range key {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		key[i] = c
	}
	return key
}

// CheckHost reports whether a Host header holds nothing but what names, addresses and
// ports are made of. net/http's servers take more (RFC 3986, section 3.2.2), over HTTP/2
// anything: servers and clients cut that, each in its own place, at a comma, a slash or
// a space, or write it in Punycode, and what remains may be a host with rules of its own.
func CheckHost(host string) bool {
	for i := range len(host) {
		if c := host[i]; !unreserved(c) && c != ':' && c != '[' && c != ']' || c == '~' {
			return false
		}
	}
	return true
}

// node is a place in the tree of all patterns of one host, reached by one
// sequence of segments.
type node struct {
	literals map[string]*node
	longest  int // bytes in the longest key of literals
	single   *node
	end      *leaf // patterns that end here
	rest     *leaf // patterns whose {x...} begins here
}

// leaf holds the rules that share a path pattern.
type leaf struct {
	methods []methodRule
	others  *Rule // for all other methods
}

type methodRule struct {
	name string
	rule *Rule
}

func (n *node) add(r *Rule) {
	for _, s := range r.Pattern.segments {
		switch s.kind {
		case literal:
			n = n.child(s.text)
		case single:
			if n.single == nil {
				n.single = &node{}
			}
			n = n.single
		case rest:
			if n.rest == nil {
				n.rest = &leaf{}
			}
			n.rest.add(r)
			return
		}
	}
	if n.end == nil {
		n.end = &leaf{}
	}
	n.end.add(r)
}

func (n *node) child(text string) *node {
	if n.literals == nil {
		n.literals = map[string]*node{}
	}
	if n.literals[text] == nil {
		n.literals[text] = &node{}
		n.longest = max(n.longest, len(text))
	}
	return n.literals[text]
}

// add puts r in its place: rules of one path that share a method are nested, so
// the one with fewer methods is the more specific.
func (l *leaf) add(r *Rule) {
	if r.Pattern.methods == nil {
		l.others = r
		return
	}
	for _, m := range r.Pattern.methods {
		i := slices.IndexFunc(l.methods, func(known methodRule) bool { return known.name == m })
		if i < 0 {
			l.methods = append(l.methods, methodRule{m, r})
		} else if len(r.Pattern.methods) < len(l.methods[i].rule.Pattern.methods) {
			l.methods[i].rule = r
		}
	}
}

func (l *leaf) match(method string) Match {
	if l == nil {
		return Match{}
	}
	for i := range l.methods {
		if l.methods[i].name == method {
			return Match{Rule: l.methods[i].rule, PathKnown: true}
		}
	}
	return Match{Rule: l.others, PathKnown: true}
}

// match finds the most specific rule for what is left of a path: "" or a slash
// and more.
//
// The first rule found is the right one. Without conflicts the rules that match
// one request are ordered by inclusion, and if the paths of A are a strict
// subset of B's, then where the two part A has the literal and B the parameter,
// or A goes on or ends where B has its rest: A is met first.
//
// A dead end goes back to the next wider segment, because the methods of a
// narrower path may differ. That is not exponential in the length of the path:
// a node is reached in one way only and belongs to one depth, so a match visits
// each node at most once, and none deeper than the longest pattern.
func (n *node) match(method, path string) Match {
	known := false
	if path == "" {
		m := n.end.match(method)
		if m.Rule != nil {
			return m
		}
		known = m.PathKnown
	} else {
		segment, after := cutSegment(path)
		if child := n.literal(segment); child != nil {
			m := child.match(method, after)
			if m.Rule != nil {
				return m
			}
			known = m.PathKnown
		}
		if n.single != nil && segment != "" {
			m := n.single.match(method, after)
			if m.Rule != nil {
				return m
			}
			known = known || m.PathKnown
		}
	}
	m := n.rest.match(method)
	m.PathKnown = m.PathKnown || known
	return m
}

// leaves appends every leaf that matches what is left of a path.
func (n *node) leaves(path string, found []*leaf) []*leaf {
	if path == "" {
		if n.end != nil {
			found = append(found, n.end)
		}
	} else {
		segment, after := cutSegment(path)
		if child := n.literal(segment); child != nil {
			found = child.leaves(after, found)
		}
		if n.single != nil && segment != "" {
			found = n.single.leaves(after, found)
		}
	}
	if n.rest != nil {
		found = append(found, n.rest)
	}
	return found
}

// literal returns the child for a segment. Segments longer than any literal are
// not hashed: they come from clients and may be as long as the header limit.
func (n *node) literal(segment string) *node {
	if len(segment) > n.longest {
		return nil
	}
	return n.literals[segment]
}

// cutSegment splits "/a/b" into "a" and "/b".
func cutSegment(path string) (segment, after string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}
