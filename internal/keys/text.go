package keys

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

func (c *check) slug(field, s string) {
	ok := s != "" && len(s) <= maxSlug && s[0] != '-' && s[len(s)-1] != '-'
	for i := 0; ok && i < len(s); i++ {
		ok = 'a' <= s[i] && s[i] <= 'z' || '0' <= s[i] && s[i] <= '9' || s[i] == '-'
	}
	if !ok {
		c.add(field, s, "must be 1 to %d lower-case letters, digits and inner hyphens", maxSlug)
	}
}

func (c *check) name(field, s string) {
	if strings.TrimSpace(s) == "" {
		c.add(field, s, "must not be empty")
		return
	}
	c.text(field, s, maxName, "")
}

// text bounds free text in characters and keeps out what could forge a log line
// or a terminal: control characters but those listed, and invalid UTF-8.
func (c *check) text(field, s string, most int, controls string) {
	if !utf8.ValidString(s) {
		c.add(field, "", "must be valid UTF-8")
		return
	}
	if n := utf8.RuneCountInString(s); n > most {
		c.add(field, s, "has %d characters; at most %d are allowed", n, most)
	}
	bad := func(r rune) bool {
		return (unicode.IsControl(r) || r == '\u2028' || r == '\u2029') && !strings.ContainsRune(controls, r)
	}
	if i := strings.IndexFunc(s, bad); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		c.add(field, "", "must not contain control characters; U+%04X stands at byte %d", r, i)
	}
}
