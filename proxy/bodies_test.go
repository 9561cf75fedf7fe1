package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/keys"
)

// TestMaxBody: refused by what it says of itself before anything is spent, and else
// where it goes too far. The upstream never takes what there is for the whole.
func TestMaxBody(t *testing.T) {
	var whole atomic.Int64
	u := newUpstream(t)
	u.answer = func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	}
	g := newGate(t, gateOptions{policy: `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
routes:
  - { match: "/small/{x...}", permission: any, max_body: 1KiB }
  - { match: "/public", public: { per_address: "1/1m" }, max_body: 1KiB }
`, target: u.URL})
	_, secret := g.key(keys.NewKey{})
	send := func(body io.Reader, length int64) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(context.Background(), "POST", g.url+"/small/x", body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+secret)
		return g.send(r)
	}
	unknown := func(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }
	for _, c := range []struct {
		name   string
		size   int
		length int64
		status int
	}{
		{"as large as it may be", 1024, 1024, 200},
		{"as large as it may be, without a length", 1024, -1, 200},
		{"too large", 1025, 1025, 413},
		{"too large, without a length", 1025, -1, 413},
		{"much too large, without a length", 1 << 20, -1, 413},
	} {
		whole.Store(0)
		a := send(unknown(c.size), c.length)
		if a.StatusCode != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, a.StatusCode, a.body, c.status)
		}
		if c.status == 413 && (a.problem.Error != "Request body too large" || whole.Load() != 0) {
			t.Errorf("%s: %s; the upstream saw %d whole bodies", c.name, a.body, whole.Load())
		}
		if c.length > 1024 && a.Header.Get("RateLimit") != "" {
			t.Errorf("%s: a refusal by length was counted: %q", c.name, a.Header.Get("RateLimit"))
		}
	}
	// Nor is it counted where no key is needed; and who waits for 100 Continue gets
	// the refusal instead of an invitation.
	for range 3 {
		if res := g.dial("POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n", false); res.StatusCode != 413 {
			t.Error(res.Status)
		}
	}
	if a := g.get("GET", "/public", ""); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestAnswerBeforeTheBodyIsSent: net/http's server reads up to 256 KiB of a body
// that its handler has not read when an answer begins. The transport was reading
// the same body for the upstream, which got one with a hole in it, and without a
// length took it for the whole.
func TestAnswerBeforeTheBodyIsSent(t *testing.T) {
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body) // begins with the first piece
	}
	g, secret := front(t, []string{u.URL})
	const size = 4 << 20
	for _, length := range []int64{size, -1} {
		sent := strings.Repeat("0123456789abcdef", size/16)
		r, err := http.NewRequestWithContext(context.Background(), "POST", g.url+"/x", io.MultiReader(strings.NewReader(sent)))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+secret)
		if a := g.send(r); a.StatusCode != 200 || string(a.body) != sent {
			t.Errorf("length %d: %d, %d bytes came back, and not those that were sent", length, a.StatusCode, len(a.body))
		}
	}
}

// TestEarlyAnswerEndsTheConnection: the rest of a body that nobody wanted must not
// be taken for the next request, and the answer must arrive whole all the same.
func TestEarlyAnswerEndsTheConnection(t *testing.T) {
	early := newRawServer(t, func(c *rawConn) {
		for line := ""; line != "\r\n"; { // the header, and not the body
			var err error
			if line, err = c.in.ReadString('\n'); err != nil {
				return
			}
		}
		c.server.deliver("header")
		c.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
		_, _ = io.Copy(io.Discard, c)
	})
	g, secret := front(t, []string{"http://" + early.addr()})
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n\r\n"
	for _, framing := range []string{"Content-Length: 100000", "Content-Length: 10000000", "Transfer-Encoding: chunked"} {
		for _, goesOn := range []bool{true, false} {
			before := len(early.deliveries())
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(conn, "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n", secret, framing)
			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(framing, err)
			}
			if body, err := io.ReadAll(res.Body); string(body) != "early" || err != nil || !res.Close {
				t.Errorf("%s: %q, %v; the connection goes on: %v", framing, body, err, !res.Close)
			}
			if goesOn {
				_, _ = io.WriteString(conn, smuggled) // nobody may be there any more
			}
			if rest, _ := io.ReadAll(in); len(rest) > 0 {
				t.Errorf("%s: the rest of the body was answered: %q", framing, rest)
			}
			_ = conn.Close()
			if n := len(early.deliveries()) - before; n != 1 {
				t.Errorf("%s: the upstream got %d requests", framing, n)
			}
		}
	}
	// Where the body was read the connection goes on.
	u := newUpstream(t)
	u.answer = func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}
	g, secret = front(t, []string{u.URL})
	for _, body := range []io.Reader{strings.NewReader("small"), io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)))} {
		r, err := http.NewRequestWithContext(context.Background(), "POST", g.url+"/x", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		if a := g.send(r); a.StatusCode != 200 || a.Close {
			t.Errorf("%d; the connection ends: %v", a.StatusCode, a.Close)
		}
	}
}
