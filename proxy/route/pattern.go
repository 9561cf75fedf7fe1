package route

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Pattern is a set of requests, written
//
//	[METHOD[,METHOD] ][host]/path
//
// Methods are those of Methods; GET brings HEAD along; none means all. The host is one
// exact name without port; none means all. In the path {x} stands for one
// non-empty segment and {x...}, at the end, for whatever is left: also nothing,
// with or without the slash before it. A trailing slash is significant.
//
// Literal segments are written as in a URL: percent-escapes are decoded and
// every other character stands for itself, so that "/café" and "/caf%C3%A9" are
// the same pattern, and a literal brace is %7B.
type Pattern struct {
	text     string
	methods  []string // sorted, without duplicates; nil: all
	host     string   // as hostKey gives it; "": all
	segments []segment
}

// segment is one step of a path. A path is the list of what stands between its
// slashes: "/a/" is "a" and "", and only the last may be empty. The rest is the
// only kind that stands for any number of them.
type segment struct {
	kind kind
	text string // the decoded literal, or the parameter's name
}

type kind uint8

const (
	literal kind = iota
	single
	rest
)

// ParsePattern reads a pattern. The error says what is wrong and what is allowed.
func ParsePattern(s string) (Pattern, error) {
	p, err := parsePattern(s)
	if err != nil {
		return Pattern{}, fmt.Errorf("pattern %q: %w", s, err)
	}
	return p, nil
}

func parsePattern(s string) (Pattern, error) {
	p := Pattern{text: s}
	target := s
	if methods, after, found := strings.Cut(s, " "); found {
		var err error
		if p.methods, err = parseMethods(methods); err != nil {
			return Pattern{}, err
		}
		target = after
	}
	slash := strings.IndexByte(target, '/')
	if slash < 0 {
		return Pattern{}, errors.New("there is no path: allowed is [METHOD[,METHOD] ][host]/path")
	}
	var err error
	if slash > 0 {
		if p.host, err = parseHost(target[:slash]); err != nil {
			return Pattern{}, err
		}
	}
	p.segments, err = parseSegments(target[slash:])
	return p, err
}

// BeginsWith reports whether every path that the pattern matches begins with these
// whole segments, written as in "/v1/orders".
func (p Pattern) BeginsWith(path string) bool {
	for i, text := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		if i >= len(p.segments) || p.segments[i].kind != literal || p.segments[i].text != text {
			return false
		}
	}
	return true
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// Names reports whether the pattern names a method itself; one without methods,
// which matches all, names none.
func (p Pattern) Names(method string) bool { return slices.Contains(p.methods, method) }

// Methods lists the methods that a pattern can name: those of HTTP that are
// forwarded, the common ones of WebDAV (RFC 4918, RFC 3253, RFC 5323), QUERY
// and PURGE. Methods are any token and case-sensitive (RFC 9110, section 9.1),
// so that a misspelt one would be a rule that never matches.
func Methods() []string { return slices.Clone(knownMethods) }

var knownMethods = []string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH",
	"PURGE", "QUERY",
}

// MethodError is a method that no pattern can name.
type MethodError struct{ Method string }

func (e *MethodError) Error() string {
	return fmt.Sprintf("method %q: allowed are %s, separated by a comma alone, and one space before the host or path", e.Method, strings.Join(knownMethods, ", "))
}

func parseMethods(s string) ([]string, error) {
	methods := strings.Split(s, ",")
	for i, m := range methods {
		if !slices.Contains(knownMethods, m) {
			return nil, &MethodError{m}
		}
		if slices.Contains(methods[:i], m) {
			return nil, fmt.Errorf("method %s is named twice", m)
		}
	}
	if slices.Contains(methods, "GET") && !slices.Contains(methods, "HEAD") {
		methods = append(methods, "HEAD")
	}
	slices.Sort(methods)
	return methods, nil
}

// parseHost returns the host in the form that hostKey gives a request's.
func parseHost(s string) (string, error) {
	if s[0] == '[' {
		// One spelling only (RFC 5952), because hosts are compared as text.
		addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" || s != "["+addr.String()+"]" {
			return "", fmt.Errorf("host %q: allowed is an IPv6 address in its shortest form, lower case, without port or zone, such as [2001:db8::1]", s)
		}
		return s, nil
	}
	host := strings.TrimSuffix(s, ".")
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, hostChars) != "" {
			return "", fmt.Errorf("host %q: allowed is an exact name of letters, digits, '-', '_' and '.', without port or wildcard (international names as xn--…)", s)
		}
	}
	if len(host) > maxHost {
		return "", fmt.Errorf("host %q: allowed are %d characters", s, maxHost)
	}
	return strings.ToLower(host), nil
}

// hostChars is what labels are made of. strings.Trim leaves "" exactly if
// nothing else is inside: any other character stops it.
const hostChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// maxHost is the longest name in DNS (RFC 1035, section 2.3.4, as text).
const maxHost = 253

func parseSegments(raw string) ([]segment, error) {
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return nil, errors.New("the path holds an invalid escape: allowed is % with two hexadecimal digits; a literal % is %25")
	}
	if strings.ContainsAny(raw, " \t") {
		return nil, errors.New("the path holds a space: write it as %20, and one space after the methods")
	}
	// What no request may hold, no pattern can match.
	if problem := CheckPath(&url.URL{Path: decoded, RawPath: raw}); problem != "" {
		return nil, errors.New(problem + ", and such requests are always refused")
	}
	parts := strings.Split(raw[1:], "/")
	segments := make([]segment, len(parts))
	for i, part := range parts {
		if segments[i], err = parseSegment(part); err != nil {
			return nil, err
		}
		if segments[i].kind == rest && i < len(parts)-1 {
			return nil, fmt.Errorf("segment %s: allowed only at the end of a path", part)
		}
		if segments[i].kind != literal && slices.ContainsFunc(segments[:i], segments[i].sameName) {
			return nil, fmt.Errorf("parameter %s is named twice", segments[i].text)
		}
	}
	return segments, nil
}

func (s segment) sameName(other segment) bool { return other.kind != literal && other.text == s.text }

// parseSegment expects that CheckPath accepted the path that s is part of.
func parseSegment(s string) (segment, error) {
	if s == "*" || s == "**" {
		return segment{}, fmt.Errorf("segment %s: wildcards are written {name} for one segment and {name...} for the rest; a literal * is %%2A", s)
	}
	if !strings.ContainsAny(s, "{}") {
		text, err := url.PathUnescape(s)
		return segment{kind: literal, text: text}, err
	}
	name, opened := strings.CutPrefix(s, "{")
	name, closed := strings.CutSuffix(name, "}")
	name, several := strings.CutSuffix(name, "...")
	if !opened || !closed || !identifier(name) {
		return segment{}, fmt.Errorf("segment %q: a parameter is a whole segment, {name} or {name...}, its name of letters, digits and '_', not starting with a digit; a literal brace is %%7B or %%7D", s)
	}
	if several {
		return segment{kind: rest, text: name}, nil
	}
	return segment{kind: single, text: name}, nil
}

func identifier(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		digit := '0' <= c && c <= '9'
		if !letter && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}

// Param is the place of a path parameter.
type Param struct {
	index int // segments before it
	rest  bool
}

// Param returns the place of the parameter called name, and whether the pattern
// has one.
func (p Pattern) Param(name string) (Param, bool) {
	for i, s := range p.segments {
		if s.kind != literal && s.text == name {
			return Param{index: i, rest: s.kind == rest}, true
		}
	}
	return Param{}, false
}

// Params lists the names of the path parameters.
func (p Pattern) Params() (names []string) {
	for _, s := range p.segments {
		if s.kind != literal {
			names = append(names, s.text)
		}
	}
	return names
}

// Value reads the parameter from a decoded path that its pattern matches. It is
// empty only for a {name...} that stands for nothing, or whose rest is a slash.
func (p Param) Value(path string) string {
	for range p.index + 1 {
		slash := strings.IndexByte(path, '/')
		if slash < 0 {
			return ""
		}
		path = path[slash+1:]
	}
	if p.rest {
		return path
	}
	value, _, _ := strings.Cut(path, "/")
	return value
}
