package proxy_test

import (
	"net/http"
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
