package proxy_test

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// A client of which the rest of the body was waited for did not learn that the
// upstream had died: the transport looks at the connection's end only when its
// read of the body has returned. Without a total it hung until the client's own
// patience ended, and a gRPC client, whose silence is nothing wrong, for ever.
func TestUpstreamDiesWhileTheClientIsSilent(t *testing.T) {
	// The header and the beginning of the body are there, then it is over.
	begun := func(c *rawConn, end func()) {
		r, err := http.ReadRequest(c.in)
		if err != nil {
			return
		}
		_, _ = io.ReadFull(r.Body, make([]byte, len("begun")))
		end()
	}
	for name, c := range map[string]struct {
		scheme string
		serve  func(c *rawConn)
	}{
		"end":                  {"http", func(c *rawConn) { begun(c, func() {}) }},
		"reset":                {"http", func(c *rawConn) { begun(c, c.reset) }},
		"HTTP/2, end":          {"h2c", func(c *rawConn) { c.http2Begun(func(uint32) { c.Close() }) }},
		"HTTP/2, stream reset": {"h2c", func(c *rawConn) { c.http2Begun(func(stream uint32) { c.resetStream(stream, internalError) }) }},
	} {
		for _, client := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(client+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newRawServer(t, c.serve)
				g, secret := front(t, []string{c.scheme + "://" + s.addr()})
				url, transport := g.over(client)
				writer, answers := pipeTo(t, &http.Client{Transport: transport, Timeout: 30 * time.Second}, url+"/x", secret)
				_, _ = io.WriteString(writer, "begun")
				if a, ok := <-answers; !ok || a.StatusCode != http.StatusBadGateway || a.problem.Error != "Upstream unavailable" {
					t.Errorf("%v %s", a.Response, a.body)
				}
			})
		}
	}
}

// Where the length of the body was known the client was waited for once more, for
// another two seconds, before it got its answer.
func TestAbandonedClientIsNotWaitedForTwice(t *testing.T) {
	s := newRawServer(t, func(c *rawConn) { _, _ = http.ReadRequest(c.in) })
	g, secret := front(t, []string{"http://" + s.addr()})
	const twice = 4 * time.Second
	took := twice
	for range 3 { // a busy machine may take as long by itself, once
		began := time.Now()
		res := g.dial("POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+secret+"\r\nContent-Length: 100\r\n\r\nbegun", false)
		if res.StatusCode != http.StatusBadGateway {
			t.Errorf("it was answered %d", res.StatusCode)
		}
		if took = time.Since(began); took < twice {
			return
		}
	}
	t.Errorf("it took %v", took)
}
