package proxy_test

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// FuzzConnection found what is tested here.

// one sends one request of a stranger, with line feeds for line ends, and returns
// what of it arrived, if anything did, and the answer.
func (s *memoryServer) one(t *testing.T, sent string) (*http.Request, *http.Response) {
	t.Helper()
	got, wire := s.send(t, net.IPv4(198, 51, 100, 7), []byte(s.withKeys(strings.ReplaceAll(sent, "\n", "\r\n"))), nil)
	a, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(wire)), nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("%q: %d requests, %v", sent, len(got), err)
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		t.Fatal(err)
	}
	if len(got[0].arrived) == 0 {
		return nil, a
	}
	return got[0].arrived[0].r, a
}

// TestRouteDecidesEverySpelling: a route that set X-Tenant or removed X-Debug left
// X_Tenant and X_Debug of a client, which servers that hand fields on as variables
// (CGI, WSGI) take for the same.
func TestRouteDecidesEverySpelling(t *testing.T) {
	s := newMemoryServer(t)
	r, _ := s.one(t, "GET /changed HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nX_Tenant: theirs\nx_TENANT: theirs\nX-Tenant: theirs\nX_Debug: 1\nX-Debug: 1\nX_Via: them\n\n")
	if r == nil {
		t.Fatal("nothing reached the upstream")
	}
	for name, values := range r.Header {
		if fold(name) == "x-debug" || fold(name) == "x-tenant" && (name != "X-Tenant" || strings.Join(values, ",") != "ours") {
			t.Errorf("the upstream got %s: %q", name, values)
		}
	}
	if r.Header.Get("X_via") != "them" || r.Header.Get("X-Via") != "keygate" {
		t.Errorf("what the route only adds to is lost: %v", r.Header)
	}
}

// TestTrailersSayNothingThatIsJudged: a client could still say in trailers which
// organization or space its request is about, send credentials, and set what the
// route sets.
func TestTrailersSayNothingThatIsJudged(t *testing.T) {
	s := newMemoryServer(t)
	for _, c := range []struct{ path, fields, want string }{
		{"/any/x", "", "X-Debug,X-Organization,X-Sum,X-Tenant,X_space"}, // which judges none of them
		{"/header", "X-Organization: default\nX-Space: berlin\n", "X-Debug,X-Sum,X-Tenant"},
		{"/changed", "", "X-Organization,X-Sum,X_space"},
	} {
		const names = "Authorization, X-Organization, X_Space, X-Tenant, X-Debug, X-Keygate-Account, X_Forwarded_For, Host, X-Sum"
		r, _ := s.one(t, "POST "+c.path+" HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\n"+c.fields+
			"Transfer-Encoding: chunked\nTrailer: "+names+"\n\n0\n"+strings.ReplaceAll(names, ", ", ": x\n")+": x\n\n")
		if r == nil {
			t.Fatalf("%s: nothing reached the upstream", c.path)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ","); got != c.want || r.Trailer.Get("X-Sum") != "x" {
			t.Errorf("%s reached the upstream with the trailers %v, want %s", c.path, r.Trailer, c.want)
		}
	}
}

// TestTrailerThatIsNone: a trailer whose name is none was the client's way to a 502,
// which counted as the upstream's failure: five of them took a target out of use.
func TestTrailerThatIsNone(t *testing.T) {
	s := newMemoryServer(t)
	r, a := s.one(t, "POST /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nTransfer-Encoding: chunked\nTrailer: a b, X-Sum\n\n0\nX-Sum: 1\n\n")
	if a.StatusCode != http.StatusOK || len(r.Trailer) != 1 {
		t.Errorf("%d", a.StatusCode)
	}
}

// TestUpgradeOfNoName: a protocol whose name is not ASCII was answered as if the
// upstream had failed.
func TestUpgradeOfNoName(t *testing.T) {
	s := newMemoryServer(t)
	r, a := s.one(t, "GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nConnection: Upgrade\nUpgrade: caf\xe9\n\n")
	if a.StatusCode != http.StatusOK || r.Header["Upgrade"] != nil {
		t.Errorf("%d", a.StatusCode)
	}
}

// TestKeyInTheWrongPlaceIsNotLogged: a key as the method, as the client's own request
// id, or in a path with a letter too many, stood in the access log.
func TestKeyInTheWrongPlaceIsNotLogged(t *testing.T) {
	s := newMemoryServer(t)
	s.one(t, "GET /any/x HTTP/1.1\nHost: a\nX-Request-Id: id {all}\n\n")
	s.one(t, "{all} /any/x HTTP/1.1\nHost: a\n\n")
	s.one(t, "GET /any/{all} HTTP/1.1\nHost: a\n\n")
	s.one(t, "GET /any/{all}x HTTP/1.1\nHost: a\n\n")
	if logged := s.logged.take(); strings.Contains(logged, s.secrets["all"]) || strings.Count(logged, "hidden: it holds an API key") != 4 {
		t.Errorf("the log says %s", logged)
	}
}

// TestAnswerWithoutAStatus: an upstream's status below 100 made net/http's server
// panic, and the client's connection ended without an answer.
func TestAnswerWithoutAStatus(t *testing.T) {
	s := newMemoryServer(t)
	for _, status := range []string{"000", "013", "099"} {
		_, wire := s.send(t, net.IPv4(198, 51, 100, 7), []byte(s.withKeys("GET /any/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {all}\r\n\r\n")), []byte("HTTP/1.1 "+status+" X\r\nContent-Length: 0\r\n\r\n"))
		if !bytes.HasPrefix(wire, []byte("HTTP/1.1 502 ")) {
			t.Errorf("%s: %q", status, wire)
		}
	}
}
