package proxy_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

// Trailers go both ways; a client's cannot say who it is any more than its header.
func TestTrailers(t *testing.T) {
	g := newGate(t, gateOptions{})
	got := make(chan http.Header, 1)
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer.Clone()
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "answer")
		w.Header().Set("X-Sum", "42")
	}
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		r := request(t, "POST", url+"/any/x", secret, io.MultiReader(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Mine": {"kept"}, "X-Keygate-Key-Id": {"forged"}, "X_keygate_scopes": {"forged"}, "X-Forwarded-For": {"203.0.113.9"}}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "answer" || res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%q %v, trailers %v", body, err, res.Trailer)
		}
		if trailer := <-got; len(trailer) != 1 || trailer.Get("X-Mine") != "kept" {
			t.Errorf("the upstream got the trailers %v", trailer)
		}
	})
}

// Early hints reach the client before the answer, which is the only one that counts.
func TestEarlyHints(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
	}
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		var hints []string
		r := request(t, "GET", url+"/any/x", secret, nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, http.StatusText(code)+" "+h.Get("Link"))
				return nil
			},
		}))
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusAccepted || len(hints) != 1 || hints[0] != "Early Hints </style.css>; rel=preload" {
			t.Errorf("%d, hints %q", res.StatusCode, hints)
		}
	})
}

// Who asks first whether to send is invited when the upstream wants the body, and not
// where the gate refuses. One invitation is enough, however often the upstream invites:
// net/http gave its own, and ReverseProxy passed the upstream's on when that came later.
func TestContinue(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusContinue)
		w.WriteHeader(http.StatusContinue)
		readsAll(w, r)
	}
	_, secret := g.key(keys.NewKey{})
	for secret, want := range map[string]string{secret: "HTTP/1.1 100 Continue\r\n", "kg_live_nothing": "HTTP/1.1 401 Unauthorized\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(conn, "POST /any/x HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer "+secret+"\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		in := bufio.NewReader(conn)
		if line, err := in.ReadString('\n'); err != nil || line != want {
			t.Errorf("%q %v, want %q", line, err, want)
			continue
		}
		if want[9] != '1' {
			continue
		}
		_, _ = in.ReadString('\n')
		_, _ = io.WriteString(conn, "hello")
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(body) != "hello" {
			t.Errorf("after the invitation: %d %q %v", res.StatusCode, body, err)
		}
	}
}

// The answer to HEAD says how long the body would be, and has none.
func TestHead(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("Content-Length", "1234")
	}
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		for range 2 { // the second over the same connection
			res, err := client.Do(request(t, "HEAD", url+"/any/x", secret, nil))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || len(body) > 0 || res.ContentLength != 1234 || res.Header.Get("X-Method") != "HEAD" {
				t.Errorf("%d %q %v, length %d", res.StatusCode, body, err, res.ContentLength)
			}
		}
	})
}

// An event is with the client before the next one exists.
func TestEventsAreFlushed(t *testing.T) {
	g := newGate(t, gateOptions{})
	next := make(chan struct{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	}
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		res, err := client.Do(request(t, "GET", url+"/any/events", secret, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		event := make([]byte, len("data: x\n\n"))
		for range 3 {
			if _, err := io.ReadFull(res.Body, event); err != nil {
				t.Fatal("an event was kept back: ", err)
			}
			next <- struct{}{}
		}
		if _, err := res.Body.Read(event); err != io.EOF {
			t.Errorf("after the last event: %v", err)
		}
	})
}

// WebSocket over HTTPS: its handshake is HTTP/1.1, which the client has to choose.
func TestWebSocketOverTLS(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = streamingUpstream
	_, secret := g.key(keys.NewKey{})
	server := httptest.NewTLSServer(g.proxy)
	t.Cleanup(server.Close)
	conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(conn, "GET /any/socket HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer "+secret+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	s := &socket{conn, bufio.NewReader(conn)}
	if line, err := s.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 101 ") {
		t.Fatalf("handshake: %q %v", line, err)
	}
	if _, err := textproto.NewReader(s.Reader).ReadMIMEHeader(); err != nil {
		t.Fatal(err)
	}
	if _, text := s.frame(t); text != "hello" {
		t.Errorf("greeting %q", text)
	}
	_, _ = io.WriteString(conn, "\x81\x04echo") // the upstream does not look for a mask
	if opcode, text := s.frame(t); opcode != 1 || text != "echo" {
		t.Errorf("echo: %d %q", opcode, text)
	}
}
