package route

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// CheckPath returns "" if the path can be read in one way only, by us and by
// every upstream, else what is wrong with it, in fixed words fit for the client.
//
// net/url keeps the decoded path in Path, and what the client sent in RawPath
// only where encoding Path by default would give something else. That default
// encodes neither '/' nor '.', and it encodes '#' and '?'; so an encoded slash
// or dot, a plain '#' and a broken escape show in RawPath, and everything else
// shows in Path, however it was sent.
func CheckPath(u *url.URL) (problem string) {
	if u.Opaque != "" || !strings.HasPrefix(u.Path, "/") {
		return "the request target is not a path that starts with a slash"
	}
	if u.RawPath != "" {
		if problem := checkRaw(u.RawPath, u.Path); problem != "" {
			return problem
		}
	}
	return checkDecoded(u.Path)
}

// checkRaw checks how path was encoded, and that it was encoded as raw at all.
func checkRaw(raw, path string) string {
	decoded := 0 // bytes of path read so far
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch c {
		case '#', '?':
			return "the path holds a # or ? that is not encoded (%23, %3F)"
		case '%':
			var ok bool
			if c, ok = unescape(raw[i:]); !ok {
				return "the path holds an invalid escape: % must be followed by two hexadecimal digits"
			}
			switch c {
			case '/':
				return "the path holds an encoded slash (%2F)"
			case '.':
				return "the path holds an encoded dot (%2E)"
			}
			i += 2
		}
		if decoded == len(path) || path[decoded] != c {
			return "the path and its encoded form differ"
		}
		decoded++
	}
	if decoded != len(path) {
		return "the path and its encoded form differ"
	}
	return ""
}

func checkDecoded(path string) string {
	ascii := true
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			after := path[i+1:]
			if strings.HasPrefix(after, "/") {
				return "the path holds an empty segment (//)"
			}
			if dotSegment(after) {
				return "the path holds a dot segment (. or ..)"
			}
		case c == '\\':
			return "the path holds a backslash (%5C)"
		case c == ';':
			return "the path holds a semicolon (%3B)"
		case c < ' ' || c == 0x7f:
			return "the path holds a control character"
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	// Some readers take overlong forms, such as C0 AF, for the character they
	// pad, and others replace them: that is two ways to read a path.
	if !ascii && !utf8.ValidString(path) {
		return "the path holds octets that are not UTF-8"
	}
	return ""
}

// dotSegment reports whether the first segment of s is "." or "..".
func dotSegment(s string) bool {
	after, dot := strings.CutPrefix(s, ".")
	if !dot {
		return false
	}
	after = strings.TrimPrefix(after, ".")
	return after == "" || after[0] == '/'
}

// Canonical returns the escaped path to forward for a URL that CheckPath
// accepted, in the normal form of RFC 3986, section 6.2.2: unreserved octets
// decoded, hexadecimal digits in upper case, and encoded what may not stand in a
// path. Reserved characters stay as the client sent them, since "%2C" and "," may
// differ to the upstream. It decodes to u.Path, so the rule that was matched is
// the rule for what is forwarded.
func Canonical(u *url.URL) string {
	// Not u.EscapedPath where RawPath is set: it drops RawPath, and with it how
	// the client sent reserved characters, over a single octet it dislikes.
	raw := u.RawPath
	if raw == "" {
		raw = u.EscapedPath()
	}
	clean := 0
	for clean < len(raw) && mayStand(raw[clean]) {
		clean++
	}
	if clean == len(raw) {
		return raw
	}
	var b strings.Builder
	b.Grow(len(raw) + 16)
	b.WriteString(raw[:clean])
	for i := clean; i < len(raw); i++ {
		octet, escaped := raw[i], false
		if octet == '%' {
			if octet, escaped = unescape(raw[i:]); escaped {
				i += 2
			} else {
				octet = '%' // only in a path that CheckPath refuses
			}
		}
		if unreserved(octet) || !escaped && mayStand(octet) {
			b.WriteByte(octet)
		} else {
			b.Write([]byte{'%', upperHex[octet>>4], upperHex[octet&15]})
		}
	}
	return b.String()
}

// unescape reads the escape that s begins with.
func unescape(s string) (octet byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, low := unhex(s[1]), unhex(s[2])
	return high<<4 | low, high < 16 && low < 16
}

// unhex returns 16 or more for what is no hexadecimal digit.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// unreserved is RFC 3986, section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// mayStand reports whether c may stand plainly in a path: pchar of RFC 3986,
// section 3.3, and the slash.
func mayStand(c byte) bool {
	return unreserved(c) || strings.IndexByte("/:@!$&'()*+,;=", c) >= 0
}
