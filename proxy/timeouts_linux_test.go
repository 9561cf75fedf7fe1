package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hang is a server that does so much and then nothing for as long as it is let.
func hang(t testing.TB, before func(c *rawConn)) string {
	t.Helper()
	s := newRawServer(t, func(c *rawConn) {
		if before != nil {
			before(c)
		}
		_, _ = io.Copy(io.Discard, c) // until the gate leaves
	})
	return s.addr()
}

// deaf is a server that takes a connection and reads nothing from it.
func deaf(t testing.TB) string {
	t.Helper()
	done := make(chan struct{})
	s := newRawServer(t, func(*rawConn) { <-done })
	t.Cleanup(func() { close(done) }) // before the server waits for its connections
	return s.addr()
}

// TestTimeouts: whatever phase an upstream stops in, the client gets 504 when that
// phase's time is over, and does not wait for ever.
func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		name     string
		target   func(t testing.TB) string
		timeouts string
		body     int
		phase    string // what the log says
	}{
		{"connect", full, "{ connect: 200ms }", 0, "i/o timeout"},
		{"TLS that never begins", func(t testing.TB) string { return "https://" + hang(t, nil) }, "{ tls: 200ms }", 0, "TLS handshake timeout"},
		{"TLS that never ends", func(t testing.TB) string {
			return "https://" + hang(t, func(c *rawConn) { c.answer("\x16\x03\x03\x40\x00\x02\x00\x3f\xfc") }) // a record of 16 KiB that never comes
		}, "{ tls: 200ms }", 0, "TLS handshake timeout"},
		{"no answer", func(t testing.TB) string { return "http://" + hang(t, nil) }, "{ first_byte: 200ms }", 0, "timeout awaiting response headers"},
		{"no answer to a body", func(t testing.TB) string { return "http://" + hang(t, nil) }, "{ first_byte: 200ms }", 1000, "time"},
		// net/http begins to count when the body is sent, and this one never will be.
		{"no appetite for a body", func(t testing.TB) string { return "http://" + deaf(t) }, "{ first_byte: 200ms }", 32 << 20, "timeouts.first_byte (200ms)"},
		{"no answer in total", func(t testing.TB) string { return "http://" + hang(t, nil) }, "{ total: 200ms }", 0, "timeouts.total (200ms)"},
		{"no appetite in total", func(t testing.TB) string { return "http://" + deaf(t) }, "{ total: 200ms, first_byte: 0s }", 32 << 20, "timeouts.total (200ms)"},
		{"HTTP/2 without an answer", func(t testing.TB) string {
			return "h2c://" + newRawServer(t, func(c *rawConn) { c.http2(func(uint32) {}) }).addr()
		}, "{ first_byte: 200ms }", 0, "timeout awaiting response headers"},
		{"HTTP/2 without appetite", func(t testing.TB) string {
			// It grants no window beyond the first 64 KiB.
			return "h2c://" + newRawServer(t, func(c *rawConn) { c.http2(func(uint32) {}) }).addr()
		}, "{ first_byte: 200ms }", 32 << 20, "timeouts.first_byte (200ms)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, secret := front(t, []string{c.target(t)}, "", "timeouts: "+c.timeouts)
			a := g.do("POST", "/x", secret, strings.Repeat("x", c.body))
			if a.StatusCode != 504 || a.problem.Error != "Upstream timed out" {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
			waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == 1 })
			if said := fmt.Sprint(g.logs.All()[0].ContextMap()["error"]); !strings.Contains(said, c.phase) {
				t.Errorf("the log says %q, not %q", said, c.phase)
			}
		})
	}
}

// A slow client is not a slow upstream: while its body is waited for, the
// upstream's time does not run.
func TestSlowClientIsNotTheUpstream(t *testing.T) {
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}
	g, secret := front(t, []string{u.URL}, "", "timeouts: { first_byte: 300ms }")
	body, writer := io.Pipe()
	go func() {
		for range 5 {
			time.Sleep(200 * time.Millisecond)
			_, _ = io.WriteString(writer, "x")
		}
		_ = writer.Close()
	}()
	r, err := http.NewRequestWithContext(context.Background(), "PUT", g.url+"/x", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	if a := g.send(r); a.StatusCode != 200 || string(a.body) != "xxxxx" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestAnswersThatStop: an answer that has begun cannot become a 504 any more. It is
// broken off, so that nobody takes what there is for the whole.
func TestAnswersThatStop(t *testing.T) {
	begun := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "drip")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, c := range map[string]struct {
		answer   http.HandlerFunc
		timeouts string
	}{
		"silence":              {begun, "{ idle: 200ms }"},
		"drips without an end": {drip, "{ total: 300ms, idle: 5s }"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			u.answer = c.answer
			g, secret := front(t, []string{u.URL}, "timeouts: "+c.timeouts)
			n, err := g.readSome(secret)
			if err == nil || n == 0 {
				t.Errorf("%d bytes and %v: the client takes it for a whole answer", n, err)
			}
			waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == 1 })
			if g.logs.All()[0].ContextMap()["aborted"] != true {
				t.Error("the log does not tell")
			}
		})
	}
}

// readSome reads an answer for as long as it lasts.
func (g *gate) readSome(secret string) (int64, error) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), "GET", g.url+"/any/x", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return io.Copy(io.Discard, res.Body)
}

// A stream that is alive is not idle, however long it lasts; a client that reads
// slowly does not make the upstream idle.
func TestLiveStreams(t *testing.T) {
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, _ *http.Request) {
		for range 10 {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
		_, _ = w.Write(make([]byte, 16<<20)) // more than any buffer on the way holds
	}
	g, secret := front(t, []string{u.URL}, "timeouts: { idle: 400ms }")
	r, err := http.NewRequestWithContext(context.Background(), "GET", g.url+"/any/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	time.Sleep(2500 * time.Millisecond) // all stands still, for the client's sake
	if n, err := io.Copy(io.Discard, res.Body); n != 90+16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestIdleWebSocket: a connection that was taken over has no transport that looks
// after it.
func TestIdleWebSocket(t *testing.T) {
	upgrade := func(c *rawConn) {
		if c.read() == nil {
			return
		}
		c.answer("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, c.in)
	}
	for name, timeouts := range map[string]string{"idle": "{ idle: 300ms }", "total": "{ total: 1500ms }"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRawServer(t, upgrade)
			g, secret := front(t, []string{"http://" + s.addr()}, "timeouts: "+timeouts)
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(conn, "GET /any/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", secret)
			in := bufio.NewReader(conn)
			if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 {
				t.Fatal(res, err)
			}
			for range 5 {
				time.Sleep(150 * time.Millisecond)
				fmt.Fprint(conn, "hi\n")
				if line, err := in.ReadString('\n'); line != "hi\n" {
					t.Fatalf("%q %v", line, err)
				}
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("%v", err)
			}
			waitFor(t, func() bool { open, _ := s.connections(); return open == 0 })
		})
	}
}

// TestUpstreamAborts: whatever way an upstream's answer breaks off, and whatever
// the client speaks, it must not look like a whole one.
func TestUpstreamAborts(t *testing.T) {
	for _, client := range []string{"HTTP/1.1", "HTTP/2"} {
		for name, begun := range map[string]string{
			"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.",
			"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nten bytes.\r\n",
			"chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nten bytes.",
			"trailer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\na\r\nten bytes.\r\n0\r\nX: ",
		} {
			for _, end := range []string{"end", "reset"} {
				t.Run(fmt.Sprint(client, name, end), func(t *testing.T) {
					t.Parallel()
					s := newRawServer(t, func(c *rawConn) {
						c.read()
						c.answer(begun)
						if end == "reset" {
							time.Sleep(50 * time.Millisecond) // a reset overtakes what was sent
							c.reset()
						}
					})
					g, secret := front(t, []string{"http://" + s.addr()})
					url, transport := g.over(client)
					r, _ := http.NewRequestWithContext(context.Background(), "GET", url+"/any/x", nil)
					r.Header.Set("Authorization", "Bearer "+secret)
					res, err := transport.RoundTrip(r)
					if err != nil {
						return // not even a header
					}
					defer res.Body.Close()
					if res.Proto[:6] != client[:6] {
						t.Fatalf("the client speaks %s", res.Proto)
					}
					if body, err := io.ReadAll(res.Body); err == nil {
						t.Errorf("the client takes %q for the whole of %d", body, res.StatusCode)
					}
				})
			}
		}
	}
}
