package proxy_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

const leavePolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
plans: { free: { limits: [] } }
routes:
  - { match: "/any/{rest...}", permission: any }
  - { match: "/public/{rest...}", public: { per_address: "100/1s" } }
`

const stopReason = "It was cut while it was under way. keygate stops, and the time to end by itself was over."

// What was still under way at the end of the drain was cut, and its line in the log
// did not say by whom, or there was none. WebSockets of public routes were not told.
func TestDismissedStreamsSayWhy(t *testing.T) {
	g := newGate(t, gateOptions{policy: leavePolicy})
	arrived := make(chan struct{}, 1)
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/hold") {
			arrived <- struct{}{}
			<-r.Context().Done()
			return
		}
		streamingUpstream(w, r)
	}
	_, secret := g.key(keys.NewKey{})
	sockets := []*socket{g.webSocket("/any/ws", secret, ""), g.webSocket("/public/ws", "", "")}
	g.events("/any/events", secret)
	g.events("/public/events", "")
	hold := request(t, http.MethodGet, g.url+"/any/hold", secret, nil)
	go func() {
		if res, err := http.DefaultTransport.RoundTrip(hold); err == nil {
			_ = res.Body.Close()
		}
	}()
	<-arrived
	g.get("GET", "/any/x", secret) // which ends by itself
	began := time.Now()
	for _, s := range sockets {
		go func() {
			var header [2]byte
			_, _ = io.ReadFull(s, header[:])
			payload := make([]byte, header[1]&0x7f)
			_, _ = io.ReadFull(s, payload)
			if header[0]&0xf != 8 || len(payload) < 2 || binary.BigEndian.Uint16(payload) != 1001 {
				t.Errorf("WebSocket: %v %q", header, payload)
			}
			_, _ = io.WriteString(s, "\x88\x82\x00\x00\x00\x00\x03\xe9")
		}()
	}
	g.proxy.Dismiss(g.server.CloseClientConnections)
	if took := time.Since(began); took > 10*time.Second { // of this, httptest's server may take five
		t.Errorf("it took %v", took)
	}
	reasons := make(map[string]string)
	for _, line := range g.logs.FilterMessage("request").All() {
		fields := line.ContextMap()
		reasons[fmt.Sprint(fields["url.path"], " ", fields["http.response.status_code"])] = fmt.Sprint(fields["reason"])
		if fields["error"] == "the client did not take the answer in time" {
			t.Errorf("blamed on the client: %v", fields)
		}
	}
	for what, want := range map[string]string{
		"/any/ws 101": stopReason, "/public/ws 101": stopReason, "/any/events 200": stopReason, "/public/events 200": stopReason,
		"/any/hold 499": stopReason, "/any/x 200": "<nil>",
	} {
		if reasons[what] != want {
			t.Errorf("%s: %q", what, reasons[what])
		}
		delete(reasons, what)
	}
	if len(reasons) > 0 {
		t.Errorf("and there is %v", reasons)
	}
	if n := g.metric(`keygate_slow_clients_cut_total{part="answer"}`); n != 0 {
		t.Errorf("%v clients are counted as slow", n)
	}
}

// A request whose client was silent in the middle of its body was cut two seconds
// after its key was revoked, for so long was the client waited for, and got no answer:
// it had a second for that. And its line in the log had the key's id twice, which is
// no good JSON: what reads it may keep either, or refuse it.
func TestRevokedInTheMiddleOfABody(t *testing.T) {
	g := newGate(t, gateOptions{})
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	k, secret := g.key(keys.NewKey{Plan: "tiny"})
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST /any/x HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer %s\r\nContent-Length: 100000\r\n\r\nbegun", secret)
	waitFor(t, func() bool { _, _, n := g.upstream.seen(); return n == 1 })
	if _, err := g.service.RevokeKey(t.Context(), keys.System, k.ID); err != nil {
		t.Fatal(err)
	}
	g.proxy.CheckStreams(t.Context())
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusUnauthorized || res.Header.Get("RateLimit") != "" {
		t.Errorf("it was answered %v %v", res, err)
	}
	waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == 1 })
	there := make(map[string]int)
	for _, f := range g.logs.FilterMessage("request").All()[0].Context {
		there[f.Key]++
	}
	for name, n := range there {
		if n > 1 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
	if there["key_id"] != 1 {
		t.Errorf("key_id is there %d times", there["key_id"])
	}
}
