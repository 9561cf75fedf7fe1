package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// streamingUpstream speaks server-sent events and WebSocket, and gives out endless
// downloads.
func streamingUpstream(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w).Flush
	switch {
	case r.Header.Get("Upgrade") == "websocket":
		echoWebSocket(w)
	case strings.HasSuffix(r.URL.Path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: first\n\n")
		_ = flush()
		<-r.Context().Done()
	case strings.HasSuffix(r.URL.Path, "/download"):
		w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
		block := make([]byte, 64<<10)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	default:
		_, _ = io.WriteString(w, "hello")
	}
}

// echoWebSocket accepts a handshake and sends back what it gets, byte for byte,
// beginning with a greeting; it does not check keys or masks.
func echoWebSocket(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+"\x81\x05hello")
	_, _ = io.Copy(conn, rw.Reader)
}

// socket is the client's end of a WebSocket.
type socket struct {
	net.Conn
	*bufio.Reader
}

func (s *socket) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// webSocket makes a handshake; early is sent in the same packet.
func (g *gate) webSocket(path, secret, early string) *socket {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer "+secret+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"+early); err != nil {
		g.t.Fatal(err)
	}
	s := &socket{conn, bufio.NewReader(conn)}
	line, err := s.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 101 ") {
		g.t.Fatalf("handshake: %q %v", line, err)
	}
	if _, err := textproto.NewReader(s.Reader).ReadMIMEHeader(); err != nil {
		g.t.Fatal(err)
	}
	if opcode, text := s.frame(g.t); opcode != 1 || text != "hello" {
		g.t.Fatalf("greeting: %d %q", opcode, text)
	}
	return s
}

// frame reads a short one.
func (s *socket) frame(t testing.TB) (opcode byte, payload string) {
	t.Helper()
	var header [2]byte
	if _, err := io.ReadFull(s, header[:]); err != nil {
		t.Fatalf("no frame: %v", err)
	}
	body := make([]byte, header[1]&0x7f)
	if _, err := io.ReadFull(s, body); err != nil {
		t.Fatal(err)
	}
	return header[0] & 0xf, string(body)
}

// events opens a stream of them and reads the first.
func (g *gate) events(path, secret string) *bufio.Reader {
	g.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(request(g.t, http.MethodGet, g.url+path, secret, nil))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = res.Body.Close() })
	body := bufio.NewReader(res.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "data: first\n" {
		g.t.Fatalf("%d %q %v", res.StatusCode, line, err)
	}
	return body
}

// What a client sends right behind its handshake, in one packet with it, was lost by
// httputil.ReverseProxy (golang/go#80875).
func TestEarlyWebSocketBytes(t *testing.T) {
	g := newGate(t, gateOptions{policy: streamPolicy})
	g.upstream.answer = streamingUpstream
	_, secret := g.streamKey()
	ws := g.webSocket("/any/ws", secret, "\x81\x05early")
	if _, text := ws.frame(t); text != "early" {
		t.Errorf("the upstream got %q", text)
	}
	if _, err := io.WriteString(ws, "\x81\x04late"); err != nil {
		t.Fatal(err)
	}
	if _, text := ws.frame(t); text != "late" {
		t.Errorf("the upstream got %q", text)
	}
}

// A client that has finished sending still gets what the upstream has to say. Where the
// route had a bound on silence, the connection ended instead.
func TestHalfClosedWebSocket(t *testing.T) {
	for _, timeouts := range []string{"", "timeouts: { idle: 10s }"} {
		u := newUpstream(t)
		u.answer = func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+"\x81\x05hello")
			_, _ = io.Copy(io.Discard, rw.Reader)
			_, _ = io.WriteString(conn, "\x81\x03bye")
		}
		g, secret := front(t, []string{u.URL}, timeouts)
		ws := g.webSocket("/x", secret, "")
		_ = ws.Conn.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(ws); err != nil || string(rest) != "\x81\x03bye" {
			t.Errorf("with %q: %q %v", timeouts, rest, err)
		}
	}
}
