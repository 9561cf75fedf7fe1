package proxy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/keys"
)

// wayOut is something by which a key ends to be good for a stream.
type wayOut struct {
	name   string
	reason string // in the metric
	do     func(g *gate, k keys.Key) error
}

func waysOut() []wayOut {
	return []wayOut{
		{"revoked", "key", func(g *gate, k keys.Key) error {
			_, err := g.service.RevokeKey(g.t.Context(), keys.System, k.ID)
			return err
		}},
		{"paused", "key", func(g *gate, k keys.Key) error {
			_, err := g.service.PauseKey(g.t.Context(), keys.System, k.ID)
			return err
		}},
		{"deleted", "key", func(g *gate, k keys.Key) error { return g.service.DeleteKey(g.t.Context(), keys.System, k.ID) }},
		{"rotated", "key", func(g *gate, k keys.Key) error {
			_, _, err := g.service.RotateKey(g.t.Context(), keys.System, k.ID, keys.Rotation{})
			return err
		}},
		{"rotated with overlap", "key", func(g *gate, k keys.Key) error {
			_, _, err := g.service.RotateKey(g.t.Context(), keys.System, k.ID, keys.Rotation{Overlap: time.Hour})
			g.stillOpen()
			g.wait(time.Hour)
			return err
		}},
		{"expired", "key", func(g *gate, _ keys.Key) error { g.wait(30 * 24 * time.Hour); return nil }},
		{"owner lost the role", "access", func(g *gate, k keys.Key) error {
			grants, err := g.store.Grants(g.t.Context(), k.Account)
			if err != nil || len(grants) != 1 {
				return fmt.Errorf("%d grants: %w", len(grants), err)
			}
			return g.service.RemoveGrant(g.t.Context(), keys.System, k.Account, grants[0].ID)
		}},
	}
}

// stillOpen looks at the streams, which must all be left as they are.
func (g *gate) stillOpen() {
	g.t.Helper()
	before := g.cuts()
	g.proxy.CheckStreams(g.t.Context())
	if n := g.cuts(); n != before {
		g.t.Errorf("%v streams were cut", n-before)
	}
}

func (g *gate) cuts() (n float64) {
	for _, reason := range []string{"key", "access", "unavailable"} {
		n += g.metric(fmt.Sprintf("keygate_streams_cut_total{reason=%q}", reason))
	}
	return n
}

const streamPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions: { "orders:read": { group: Read } }
plans: { free: { limits: [] } }
routes: [{ match: "/any/{rest...}", permission: "orders:read" }]
`

// streamKey is one of an account of its own, for a month.
func (g *gate) streamKey() (keys.Key, string) {
	g.t.Helper()
	account, err := g.service.CreateAccount(g.t.Context(), keys.System, keys.NewAccount{Name: "streamer", Organization: keys.DefaultOrganization, NewGrant: keys.NewGrant{Role: keys.RoleOwner}})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.key(keys.NewKey{Account: account.Account.ID, Permissions: []string{"orders:read"}, Expires: "30d"})
}

// Whatever ends a key ends what is open under it: a WebSocket with 1008, everything
// else as a broken answer, never as a complete one. The streams of another key stay.
func TestStreamsAreCut(t *testing.T) {
	for _, way := range waysOut() {
		t.Run(way.name, func(t *testing.T) {
			g := newGate(t, gateOptions{policy: streamPolicy})
			g.upstream.answer = streamingUpstream
			k, secret := g.streamKey()
			_, other := g.key(keys.NewKey{Name: "stays", Permissions: []string{"orders:read"}})
			stays, ws, events := g.webSocket("/any/ws", other, ""), g.webSocket("/any/ws", secret, ""), g.events("/any/events", secret)
			g.wait(2 * time.Second)
			g.stillOpen()
			if n := g.metric("keygate_open_streams{}"); n != 3 {
				t.Errorf("%v streams are open", n)
			}
			if err := way.do(g, k); err != nil {
				t.Fatal(err)
			}
			g.proxy.CheckStreams(t.Context())
			if opcode, payload := ws.frame(t); opcode != 8 || len(payload) < 2 || binary.BigEndian.Uint16([]byte(payload)) != 1008 {
				t.Errorf("WebSocket: %d %q", opcode, payload)
			}
			_, _ = io.WriteString(ws, "\x88\x82\x00\x00\x00\x00\x03\xf0")
			if rest, err := io.ReadAll(ws); err != nil || len(rest) > 0 {
				t.Errorf("after the goodbye: %q %v", rest, err)
			}
			if _, err := io.ReadAll(events); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("events: %v", err)
			}
			if _, err := io.WriteString(stays, "\x81\x03abc"); err != nil {
				t.Fatal(err)
			}
			if _, text := stays.frame(t); text != "abc" {
				t.Errorf("the other key's stream says %q", text)
			}
			_ = stays.Close()
			for range 2000 {
				if g.cuts() == 2 {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if n := g.metric(fmt.Sprintf("keygate_streams_cut_total{reason=%q}", way.reason)); n != 2 {
				t.Errorf("%v streams are counted as cut for %q", n, way.reason)
			}
		})
	}
}

// A change feed that says nothing cuts no stream: each one's key is asked of the store.
// If that is away as well a stream goes on for a minute.
func TestSilentFeedCutsNothing(t *testing.T) {
	g := newGate(t, gateOptions{policy: streamPolicy, fresh: time.Second})
	g.upstream.answer = streamingUpstream
	_, secret := g.streamKey()
	ws, events := g.webSocket("/any/ws", secret, ""), g.events("/any/events", secret)
	for range 120 {
		g.wait(time.Second)
		g.stillOpen()
	}
	if err := g.store.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		g.wait(time.Second)
		g.stillOpen()
	}
	if _, err := io.WriteString(ws, "\x81\x03abc"); err != nil {
		t.Fatal(err)
	}
	if _, text := ws.frame(t); text != "abc" {
		t.Errorf("after a minute without the store the WebSocket says %q", text)
	}
	g.wait(time.Second)
	g.proxy.CheckStreams(t.Context())
	if opcode, _ := ws.frame(t); opcode != 8 {
		t.Errorf("the WebSocket got %d, not a Close frame", opcode)
	}
	if _, err := io.ReadAll(events); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("events: %v", err)
	}
	_ = ws.Conn.Close()
	waitFor(t, func() bool { return g.metric(`keygate_streams_cut_total{reason="unavailable"}`) == 2 })
}

// A reader that takes nothing of a long answer cannot keep its stream by that: the
// gate waits in a write then, not in a read.
func TestDownloadOfASlowReaderIsCut(t *testing.T) {
	g := newGate(t, gateOptions{policy: streamPolicy})
	g.upstream.answer = streamingUpstream
	k, secret := g.streamKey()
	res, err := http.DefaultTransport.RoundTrip(request(t, http.MethodGet, g.url+"/any/download", secret, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := g.service.RevokeKey(t.Context(), keys.System, k.ID); err != nil {
		t.Fatal(err)
	}
	g.proxy.CheckStreams(t.Context())
	for range 2000 {
		if g.cuts() == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if n := g.cuts(); n != 1 {
		t.Fatalf("%v streams were cut", n)
	}
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("the download ends as if it were complete")
	}
}

// Streams outlive a reload, also one that takes away their route: what was admitted
// under a policy goes on under it. A change of the key is judged under it too.
func TestStreamsSurviveAReload(t *testing.T) {
	g := newGate(t, gateOptions{policy: streamPolicy})
	g.upstream.answer = streamingUpstream
	k, secret := g.streamKey()
	ws := g.webSocket("/any/ws", secret, "")
	g.setPolicy(strings.ReplaceAll(strings.ReplaceAll(streamPolicy, "/any/", "/other/"), "UPSTREAM", g.upstream.URL))
	if a := g.get("GET", "/any/x", secret); a.StatusCode != http.StatusNotFound {
		t.Fatalf("after the reload: %d", a.StatusCode)
	}
	g.wait(3 * time.Hour)
	g.stillOpen()
	name := "renamed"
	if _, err := g.service.EditKey(t.Context(), keys.System, k.ID, keys.KeyEdit{Name: &name}); err != nil {
		t.Fatal(err)
	}
	g.stillOpen()
	if _, err := io.WriteString(ws, "\x81\x03abc"); err != nil {
		t.Fatal(err)
	}
	if _, text := ws.frame(t); text != "abc" {
		t.Errorf("it says %q", text)
	}
	if _, err := g.service.PauseKey(t.Context(), keys.System, k.ID); err != nil {
		t.Fatal(err)
	}
	g.proxy.CheckStreams(t.Context())
	if opcode, _ := ws.frame(t); opcode != 8 {
		t.Errorf("paused under another policy than the one in force: opcode %d", opcode)
	}
}

// Requests come and go while they are looked at and their keys change.
func TestStreamsUnderLoad(t *testing.T) {
	g := newGate(t, gateOptions{policy: streamPolicy})
	g.upstream.answer = streamingUpstream
	k, secret := g.streamKey()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 100 {
				if a := g.get("GET", "/any/x", secret); a.StatusCode != http.StatusOK {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			if n := g.cuts(); n != 0 {
				t.Errorf("%v requests were cut", n)
			}
			g.proxy.CheckStreams(t.Context())
			if n := g.metric("keygate_open_streams{}"); n != 0 {
				t.Errorf("%v streams are left", n)
			}
			return
		default:
		}
		name := fmt.Sprint("renamed ", i%2)
		if _, err := g.service.EditKey(t.Context(), keys.System, k.ID, keys.KeyEdit{Name: &name}); err != nil {
			t.Error(err)
		}
		g.proxy.CheckStreams(t.Context())
	}
}
