package test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"keygate/internal/admin"
)

// HTTP/2 can carry in a name, a value or a path what would end a line, or the whole
// request, in HTTP/1.1. None of it reaches an upstream that speaks that.
func TestNothingIsSmuggledDown(t *testing.T) {
	t.Parallel()
	api := newExact(t)
	g := start(t, settings{"KEYGATE_UPSTREAM": "http://" + api.address, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_FAILED_PER_ADDRESS": "off"})
	k := g.newKey("smuggler")
	smuggled := "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	request := func(change map[string]string, more ...string) []byte {
		var pairs []string
		for _, name := range []string{":method", ":scheme", ":authority", ":path"} {
			value, changed := change[name]
			if !changed {
				value = map[string]string{":method": "GET", ":scheme": "http", ":authority": "gate", ":path": "/x"}[name]
			}
			pairs = append(pairs, name, value)
		}
		return fields(append(append(pairs, "authorization", "Bearer "+k.Secret), more...)...)
	}
	for name, block := range map[string][]byte{
		"nothing":                  request(nil),
		"a line in a value":        request(nil, "x-a", "one"+smuggled),
		"a line feed in a value":   request(nil, "x-a", "one\nx-b: two"),
		"a return in a value":      request(nil, "x-a", "one\rx-b: two"),
		"a zero in a value":        request(nil, "x-a", "one\x00two"),
		"a line in a name":         request(nil, "x-a: b\r\nx-b", "c"),
		"a colon in a name":        request(nil, "x-a:b", "c"),
		"a space in a name":        request(nil, "content-length ", "5"),
		"capitals":                 request(nil, "X-Keygate-Key-Id", "forged"),
		"an empty name":            request(nil, "", "x"),
		"a line in the path":       request(map[string]string{":path": "/x HTTP/1.1" + smuggled}),
		"a space in the path":      request(map[string]string{":path": "/x HTTP/1.1"}),
		"a space in the query":     request(map[string]string{":path": "/x?a=b HTTP/1.0"}),
		"a fragment in the path":   request(map[string]string{":path": "/x#" + smuggled}),
		"no slash":                 request(map[string]string{":path": "x"}),
		"a line in the method":     request(map[string]string{":method": "GET /x HTTP/1.1" + smuggled}),
		"a space in the method":    request(map[string]string{":method": "GET /smuggled"}),
		"a line in the authority":  request(map[string]string{":authority": "gate" + smuggled}),
		"a line in the scheme":     request(map[string]string{":scheme": "http" + smuggled}),
		"two paths":                append(request(nil), fields(":path", "/smuggled")...),
		"another host":             request(nil, "host", "other"),
		"chunks":                   request(nil, "transfer-encoding", "chunked"),
		"a length without a body":  request(nil, "content-length", "5"),
		"two lengths":              request(nil, "content-length", "0", "content-length", "5"),
		"a connection field":       request(nil, "connection", "x-keygate-key-id"),
		"a list of hop-by-hop":     request(nil, "proxy-connection", "keep-alive", "keep-alive", "1", "upgrade", "websocket"),
		"te of another kind":       request(nil, "te", "chunked"),
		"a cookie in many pieces":  request(nil, "cookie", "a=1", "cookie", "b=2"),
		"a pseudo field of no use": request(nil, ":status", "200"),
	} {
		t.Run(name, func(t *testing.T) {
			api.taken()
			f := g.frames()
			_, _ = f.open(block)
			_ = f.out.Flush()
			for answered := false; !answered; {
				frame, err := f.ReadFrame()
				if err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatal("no answer")
					}
					break
				}
				switch frame.(type) {
				case *http2.HeadersFrame, *http2.RSTStreamFrame, *http2.GoAwayFrame:
					answered = true
				}
			}
			got := api.taken()
			if name == "nothing" && len(got) != 1 {
				t.Errorf("the upstream got %q", got)
			}
			for _, header := range got {
				line, _, _ := strings.Cut(header, "\r\n")
				if strings.Count(line, " ") != 2 || strings.Contains(header, "smuggled") {
					t.Errorf("the upstream got %q", header)
				}
				checkClean(t, strings.Replace(header, line, "GET /x HTTP/1.1", 1))
				if strings.Contains(header, "forged") || !strings.Contains(header, "X-Keygate-Key-Id: "+k.ID) {
					t.Errorf("identity: %q", header)
				}
			}
			_ = f.conn.Close()
		})
	}
	g.stop()
}

// Go's servers take a host with a comma in it, that of HTTP/2 one of any characters.
// "admin.test, x" is under no rule for admin.test, and an upstream that believes the
// first name in X-Forwarded-Host was told just that. Others reached it in Punycode, where
// the route passes on what the client asked for.
func TestNoAuthorityPassesARule(t *testing.T) {
	t.Parallel()
	api := newExact(t)
	g := start(t, settings{"KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_POLICY": `
version: 1
upstreams: { api: { targets: ["http://` + api.address + `"] } }
permissions: { "admin:all": { group: Admin } }
routes:
  - { match: "admin.test/{path...}", permission: "admin:all" }
  - { match: "/{path...}", permission: any, rewrite: { host: "{host}" } }
`})
	k := g.created(admin.NewKey{Name: "client", Permissions: []string{"read:all"}})
	for authority, passes := range map[string]bool{
		"other.test": true, "other.test:8080": true, "[2001:db8::1]:80": true, "admin.test": false, "ADMIN.test.:80": false,
		"admin.test x": false, "admin.test/": false, "admin.test/x": false, "admin.test\tx": false, "admin.test\"": false, "admin.test, x": false, "\xe9": false,
	} {
		api.taken()
		f := g.frames()
		_, _ = f.open(fields(":method", "GET", ":scheme", "http", ":authority", authority, ":path", "/x", "authorization", "Bearer "+k.Secret))
		_ = f.out.Flush()
		for answered := false; !answered; {
			frame, err := f.ReadFrame()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%q: no answer", authority)
			}
			switch frame.(type) {
			case *http2.HeadersFrame, *http2.RSTStreamFrame, *http2.GoAwayFrame:
				answered = true
			}
			answered = answered || err != nil
		}
		got := api.taken()
		if passes != (len(got) == 1) {
			t.Errorf("%q: the upstream got %q", authority, got)
		}
		for _, header := range got {
			if !strings.Contains(header, "\r\nHost: "+authority+"\r\n") {
				t.Errorf("%q: the upstream got %q", authority, header)
			}
		}
		_ = f.conn.Close()
	}
}
