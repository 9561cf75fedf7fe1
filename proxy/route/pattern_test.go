package route

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	for _, tt := range []struct {
		in       string
		methods  string
		host     string
		segments []segment
	}{
		{"/", "", "", []segment{{literal, ""}}},
		{"/{x...}", "", "", []segment{{rest, "x"}}},
		{"GET /a", "GET,HEAD", "", []segment{{literal, "a"}}},
		{"GET,HEAD /a", "GET,HEAD", "", []segment{{literal, "a"}}},
		{"POST,GET /a/", "GET,HEAD,POST", "", []segment{{literal, "a"}, {literal, ""}}},
		{"HEAD /a", "HEAD", "", []segment{{literal, "a"}}},
		{"QUERY,PROPFIND /a", "PROPFIND,QUERY", "", []segment{{literal, "a"}}},
		{"GET Api.Example.COM./v1/{id}/{_rest2...}", "GET,HEAD", "api.example.com", []segment{{literal, "v1"}, {single, "id"}, {rest, "_rest2"}}},
		{"[2001:db8::1]/", "", "[2001:db8::1]", []segment{{literal, ""}}},
		{"127.0.0.1/{a}", "", "127.0.0.1", []segment{{single, "a"}}},
		{"/caf%c3%A9/%41%20b/%7Bx%7D", "", "", []segment{{literal, "café"}, {literal, "A b"}, {literal, "{x}"}}},
		{"/café/100%25/%2A/a:b", "", "", []segment{{literal, "café"}, {literal, "100%"}, {literal, "*"}, {literal, "a:b"}}},
		{"/.well-known/...", "", "", []segment{{literal, ".well-known"}, {literal, "..."}}},
	} {
		p, err := ParsePattern(tt.in)
		if err != nil {
			t.Errorf("ParsePattern(%q): %v", tt.in, err)
			continue
		}
		if got := strings.Join(p.methods, ","); got != tt.methods || p.host != tt.host || !slices.Equal(p.segments, tt.segments) {
			t.Errorf("ParsePattern(%q) = %q %q %v", tt.in, got, p.host, p.segments)
		}
		if p.String() != tt.in {
			t.Errorf("ParsePattern(%q).String() = %q", tt.in, p)
		}
	}
}

func TestParsePatternErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "there is no path",
		"GET":                                  "there is no path",
		"GET ":                                 "there is no path",
		"GET example.com":                      "there is no path",
		"get /a":                               `method "get": allowed are GET, HEAD, `,
		"GTE /a":                               `method "GTE": allowed are GET, HEAD, `,
		"GET,CONNECT /a":                       `method "CONNECT": allowed are`,
		"GET, POST /a":                         `method "": allowed are`,
		"GET,GET /a":                           "method GET is named twice",
		" /a":                                  `method "": allowed`,
		"* /a":                                 `method "*": allowed`,
		"GÉT /a":                               `method "GÉT": allowed`,
		"GET  /a":                              `host " ": allowed is`,
		"/a b":                                 `method "/a"`,
		"GET /a b":                             "write it as %20",
		"GET\t/a":                              `host "GET\t"`,
		"example.com:80/a":                     "without port or wildcard",
		"*.example.com/a":                      "without port or wildcard",
		"{h}.example.com/a":                    "without port or wildcard",
		"a..b/":                                "allowed is an exact name",
		"a../":                                 "allowed is an exact name",
		"./":                                   "allowed is an exact name",
		"[::1]:80/":                            "allowed is an IPv6 address",
		"[::0]/":                               "in its shortest form",
		"[fe80::1%25eth0]/":                    "without port or zone",
		"[fe80::1%eth0]/":                      "without port or zone",
		"[127.0.0.1]/":                         "allowed is an IPv6 address",
		"bücher.example/":                      "xn--",
		"//":                                   "empty segment",
		"/a//b":                                "empty segment",
		"/a//":                                 "empty segment",
		"/a/./b":                               "dot segment",
		"/a/..":                                "dot segment",
		"/a/%2e%2e":                            "encoded dot",
		"/a%2Fb":                               "encoded slash",
		`/a\b`:                                 "backslash",
		"/a%5cb":                               "backslash",
		"/a;b":                                 "semicolon",
		"/a%3bb":                               "semicolon",
		"/a\x00":                               "control character",
		"/a%00":                                "control character",
		"/a%7f":                                "control character",
		"/a?b":                                 "not encoded",
		"/a#b":                                 "not encoded",
		"/a%":                                  "invalid escape",
		"/a%zz":                                "invalid escape",
		"/%ff":                                 "not UTF-8",
		"/{x}/{x}":                             "parameter x is named twice",
		"/{x}/{x...}":                          "parameter x is named twice",
		"/{x...}/b":                            "only at the end",
		"/{x...}/":                             "only at the end",
		"/a{x}":                                "a parameter is a whole segment",
		"/{x}a":                                "a parameter is a whole segment",
		"/{x":                                  "a parameter is a whole segment",
		"/x}":                                  "a parameter is a whole segment",
		"/{}":                                  "a parameter is a whole segment",
		"/{...}":                               "a parameter is a whole segment",
		"/{$}":                                 "a parameter is a whole segment",
		"/{1a}":                                "not starting with a digit",
		"/{a-b}":                               "a parameter is a whole segment",
		"/{{a}}":                               "a parameter is a whole segment",
		"/v1/*":                                "{name...} for the rest",
		"/v1/**":                               "{name...} for the rest",
		strings.Repeat("a", 64) + "/":          "allowed is an exact name",
		strings.Repeat("abcdefghi.", 26) + "/": "allowed are 253 characters",
	} {
		p, err := ParsePattern(in)
		if err == nil {
			t.Errorf("ParsePattern(%q) = %v, want an error with %q", in, p.segments, want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePattern(%q): %v\nwant an error with %q", in, err, want)
		}
	}
}

func TestParam(t *testing.T) {
	p := mustParse(t, "GET /v1/spaces/{space}/files/{file...}")
	space, ok := p.Param("space")
	if !ok {
		t.Fatal("no parameter space")
	}
	file, ok := p.Param("file")
	if !ok {
		t.Fatal("no parameter file")
	}
	for _, name := range []string{"", "v1", "spaces", "other"} {
		if _, ok := p.Param(name); ok {
			t.Errorf("there is a parameter %q", name)
		}
	}
	for _, tt := range []struct{ path, space, file string }{
		{"/v1/spaces/a/files", "a", ""},
		{"/v1/spaces/a/files/", "a", ""},
		{"/v1/spaces/a b/files/x", "a b", "x"},
		{"/v1/spaces/%61/files/x/y/", "%61", "x/y/"},
		// No path of this pattern, yet nothing may go wrong.
		{"/v1/spaces", "", ""},
		{"", "", ""},
	} {
		if got := space.Value(tt.path); got != tt.space {
			t.Errorf("space of %q is %q", tt.path, got)
		}
		if got := file.Value(tt.path); got != tt.file {
			t.Errorf("file of %q is %q", tt.path, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = file.Value("/v1/spaces/a/files/x/y") }); n != 0 {
		t.Errorf("Value allocates %v times", n)
	}
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"/", "GET,POST a.example/v1/{x}/{y...}", "[::1]/%41", "/caf%c3%a9", "HEAD /a/", "/a%2Fb", "/%7Bx%7D", "GET  /"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		again, err := ParsePattern(p.String())
		if err != nil || !slices.Equal(again.segments, p.segments) {
			t.Fatalf("%q reads back as %v, %v", p, again.segments, err)
		}
		// The example of a pattern and itself is a request that it matches.
		method, host, path := splitExample(t, example(p, p))
		r := &Rule{Pattern: p}
		table, err := NewTable([]*Rule{r})
		if err != nil {
			t.Fatal(err)
		}
		if m := table.Match(method, strings.ToUpper(host)+":8080", path); m.Rule != r {
			t.Fatalf("%q does not match %s %q %q", s, method, host, path)
		}
		for _, seg := range p.segments {
			if seg.kind == literal {
				continue
			}
			param, ok := p.Param(seg.text)
			if !ok {
				t.Fatalf("%q has no parameter %q", s, seg.text)
			}
			want := seg.text // which example takes for a value
			if seg.kind == rest {
				want = ""
			}
			if got := param.Value(path); got != want {
				t.Fatalf("%q: %s of %q is %q", s, seg.text, path, got)
			}
		}
	})
}

func mustParse(tb testing.TB, s string) Pattern {
	tb.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
