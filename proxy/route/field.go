package route

import "slices"

// Dropped reports whether a client's header never goes upstream: the names that
// upstreams trust us to set, and those that make some servers act on another
// address or path than the one that was checked. Servers that read '_' as '-'
// must not be deceived either.
func Dropped(name string) bool {
	if len(name) < 2 {
		return false
	}
	switch name[0] {
	case 'X', 'x':
		if name[1] != '-' && name[1] != '_' {
			return false
		}
		for _, prefix := range [...]string{"X-Keygate-", "X-Forwarded-"} {
			if len(name) >= len(prefix) && SameField(name[:len(prefix)], prefix) {
				return true
			}
		}
		return slices.ContainsFunc(believed, func(whole string) bool { return SameField(name, whole) })
	case 'P', 'p':
		return SameField(name, "Proxy") // CGI makes it HTTP_PROXY (CVE-2016-5385)
	case 'T', 't':
		return SameField(name, "True-Client-Ip")
	}
	return false
}

// believed are names by which some servers go, beside those with a prefix of ours.
var believed = []string{
	"X-Request-Id", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Forwarded", "X-Host", "X-Original-Host",
	"X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
}

// SameField reports whether a CGI-like server would take two field names for
// one: letter case does not count, and '_' is '-'.
func SameField(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if foldField(a[i]) != foldField(b[i]) {
			return false
		}
	}
	return true
}

func foldField(c byte) byte {
	switch {
	case c == '_':
		return '-'
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}
