package test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
)

// readings are the ways in which servers behind a gateway are known to read a path,
// each as what such a server would look its handlers up by.
var readings = map[string]func(target string) string{
	"as it is sent": func(s string) string { return s },
	"decoded once":  decoded,
	"decoded, without dots and double slashes":    func(s string) string { return path.Clean(decoded(s)) },
	"dots and double slashes first, decoded then": func(s string) string { return decoded(path.Clean(s)) },
	"backslashes are slashes": func(s string) string {
		return path.Clean(strings.ReplaceAll(decoded(s), `\`, "/"))
	},
	"without path parameters": func(s string) string { return path.Clean(decoded(withoutParameters(s))) },
	"path parameters after decoding": func(s string) string {
		return path.Clean(withoutParameters(decoded(s)))
	},
	"up to a zero byte": func(s string) string {
		s, _, _ = strings.Cut(decoded(s), "\x00")
		return path.Clean(s)
	},
	"without control characters": func(s string) string {
		return path.Clean(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return -1
			}
			return r
		}, decoded(s)))
	},
	"overlong UTF-8": func(s string) string {
		return path.Clean(strings.NewReplacer("\xc0\xaf", "/", "\xc0\xae", ".").Replace(decoded(s)))
	},
}

func decoded(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

func withoutParameters(s string) string {
	segments := strings.Split(s, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

// No spelling of a path reaches an upstream under a rule that did not authorise it,
// however the upstream reads paths: a gateway that matches /public/..%2fadmin under
// /public lets everybody in at the servers that take it for /admin.
func TestNoSpellingPassesARule(t *testing.T) {
	t.Parallel()
	api := newExact(t)
	g := start(t, settings{"KEYGATE_UPSTREAM": "http://" + api.address, "KEYGATE_FAILED_PER_ADDRESS": "off", "KEYGATE_POLICY": `
version: 1
permissions: { "admin:all": { description: Everything } }
plans: { free: { limits: [] } }
routes:
  - { match: "/public/{rest...}", permission: any }
  - { match: "/{rest...}", permission: any }
  - { match: "/admin/{rest...}", permission: "admin:all" }
`})
	k := g.newKey("anybody")
	pieces := strings.Fields(`/ / / // . .. ..; ../ /.. /../ /./ %2e %2E%2e .%2e %2f %2F %5c \ ..\ ; ;x=1 ;/ public admin admin admin %61dmin adm%69n info x
		%00 %09 %0a %20 %25 %252e %252f %c0%af %c0%ae%c0%ae ? # ?x=/../ : @ //gate/ http://gate/ * ~ %7e`)
	whole := []string{
		"/admin/x", "/public/x", "/x", "/public/../admin/x", "/public/..%2fadmin/x", "/public/%2e%2e/admin/x", "/public/..;/admin/x",
		`/public/..\admin/x`, "/public/..%5cadmin/x", "//admin/x", "/./admin/x", "/admin%2fx/info", "/admin;x/info", "/admin%00/info", "/admin%20/info", "/admin%2f../info",
		"/admin/info", "/ADMIN/info", "/%61dmin/x", "/public/%c0%ae%c0%ae/admin/x", "/public/.%00./admin/x", "/public/%252e%252e/admin/x", "http://gate/admin/x", "admin/x", "*",
	}
	random := rand.New(rand.NewPCG(1, 2))
	n := 1500
	if full() {
		n = 50_000
	}
	for range n {
		var b strings.Builder
		b.WriteString([]string{"/public/", "/", "/x"}[random.IntN(3)])
		for range 1 + random.IntN(6) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		whole = append(whole, b.String())
	}
	forwarded := 0
	for i, target := range whole {
		statuses := g.raw("GET " + target + " HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nAuthorization: Bearer " + k.Secret + "\r\n\r\n")
		if len(statuses) != 1 {
			t.Fatalf("%q: answers %v", target, statuses)
		}
		switch statuses[0] {
		case http.StatusOK, http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
		default:
			t.Errorf("%q: status %d", target, statuses[0])
		}
		sent := api.taken()
		if (statuses[0] == http.StatusOK) != (len(sent) == 1) {
			t.Fatalf("%q: status %d, and the upstream got %q", target, statuses[0], sent)
		}
		if i < 3 && (statuses[0] == http.StatusForbidden) != (i == 0) {
			t.Fatalf("%q: status %d", target, statuses[0])
		}
		for _, header := range sent {
			forwarded++
			var method, got string
			if _, err := fmt.Sscanf(header, "%s %s", &method, &got); err != nil {
				t.Fatalf("%q: the upstream got %q", target, header)
			}
			got, _, _ = strings.Cut(got, "?") // no server looks for its handler behind it
			for reading, read := range readings {
				if p := read(got); p == "/admin" || strings.HasPrefix(p, "/admin/") {
					t.Errorf("%q went on as %q, which is %q to a server that reads paths %s", target, got, p, reading)
				}
			}
		}
	}
	t.Logf("%d spellings, %d of them forwarded", len(whole), forwarded)
	if forwarded < len(whole)/50 {
		t.Errorf("only %d of %d spellings were forwarded: this shows nothing", forwarded, len(whole))
	}
	g.stop()
}
