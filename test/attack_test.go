package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// exact is an upstream that keeps each request's bytes as they came, and answers
// every request that it finds in them.
type exact struct {
	address string
	mu      sync.Mutex
	got     []string // the header of each request
}

func newExact(t *testing.T) *exact {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	e := &exact{address: ln.Addr().String()}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go e.serve(conn)
		}
	}()
	return e
}

func (e *exact) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	var header strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		header.WriteString(line)
		if line == "\r\n" || line == "\n" {
			break
		}
	}
	e.mu.Lock()
	e.got = append(e.got, header.String())
	e.mu.Unlock()
	again, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(header.String()), r)))
	if err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, again.Body); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

func (e *exact) taken() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := e.got
	e.got = nil
	return got
}

// raw sends bytes and returns the status of each answer until the connection ends.
func (g *gateway) raw(text string) (statuses []int) {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		g.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, res.StatusCode)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return statuses
		}
	}
}

// What can be read in two ways is refused, or goes on in a form that cannot: servers
// that read it otherwise than the gate would take a part of it for a request of its
// own, past every rule.
func TestNothingAmbiguousIsForwarded(t *testing.T) {
	t.Parallel()
	api := newExact(t)
	g := start(t, settings{"KEYGATE_UPSTREAM": "http://" + api.address, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_FAILED_PER_ADDRESS": "off"})
	k := g.newKey("attacker")
	auth := "Host: gate\r\nConnection: close\r\nAuthorization: Bearer " + k.Secret + "\r\n"
	for _, c := range []struct {
		name, text string
		want       []int // nil: any refusal
	}{
		{"the same length twice", "POST /x HTTP/1.1\r\n" + auth + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", []int{200}},
		{"two lengths", "POST /x HTTP/1.1\r\n" + auth + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", []int{400}},
		{"a list of lengths", "POST /x HTTP/1.1\r\n" + auth + "Content-Length: 5, 5\r\n\r\nhello", []int{400}},
		{"a signed length", "POST /x HTTP/1.1\r\n" + auth + "Content-Length: +5\r\n\r\nhello", []int{400}},
		{"length and chunks", "POST /x HTTP/1.1\r\n" + strings.Replace(auth, "Connection: close\r\n", "", 1) + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", nil},
		{"chunks twice", "POST /x HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{501}},
		{"chunks and something", "POST /x HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", []int{501}},
		{"chunks of a kind", "POST /x HTTP/1.1\r\n" + auth + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []int{501}},
		{"space before the colon", "POST /x HTTP/1.1\r\n" + auth + "Content-Length : 5\r\n\r\nhello", []int{400}},
		{"a folded line", "GET /x HTTP/1.1\r\n" + auth + "X-A: one\r\n two\r\n\r\n", []int{200}},
		{"a bare line feed", "GET /x HTTP/1.1\r\n" + auth + "X-A: one\nX-B: two\r\n\r\n", []int{200}},
		{"a bare carriage return", "GET /x HTTP/1.1\r\n" + auth + "X-A: one\rX-B: two\r\n\r\n", []int{400}},
		{"a zero byte", "GET /x HTTP/1.1\r\n" + auth + "X-A: one\x00two\r\n\r\n", []int{400}},
		{"two hosts", "GET /x HTTP/1.1\r\n" + auth + "Host: other\r\n\r\n", []int{400}},
		{"an extension of a chunk", "POST /x HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", []int{200}},
		{"a chunk that is too long", "POST /x HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", []int{400}},
		{"no length of a chunk", "POST /x HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", []int{400}},
		{"a target that is long", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\n" + auth + "\r\n", []int{414}},
		{"a header that is long", "GET /x HTTP/1.1\r\n" + auth + "X-A: " + strings.Repeat("a", 100<<10) + "\r\n\r\n", []int{431}},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + auth + "\r\n", []int{404}},
		{"CONNECT", "CONNECT other:443 HTTP/1.1\r\n" + auth + "\r\n", nil},
		{"an expectation", "POST /x HTTP/1.1\r\n" + auth + "Expect: a-miracle\r\nContent-Length: 1\r\n\r\nx", []int{417}},
	} {
		t.Run(c.name, func(t *testing.T) {
			api.taken()
			got := g.raw(c.text)
			refused := len(got) > 0 && got[0] >= 400
			if c.want != nil && !slices.Equal(got, c.want) || c.want == nil && !refused && c.name != "length and chunks" {
				t.Errorf("answers %v, want %v", got, c.want)
			}
			for _, header := range api.taken() {
				checkClean(t, header)
			}
		})
	}
	g.stop()
}

// checkClean wants a request's header that everybody reads alike.
func checkClean(t *testing.T, header string) {
	t.Helper()
	if !strings.HasPrefix(header, "POST /x HTTP/1.1\r\n") && !strings.HasPrefix(header, "GET /x HTTP/1.1\r\n") {
		t.Errorf("the upstream got another request: %q", header)
	}
	counts := make(map[string]int)
	for line := range strings.SplitSeq(strings.TrimSuffix(header, "\r\n\r\n"), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00") || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			t.Errorf("the upstream got a line that can be read in two ways: %q", line)
		}
		name, _, _ := strings.Cut(line, ":")
		counts[strings.ToLower(name)]++
	}
	if counts["content-length"]+counts["transfer-encoding"] > 1 || counts["host"] != 1 || counts["authorization"] != 0 {
		t.Errorf("the upstream got %v", counts)
	}
}

// Connections that do nothing, and such that begin a request and never end it, keep
// nobody else from being served.
func TestIdleCrowdKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k := g.newKey("honest")
	for i := range 200 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, []string{"", "GET /x HT", "POST /x HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer " + k.Secret + "\r\nContent-Length: 100\r\n\r\nx"}[i%3]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		g.wants(http.StatusOK, fmt.Sprint("/", i), k.Secret)
	}
	if n := g.metric(`keygate_client_connections{listener="proxy"}`); n < 200 {
		t.Errorf("%v connections are counted", n)
	}
}
