package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"keygate/internal/keys"
)

// A client of HTTP/1.0 takes an early hint for the answer, and has no way to change
// to another protocol (RFC 9110, sections 15.2 and 7.8): neither is for it.
func TestClientOfHTTP10(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echoWebSocket(w)
			return
		}
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
	}
	_, secret := g.key(keys.NewKey{})
	head := "GET /any/x HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n"
	if res := g.raw(head + "\r\n"); res.StatusCode != http.StatusAccepted {
		t.Errorf("an answer with an early hint before it: %s", res.Status)
	}
	if res := g.raw(head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); res.StatusCode != http.StatusAccepted {
		t.Errorf("a handshake of WebSocket: %s", res.Status)
	}
}

// What stands behind a # in a query one server reads and another does not: nothing
// that is authorised may be named there.
func TestBindingBehindAHash(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	for target, status := range map[string]int{
		"/query?org=default":        200,
		"/query?org=default&x=%23y": 200,
		"/query?x=1#&org=default":   400,
		"/query?org=default#":       400,
		"/any/x?x=1#y":              200, // which is nobody's matter
	} {
		if res := g.raw("GET " + target + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n\r\n"); res.StatusCode != status {
			t.Errorf("%s: %d, want %d", target, res.StatusCode, status)
		}
	}
}

// A handshake of WebSocket is a GET without a body (RFC 6455, section 4.1). One with a
// body that was still being read when the upstream agreed had two readers of the
// client's connection: what was body and what was WebSocket was chance.
func TestHandshakeWithABody(t *testing.T) {
	s := newRawServer(t, func(c *rawConn) {
		for {
			r, err := http.ReadRequest(c.in)
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") != "" {
				c.answer("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = io.Copy(io.Discard, c.in)
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			c.answer(good)
		}
	})
	g, secret := front(t, []string{"http://" + s.addr()})
	for _, method := range []string{"GET", "POST"} {
		head := method + " /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
		if res := g.raw(head + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", method, res.Status)
		}
	}
}
