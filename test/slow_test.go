package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// One who holds one key opens hundreds of connections and makes nothing of any of
// them: headers that never end, bodies that stop, answers that nobody reads. Everybody
// else is served meanwhile, each of those is cut in its time, and the key itself works
// again after that.
func TestSlowCrowdOfOneKey(t *testing.T) {
	t.Parallel()
	crowd := 300
	if full() {
		crowd = 1000
	}
	const places = 40
	api := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			block := make([]byte, 64<<10)
			for {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	g := start(t, settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise",
		"KEYGATE_MAX_REQUESTS_PER_KEY": fmt.Sprint(places), "KEYGATE_CLIENT_READ_TIMEOUT": "5s", "KEYGATE_CLIENT_WRITE_TIMEOUT": "5s",
	})
	honest, attacker := g.newKey("honest"), g.newKey("attacker")
	auth := " HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer " + attacker.Secret + "\r\n"
	var headers, bodies []net.Conn
	for i := range crowd {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		text := "GET /x HTTP/1.1\r\nHost: ga"
		switch i % 3 {
		case 0:
			headers = append(headers, conn)
		case 1:
			bodies = append(bodies, conn)
			text = "POST /x" + auth + "Content-Length: 100\r\n\r\nx"
		case 2:
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			text = "GET /endless" + auth + "\r\n"
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		g.wants(http.StatusOK, fmt.Sprint("/", i), honest.Secret)
	}
	statuses := make(map[int]int)
	for _, conn := range bodies {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("a body that stopped got no answer: %v", err)
		}
		if statuses[res.StatusCode]++; res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
			t.Errorf("429 without Retry-After: %v", res.Header)
		}
	}
	if statuses[http.StatusRequestTimeout] == 0 || statuses[http.StatusTooManyRequests] == 0 || len(statuses) != 2 {
		t.Errorf("bodies that stopped were answered %v, want 408 and 429", statuses)
	}
	if n := g.metric("keygate_crowded_keys_refused_total"); n < float64(2*crowd/3-2*places) {
		t.Errorf("%v requests were refused for their key", n)
	}
	eventually(t, "slow readers are cut", func() bool { return g.metric("keygate_open_streams") == 0 })
	for _, conn := range headers {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a header that stopped is waited for without end")
		}
	}
	g.wants(http.StatusOK, "/x", attacker.Secret)
	g.stop()
}
