package keys

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// deceptive characters make text look like another: line separators, marks that
// reorder it, and some that cannot be seen, tags among them, which can hold a
// whole hidden text. Joiners are not: scripts and emoji need them.
var deceptive = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x00ad, Hi: 0x00ad, Stride: 1},
	{Lo: 0x200b, Hi: 0x200b, Stride: 1},
	{Lo: 0x200e, Hi: 0x200f, Stride: 1},
	{Lo: 0x2028, Hi: 0x202e, Stride: 1},
	{Lo: 0x2060, Hi: 0x2069, Stride: 1},
	{Lo: 0xfeff, Hi: 0xfeff, Stride: 1},
}, R32: []unicode.Range32{
	{Lo: 0xe0000, Hi: 0xe007f, Stride: 1},
}, LatinOffset: 1}

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
	if strings.TrimSpace(s) != s {
		c.add(field, s, "must not start or end with a space")
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
		return (unicode.IsControl(r) || unicode.In(r, deceptive, unicode.Noncharacter_Code_Point)) && !strings.ContainsRune(controls, r)
	}
	if i := strings.IndexFunc(s, bad); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		c.add(field, "", "must not contain control or invisible characters; U+%04X stands at byte %d", r, i)
	}
}
