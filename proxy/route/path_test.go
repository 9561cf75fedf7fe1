package route

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	for target, want := range map[string]string{
		"/":                     "",
		"/a":                    "",
		"/a/":                   "",
		"/a/b.c/...":            "",
		"/.well-known/.a..":     "",
		"/a%20b":                "",
		"/%41":                  "",
		"/a%3Fb%23c":            "",
		"/%25":                  "",
		"/a%252Fb":              "", // decodes once, to the text a%2Fb
		"/caf%C3%A9":            "",
		"/caf%c3%a9":            "",
		"/café":                 "",
		"/a:b@c!$&'()*+,=":      "",
		"/a%2Cb":                "",
		`/"<>^{|}[]`:            "",
		"/a?b=//../%2F;":        "",
		"http://example.com/a":  "",
		"*":                     "not a path",
		"http://example.com":    "not a path",
		"http:a":                "not a path",
		"//":                    "empty segment",
		"//a":                   "empty segment",
		"/a//":                  "empty segment",
		"/a//b":                 "empty segment",
		"http://example.com//a": "empty segment",
		"/.":                    "dot segment",
		"/..":                   "dot segment",
		"/a/./b":                "dot segment",
		"/a/../b":               "dot segment",
		"/a/..":                 "dot segment",
		"/../":                  "dot segment",
		"/%2e%2E/a":             "encoded dot",
		"/%2e":                  "encoded dot",
		"/a%2Eb":                "encoded dot",
		"/.%2e":                 "encoded dot",
		"/a%2Fb":                "encoded slash",
		"/a%2fb":                "encoded slash",
		"/%2F":                  "encoded slash",
		"/a%2F..%2Fb":           "encoded slash",
		`/a%2F"`:                "encoded slash", // the quote makes EscapedPath ignore RawPath
		`/a\b`:                  "backslash",
		"/a%5Cb":                "backslash",
		"/a%5cb":                "backslash",
		"/a;b":                  "semicolon",
		"/a/..;/b":              "semicolon",
		"/a%3Bb":                "semicolon",
		"/a%3bb":                "semicolon",
		"/a%00":                 "control character",
		"/a%0d%0A":              "control character",
		"/a%7F":                 "control character",
		"/a#b":                  "not encoded",
		"/a%c0%afb":             "not UTF-8",
		"/%ff":                  "not UTF-8",
		"/\xff":                 "not UTF-8",
		"/%ED%A0%80":            "not UTF-8",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Errorf("%q: %v", target, err)
			continue
		}
		got := CheckPath(u)
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("CheckPath(%q) = %q, want %q", target, got, want)
		}
	}
}

// What net/url never makes, but code that edits a URL might.
func TestCheckPathOfEditedURL(t *testing.T) {
	for _, u := range []*url.URL{
		{},
		{Path: "a"},
		{Path: "/a", Opaque: "//b/c"},
		{Path: "/a", RawPath: "/b"},
		{Path: "/a", RawPath: "/a%"},
		{Path: "/a", RawPath: "/a%4"},
		{Path: "/a", RawPath: "/a%g1"},
		{Path: "/a", RawPath: "/ab"},
		{Path: "/ab", RawPath: "/a"},
		{Path: "/a?b", RawPath: "/a?b"},
	} {
		if CheckPath(u) == "" {
			t.Errorf("CheckPath(%#v) accepts", u)
		}
	}
}

func TestCanonical(t *testing.T) {
	for target, want := range map[string]string{
		"/":                    "/",
		"/a/b/":                "/a/b/",
		"/%41%7E%2d%5f":        "/A~-_",
		"/caf%c3%a9":           "/caf%C3%A9",
		"/café":                "/caf%C3%A9",
		"/a%20b":               "/a%20b",
		"/a%2cb,c":             "/a%2Cb,c",
		`/a%2Cb"`:              "/a%2Cb%22",
		"/a:b@c!$&'()*+,=":     "/a:b@c!$&'()*+,=",
		"/%3a%40%21":           "/%3A%40%21",
		"/[%5b{|}^`<>]":        "/%5B%5B%7B%7C%7D%5E%60%3C%3E%5D",
		"/a%3fb%23":            "/a%3Fb%23",
		"/a%252fb":             "/a%252fb",
		"/100%25":              "/100%25",
		"http://x.example/%41": "/A",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if problem := CheckPath(u); problem != "" {
			t.Errorf("%q: %s", target, problem)
		}
		if got := Canonical(u); got != want {
			t.Errorf("Canonical(%q) = %q, want %q", target, got, want)
		}
	}
}

func TestCheckPathAllocations(t *testing.T) {
	for _, target := range []string{"/v1/spaces/acme/collections", "/caf%C3%A9/%2C", "/a%2Fb", "/café"} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _ = CheckPath(u) }); n != 0 {
			t.Errorf("CheckPath(%q) allocates %v times", target, n)
		}
	}
	u := &url.URL{Path: "/v1/spaces/acme/collections"}
	if n := testing.AllocsPerRun(100, func() { _ = Canonical(u) }); n != 0 {
		t.Errorf("Canonical of a canonical path allocates %v times", n)
	}
}

// FuzzPath holds the promise that no request reaches an upstream under a path
// which another rule covers: what is forwarded decodes to what was matched, has
// one reading only, and does not change when it is read again.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/", "/a/b/", "/a%2Fb", "/%2e%2e/a", "/a//b", "/a;b", "/caf%c3%a9", "/café", "/%41", "/a%252Fb", `/a%2Cb"`,
		"/a#b", "/[x]", "/%c0%af", "//host/a", "http://host/a/../b", "*", "/admin%20", "/a%5c..%5cb", "/%3f?%2f", "/a%00", "/A/%61/{x}",
	} {
		f.Add(s)
	}
	rules := []*Rule{
		{Pattern: mustParse(f, "/{x...}")},
		{Pattern: mustParse(f, "/a/{x}")},
		{Pattern: mustParse(f, "/a/b")},
		{Pattern: mustParse(f, "/a/b/")},
		{Pattern: mustParse(f, "/caf%C3%A9/{x...}")},
		{Pattern: mustParse(f, "/%7Bx%7D")},
	}
	table, err := NewTable(rules)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || CheckPath(u) != "" {
			return
		}
		sent := Canonical(u)
		cleaned := path.Clean(u.Path)
		if u.Path != cleaned && u.Path != cleaned+"/" {
			t.Fatalf("%q: accepted, although %q cleans to %q", target, u.Path, cleaned)
		}
		for i, c := range []byte(sent) {
			escape := c == '%' && i+2 < len(sent) && strings.ToUpper(sent[i+1:i+3]) == sent[i+1:i+3]
			if !escape && !mayStand(c) {
				t.Fatalf("%q: %q may not stand in %q", target, c, sent)
			}
		}
		for _, parse := range []func(string) (*url.URL, error){url.Parse, url.ParseRequestURI} {
			again, err := parse(sent)
			if err != nil {
				t.Fatalf("%q: %q does not parse: %v", target, sent, err)
			}
			if again.Path != u.Path || again.RawQuery != "" || again.Host != "" {
				t.Fatalf("%q: %q decodes to %q, not %q", target, sent, again.Path, u.Path)
			}
			if problem := CheckPath(again); problem != "" {
				t.Fatalf("%q: %q is refused: %s", target, sent, problem)
			}
			if twice := Canonical(again); twice != sent {
				t.Fatalf("%q: %q is no fixed point: %q", target, sent, twice)
			}
			if table.Match("GET", "", again.Path) != table.Match("GET", "", u.Path) {
				t.Fatalf("%q: %q matches another rule", target, sent)
			}
		}
		// What net/http writes for a URL with this RawPath.
		if out := (&url.URL{Path: u.Path, RawPath: sent}).EscapedPath(); out != sent {
			t.Fatalf("%q: net/http would send %q, not %q", target, out, sent)
		}
		// The same segments by the most naive reading of what is sent.
		segments := strings.Split(sent, "/")
		for i, s := range segments {
			if segments[i], err = url.PathUnescape(s); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(segments, strings.Split(u.Path, "/")) {
			t.Fatalf("%q: %q has segments %q", target, sent, segments)
		}
	})
}
