package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a client that speaks HTTP/2 in clear frame by frame, as no library would.
type frames struct {
	*http2.Framer
	conn net.Conn
	out  *bufio.Writer
	next uint32 // stream
}

func (g *gateway) frames() *frames {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	f := &frames{conn: conn, out: bufio.NewWriter(conn), next: 1}
	f.Framer = http2.NewFramer(f.out, conn)
	_, _ = f.out.WriteString(http2.ClientPreface)
	_ = f.WriteSettings()
	return f
}

// fields encodes a header, name, value, name, value …
func fields(pairs ...string) []byte {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true}) // and so in no table
	}
	return block.Bytes()
}

// open begins a request without a body and returns its stream.
func (f *frames) open(block []byte) (stream uint32, err error) {
	stream = f.next
	f.next += 2
	return stream, f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndStream: true, EndHeaders: true})
}

// openAll is open for a header of any size.
func (f *frames) openAll(block []byte) (stream uint32, err error) {
	const most = 16 << 10 // of a frame
	stream = f.next
	f.next += 2
	first := block[:min(most, len(block))]
	block = block[len(first):]
	err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: true, EndHeaders: len(block) == 0})
	for err == nil && len(block) > 0 {
		piece := block[:min(most, len(block))]
		block = block[len(piece):]
		err = f.WriteContinuation(stream, len(block) == 0, piece)
	}
	return stream, err
}

// ended reads until the connection ends, which it must.
func (f *frames) ended(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, f.conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection goes on")
	}
}

// Floods of frames that cost the client nothing and the server something end their
// connection; the next client is served.
func TestFloodsOfFrames(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_CLIENT_WRITE_TIMEOUT": "5s"})
	k, honest := g.newKey("attacker"), g.newKey("honest")
	get := fields(":method", "GET", ":scheme", "http", ":authority", "gate", ":path", "/x", "authorization", "Bearer "+k.Secret)
	padding := fields("x-padding", strings.Repeat("~", 8<<10))
	for _, flood := range []struct {
		name string
		one  func(f *frames) error
	}{
		{"rapid reset (CVE-2023-44487)", func(f *frames) error {
			stream, err := f.open(get)
			if err != nil {
				return err
			}
			return f.WriteRSTStream(stream, http2.ErrCodeCancel)
		}},
		{"CONTINUATION (CVE-2023-45288)", func(f *frames) error {
			if f.next == 1 {
				f.next = 3
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get})
			}
			return f.WriteContinuation(1, false, padding)
		}},
		{"PING (CVE-2019-9512)", func(f *frames) error { return f.WritePing(false, [8]byte{}) }},
		{"SETTINGS (CVE-2019-9515)", func(f *frames) error { return f.WriteSettings() }},
		{"WINDOW_UPDATE", func(f *frames) error { return f.WriteWindowUpdate(0, 1) }},
		{"PRIORITY", func(f *frames) error { return f.WritePriority(1001, http2.PriorityParam{StreamDep: 3}) }},
		{"of no known type", func(f *frames) error { return f.WriteRawFrame(0x77, 0, 0, nil) }},
	} {
		t.Run(flood.name, func(t *testing.T) {
			f := g.frames()
			var err error
			for n := 0; err == nil && n < 2_000_000; n++ { // nothing of what comes is read
				err = flood.one(f)
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the flood was let in: %v", err)
			}
			f.ended(t)
			g.wants(http.StatusOK, "/x", honest.Secret)
		})
	}
	if n := g.metric(`keygate_client_connections_flooding_total{listener="proxy"}`); n != 4 && n != 5 { // PING reaches this bound or that of net/http first
		t.Errorf("%v connections were taken for floods, not 4 or 5", n)
	}
	g.stop()
}

// Honest clients that learn late of a refusal send a part of their upload into it, with
// no request under way any more. That is no flood.
func TestRefusedUploadsAreNoFlood(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_UPSTREAM": newUpstream(t, nil).URL, "KEYGATE_FAILED_PER_ADDRESS": "off"})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	for range 10 {
		if a, err := try(c, "POST", g.proxy+"/x", "", bytes.NewReader(make([]byte, 16<<20))); err != nil || a.status != http.StatusUnauthorized {
			t.Fatalf("%d %v", a.status, err)
		}
	}
	if n := g.metric(`keygate_client_connections_flooding_total{listener="proxy"}`); n != 0 {
		t.Errorf("%v connections were taken for floods", n)
	}
	g.stop()
}

// Floods of frames that are legal and ask for nothing are not ended while a request is
// under way, which needs a key or a public route: net/http has no bound on them. It acknowledges any number of SETTINGS that came meanwhile with one
// frame and keeps nothing of the others, so that they cost a share of the processor and
// no memory, and everybody else is served.
func TestFloodsThatAreBorne(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k, honest := g.newKey("attacker"), g.newKey("honest")
	post := fields(":method", "POST", ":scheme", "http", ":authority", "gate", ":path", "/x", "authorization", "Bearer "+k.Secret)
	many := 100_000
	if full() {
		many = 1_000_000
	}
	for _, flood := range []struct {
		name string
		one  func(f *frames) error
	}{
		{"SETTINGS (CVE-2019-9515)", func(f *frames) error { return f.WriteSettings() }},
		{"WINDOW_UPDATE", func(f *frames) error { return f.WriteWindowUpdate(0, 1) }},
		{"PRIORITY", func(f *frames) error { return f.WritePriority(1001, http2.PriorityParam{StreamDep: 3}) }},
		{"empty DATA (CVE-2019-9518)", func(f *frames) error { return f.WriteData(1, false, nil) }},
		{"of no known type", func(f *frames) error { return f.WriteRawFrame(0x77, 0, 0, nil) }},
	} {
		t.Run(flood.name, func(t *testing.T) {
			f := g.frames()
			defer f.conn.Close()
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post, EndHeaders: true})
			var before float64
			for n := range many { // nothing of what comes is read
				if err := flood.one(f); err != nil {
					t.Fatalf("after %d frames: %v", n, err)
				}
				if n%(many/10) == 0 {
					g.wants(http.StatusOK, fmt.Sprint("/", n), honest.Secret)
				}
				if n == many/10 {
					before = g.metric("go_memstats_next_gc_bytes")
				}
			}
			// The collector's goal is twice what is held; garbage is not in it.
			if grown := (g.metric("go_memstats_next_gc_bytes") - before) / 2 / (1 << 20); grown > 8 {
				t.Errorf("%d frames hold %.0f MiB", many, grown)
			}
		})
	}
	g.stop()
}

// An answer for which no window is opened, even the shortest refusal without a key, is
// written when the handler has long ended. It waited for as long as the client liked:
// 250 of them a connection, each with all that a request holds. They are reset in the
// client's time, those that net/http gives itself too. An upstream may take longer than
// that.
func TestAnswersWithoutWindow(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			time.Sleep(3 * time.Second)
		}
		_, _ = io.WriteString(w, "hello")
	})
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_CLIENT_WRITE_TIMEOUT": "2s"})
	k := g.newKey("client")
	get := func(path string, more ...string) []byte {
		return fields(append([]string{":method", "GET", ":scheme", "http", ":authority", "gate", ":path", path}, more...)...)
	}
	var large []string // just beyond what is taken, so that it gets an answer
	for n := range 8 {
		large = append(large, fmt.Sprint("x-", n), strings.Repeat("~", 8<<10))
	}
	for _, asked := range []struct {
		name  string
		block []byte
	}{
		{"without a key", get("/x")},
		{"answered by the upstream", get("/x", "authorization", "Bearer "+k.Secret)},
		{"answered late by the upstream", get("/late", "authorization", "Bearer "+k.Secret)},
		{"a header that is too large", get("/x", large...)},
	} {
		t.Run(asked.name, func(t *testing.T) {
			t.Parallel()
			f := g.frames()
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for range 20 {
				if _, err := f.openAll(asked.block); err != nil {
					t.Fatal(err)
				}
			}
			_ = f.out.Flush()
			for reset := 0; reset < 20; {
				switch frame, err := f.ReadFrame(); frame := frame.(type) {
				case *http2.RSTStreamFrame:
					reset++
				case *http2.DataFrame:
					if frame.Length > 0 {
						t.Fatal("data without a window")
					}
				case nil:
					t.Fatalf("%d of 20 were reset: %v", reset, err)
				}
			}
		})
	}
	t.Run("taken", func(t *testing.T) {
		if a := g.wants(http.StatusOK, "/late", k.Secret); a.body != "hello" {
			t.Errorf("a late answer: %q", a.body)
		}
	})
}

// A connection of HTTP/2 on which no request begins is not kept.
func TestConnectionsThatBeginNothing(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL})
	for name, begun := range map[string]string{
		"nothing": "", "half a preface": http2.ClientPreface[:20], "no SETTINGS": http2.ClientPreface,
		"half a frame of SETTINGS": http2.ClientPreface + "\x00\x00\x06\x04\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.proxy, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(conn, begun); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection goes on")
			}
		})
	}
}

// Who resets a request after it was admitted has spent it all the same. Its
// connection goes on: the answer to a reset stream once said "Connection: close",
// upon which net/http takes no new stream, and every client that gives up one of its
// calls lost the connection of all the others.
func TestResetsAreCounted(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 10)
	api := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_POLICY": `
version: 1
plans: { free: { limits: [{ name: minute, requests: 3, per: 1m }] } }
routes: [{ match: "/{rest...}", permission: any }]
`})
	k := g.newKey("resets")
	f := g.frames()
	for range 3 {
		stream, err := f.open(fields(":method", "GET", ":scheme", "http", ":authority", "gate", ":path", "/x", "authorization", "Bearer "+k.Secret))
		if err == nil {
			err = f.out.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-arrived:
		case <-time.After(patience):
			t.Fatal("the request does not arrive")
		}
		_ = f.WriteRSTStream(stream, http2.ErrCodeCancel)
		_ = f.out.Flush()
	}
	g.refused(http.StatusTooManyRequests, "Rate limit exceeded", "/x", k.Secret)
	g.stop()
}
