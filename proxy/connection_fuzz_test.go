package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/problem"
)

// served is a request that net/http took from a client, and what came of it.
type served struct {
	*http.Request // as it was before the gate had it
	arrived       []arrival
	panicked      any
}

// memoryServer is a gate behind net/http's own server, as keygate sets it up.
type memoryServer struct {
	*memoryGate
	upstream *memoryUpstream
	listener *memoryListener

	handling sync.WaitGroup
	mu       sync.Mutex
	served   []served
}

func newMemoryServer(t testing.TB) *memoryServer {
	s := &memoryServer{upstream: new(memoryUpstream), listener: newMemoryListener()}
	s.memoryGate = newMemoryGate(t, s.upstream.transport())
	server := &http.Server{
		Handler: s, MaxHeaderBytes: 64 << 10, DisableGeneralOptionsHandler: true, Protocols: new(http.Protocols),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server.Protocols.SetHTTP1(true)
	go func() { _ = server.Serve(s.listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return s
}

func (s *memoryServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handling.Add(1)
	defer s.handling.Done()
	was := served{Request: r.Clone(r.Context())}
	before := len(s.upstream.taken())
	defer func() {
		was.panicked = recover()
		was.arrived = s.upstream.taken()[before:]
		s.mu.Lock()
		s.served = append(s.served, was)
		s.mu.Unlock()
		if was.panicked != nil {
			panic(was.panicked)
		}
	}()
	s.proxy.ServeHTTP(w, r)
}

// send has a client at an address send bytes, and returns the requests that were
// found in them, and what was answered.
func (s *memoryServer) send(t *testing.T, peer net.IP, sent, answer []byte) ([]served, []byte) {
	s.pass()
	s.upstream.answers(answer)
	s.mu.Lock()
	s.served = nil
	s.mu.Unlock()
	conn := newMemoryConn(sent, &net.TCPAddr{IP: peer, Port: 1234})
	s.listener.conns <- conn
	select {
	case <-conn.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the connection does not end")
	}
	s.handling.Wait() // a connection that changed its protocol ends before its request
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served, conn.written()
}

// FuzzConnection: whatever a client sends, and whatever the upstream answers, no
// request reaches the upstream that may not, none that can be read in two ways, and
// none that says on its own who sent it; each is answered as documented.
func FuzzConnection(f *testing.F) {
	for _, seed := range connectionSeeds {
		f.Add([]byte(strings.ReplaceAll(seed, "\n", "\r\n")), []byte(""), false)
	}
	for _, answer := range answerSeeds {
		f.Add([]byte("GET /pages/1 HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nAuthorization: Bearer {all}\r\n\r\n"), []byte(strings.ReplaceAll(answer, "\n", "\r\n")), true)
	}
	s := newMemoryServer(f)
	f.Fuzz(func(t *testing.T, sent, answer []byte, trusted bool) {
		peer := net.IPv4(198, 51, 100, 7)
		if trusted {
			peer = net.ParseIP(trustedPeer)
		}
		if len(answer) == 0 {
			answer = nil
		}
		text := s.withKeys(string(sent))
		if len(text) > mostSent {
			return
		}
		served, got := s.send(t, peer, []byte(text), answer)
		for i := range served {
			s.check(t, &served[i], peer.String(), trusted)
		}
		checkAnswers(t, served, got, answer != nil)
		logged := s.logged.take()
		for name, secret := range s.secrets {
			if strings.Contains(logged, secret) {
				t.Errorf("the log holds the key %q: %s", name, logged)
			}
		}
		if strings.Contains(logged, "panicked") {
			t.Errorf("%s", logged)
		}
		if t.Failed() {
			t.Logf("sent %q\nanswered %q", sent, got)
		}
	})
}

// connectionSeeds are requests, with line feeds for line ends.
var connectionSeeds = []string{
	"GET /any/x?a=b&c=%zz HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\n\n",
	"GET /orders/1 HTTP/1.1\nHost: a\nAuthorization: bearer  {reader}\n\nGET /orders/2 HTTP/1.1\nHost: a\n\n",
	"POST /orders/1 HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nContent-Length: 5\nIdempotency-Key: k\n\nhelloPUT /orders/1 HTTP/1.1\nHost: a\nAuthorization: Bearer {tiny}\nContent-Length: 0\n\n",
	"POST /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nTransfer-Encoding: chunked\nTrailer: X-Sum, X-Keygate-Scopes\nTE: trailers\n\n5;a=b\nhello\n0\nX-Sum: 1\nX-Keygate-Scopes: admin\n\n",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nConnection: x-keygate-key-id, close\nX-Keygate-Key-Id: forged\nX_keygate-plan: forged\nX-Forwarded-For: 203.0.113.9\nX_Forwarded_Proto: https\nX-Forwarded-Prefix: /x\nX-Original-URL: /y\nX-Request-Id: mine\n\n",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nX-Http-Method-Override: DELETE\n\n",
	"GET /key HTTP/1.1\nHost: a\nAuthorization: BEARER {all}\nCookie: a=1\nCookie: b=2\n\n",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nAuthorization: Bearer {reader}\n\n",
	"GET /any/x?key={all} HTTP/1.1\nHost: a\n\n",
	"GET /status HTTP/1.1\nHost: a\nX-Keygate-Account: forged\n\nPOST /status HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 2\n\nhi",
	"GET /header HTTP/1.1\nHost: a\nAuthorization: Bearer {berlin}\nX-Organization: default\nX-Space: berlin\n\n",
	"GET /header HTTP/1.1\nHost: a\nAuthorization: Bearer {berlin}\nX-Organization: default\nX_Space: rome\nConnection: X-Space\n\n",
	"GET /header HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nX-Organization: default\nX-Space: berlin\nConnection: close, x-space\n\n",
	"GET /query?org=default&org=other HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\n\nGET /query?org=org_a HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\n\n",
	"OPTIONS /pages/1 HTTP/1.1\nHost: a\nOrigin: https://app.example\nAccess-Control-Request-Method: DELETE\nAccess-Control-Request-Headers: authorization\n\nOPTIONS /any/1 HTTP/1.1\nHost: a\nOrigin: https://app.example\nAccess-Control-Request-Method: GET\n\nOPTIONS * HTTP/1.1\nHost: a\n\n",
	"GET /changed HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nX-Tenant: theirs\nX_Tenant: theirs\nX-Debug: 1\nX-Via: them\n\n",
	"GET /moved/a%2Cb/caf%C3%A9?x HTTP/1.1\nHost: other.example:81\nAuthorization: Bearer {all}\nRange: bytes=0-1\n\n",
	"GET /cost HTTP/1.1\nHost: a\nAuthorization: Bearer {tiny}\n\nGET /cost HTTP/1.1\nHost: a\nAuthorization: Bearer {tiny}\n\nGET /cost HTTP/1.1\nHost: a\nAuthorization: Bearer {tiny}\n\n",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {near}\nX-Forwarded-For: 198.51.100.9, 192.0.2.1\nX-Forwarded-Host: b\nX-Forwarded-Proto: https\n\n",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {revoked}\n\nGET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {paused}\n\nGET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {unknown}\n\n",
	"POST /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {reader}\nContent-Type: application/grpc\nTE: trailers\ngrpc-timeout: 1S\nContent-Length: 2000\n\n",
	"POST /orders/1 HTTP/1.1\nHost: a\nAuthorization: Bearer {reader}\nContent-Type: application/grpc+proto\nTE: trailers\nContent-Length: 0\n\n",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: x\nSec-WebSocket-Version: 13\n\n\x81\x82abcd",
	"GET /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: x\n\n",
	"GET /.keygate/me HTTP/1.1\nHost: a\nAuthorization: Bearer {tiny}\n\nHEAD /.keygate/me HTTP/1.1\nHost: a\n\nDELETE /.keygate/me HTTP/1.1\nHost: a\n\n",
	"GET /any/../x HTTP/1.1\nHost: a\n\nGET /any/%2e%2e HTTP/1.1\nHost: a\n\nGET //any HTTP/1.1\nHost: a\n\nGET http://b/any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\n\n",
	"DELETE /orders/1 HTTP/1.1\nHost: a\n\nCONNECT a:443 HTTP/1.1\nHost: a\n\nTRACE /any/x HTTP/1.1\nHost: a\n\nGET /nowhere HTTP/1.0\n\n",
	"POST /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nTransfer-Encoding: chunked\n\nzz\n",
	"POST /any/x HTTP/1.1\nHost: a\nAuthorization: Bearer {all}\nContent-Length: 5\nTransfer_Encoding: chunked\n\nhel",
}

// answerSeeds are upstreams' answers, with line feeds for line ends.
var answerSeeds = []string{
	"HTTP/1.1 200 OK\nAccess-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: X-Sum\nVary: Accept\nX-Cost: 2\nServer: x\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n2\nok\n0\nX-Sum: 1\n\n",
	"HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 204 No Content\nX-Request-Id: theirs\nRateLimit: \"x\";r=1\nX-Keygate-Plan: theirs\n\n",
	"HTTP/1.1 503 Service Unavailable\nRetry-After: 5\nContent-Length: 10\nConnection: X-Hop\nX-Hop: 1\n\nhi",
	"HTTP/1.1 304 Not Modified\nEtag: \"a\"\n\n",
	"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n",
	"HTTP/1.1 999\n\n",
	"nonsense",
}

// checkAnswers wants the connection in step: one answer for each request, in order,
// each of a form that is documented.
func checkAnswers(t *testing.T, all []served, got []byte, own bool) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(got))
	for i := 0; ; {
		if _, err := in.Peek(1); err != nil {
			if i < len(all) && all[i].panicked == nil { // which breaks the connection off
				t.Errorf("%d requests have %d answers", len(all), i)
			}
			return
		}
		var of *http.Request
		if i < len(all) {
			of = all[i].Request
		}
		a, err := http.ReadResponse(in, of)
		if err != nil {
			t.Errorf("answer %d cannot be read: %v", i, err)
			return
		}
		if a.StatusCode == http.StatusSwitchingProtocols {
			if len(all[i].arrived) == 0 || i != len(all)-1 || !strings.EqualFold(all[i].Header.Get("Upgrade"), "websocket") {
				t.Error("the protocol was switched without need")
			}
			return
		}
		if a.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(a.Body)
		switch {
		case of == nil: // net/http's own, and the last: documented as it is
			if _, err := in.Peek(1); err == nil || !slices.Contains([]int{400, 417, 431, 501, 505}, a.StatusCode) || !a.Close {
				t.Errorf("%d is answered before any handler", a.StatusCode)
			}
			return
		case err != nil:
			if !own || all[i].panicked == nil {
				t.Errorf("answer %d breaks off: %v", i, err)
			}
			return
		}
		if len(all[i].arrived) == 0 {
			checkRefusal(t, of, a, body)
		} else if !own {
			checkPassed(t, &all[i], a, body)
		}
		i++
	}
}

// checkPassed checks the answer of an upstream that always gives a good one.
func checkPassed(t *testing.T, of *served, a *http.Response, body []byte) {
	t.Helper()
	if a.StatusCode == http.StatusOK && (string(body) == "ok" || of.Method == http.MethodHead) {
		return
	}
	t.Errorf("%s %s reached the upstream and was answered %d %q", of.Method, of.RequestURI, a.StatusCode, body)
}

// refusalStatuses are those with which keygate answers on its own where its stores
// and upstreams are well; 499 where the client broke off its body.
var refusalStatuses = []int{400, 401, 403, 404, 405, 413, 414, 429, 499}

// checkRefusal checks an answer to a request that did not reach the upstream.
func checkRefusal(t *testing.T, r *http.Request, a *http.Response, body []byte) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s %s %v: answered %d %v %q: %s", r.Method, r.RequestURI, r.Header, a.StatusCode, a.Header, body, fmt.Sprintf(format, args...))
	}
	id := a.Header["X-Request-Id"]
	if len(id) != 1 || len(id[0]) != 36 {
		fail("the request ids are %q", id)
		return
	}
	switch {
	case a.StatusCode == http.StatusNoContent && r.Method == http.MethodOptions:
		if origin := a.Header["Access-Control-Allow-Origin"]; len(origin) != 1 || origin[0] != "https://app.example" {
			fail("the preflight allows %q", origin)
		}
		return
	case a.StatusCode == http.StatusOK && r.URL.Path == "/.keygate/me":
		return
	case a.StatusCode == http.StatusOK && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		if status := a.Header["Grpc-Status"]; len(status) != 1 || status[0] == "0" || len(a.Header["Grpc-Message"]) != 1 || len(body) > 0 {
			fail("this is no answer without messages")
		}
		return
	case !slices.Contains(refusalStatuses, a.StatusCode):
		fail("this status is not documented")
		return
	case a.Header.Get("Content-Type") != problem.ContentType:
		fail("it is no problem")
		return
	}
	if (a.StatusCode == 401) != strings.HasPrefix(a.Header.Get("Www-Authenticate"), "Bearer ") && a.StatusCode != 400 && a.StatusCode != 403 {
		fail("the challenge")
	}
	if (a.StatusCode == 429) != (a.Header.Get("Retry-After") != "") || a.Header.Get("Retry-After") == "0" {
		fail("when to come back")
	}
	if (a.StatusCode == 405) != (a.Header.Get("Allow") != "") {
		fail("what is allowed")
	}
	if r.Method == http.MethodHead {
		return
	}
	var p problem.Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Status != a.StatusCode || p.RequestID != id[0] || p.Error == "" || p.Detail == "" {
		fail("the body is %+v %v", p, err)
	}
}
