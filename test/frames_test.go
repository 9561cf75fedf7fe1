package test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// meteredGate is a gate with and without TLS in front of an API that reads slowly what
// it is sent, and of which /events are many and short.
func meteredGate(t *testing.T) (*gateway, string) {
	t.Helper()
	api := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/events" {
			for range 20_000 {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	files := newCertificate(t, 1)
	g := start(t, settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise",
		"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
	})
	return g, g.newKey("client").Secret
}

// Frames that are legal and ask for nothing are counted in what a connection carries,
// also over TLS, also while a request is under way and its answers are read: net/http
// has no bound on them. It read them for as long as they came, and answered some.
func TestFloodsDuringARequest(t *testing.T) {
	t.Parallel()
	g, secret := meteredGate(t)
	honest := g.newKey("honest")
	post := fields(":method", "POST", ":scheme", "http", ":authority", "gate", ":path", "/x", "authorization", "Bearer "+secret)
	floods := []struct {
		name string
		one  func(f *frames) error
	}{
		{"SETTINGS (CVE-2019-9515)", func(f *frames) error { return f.WriteSettings() }},
		{"SETTINGS acknowledged", func(f *frames) error { return f.WriteSettingsAck() }},
		{"PING (CVE-2019-9512)", func(f *frames) error { return f.WritePing(false, [8]byte{}) }},
		{"PING acknowledged", func(f *frames) error { return f.WritePing(true, [8]byte{}) }},
		{"WINDOW_UPDATE", func(f *frames) error { return f.WriteWindowUpdate(0, 1) }},
		{"PRIORITY", func(f *frames) error { return f.WritePriority(1001, http2.PriorityParam{StreamDep: 3}) }},
		{"empty DATA (CVE-2019-9518)", func(f *frames) error { return f.WriteData(1, false, nil) }},
		{"DATA that is padding", func(f *frames) error { return f.WriteDataPadded(1, false, nil, make([]byte, 255)) }},
		{"DATA of a request that has ended", func(f *frames) error { return f.WriteData(3, false, []byte("x")) }},
		{"of no known type", func(f *frames) error { return f.WriteRawFrame(0x77, 0, 0, nil) }},
	}
	for listener, open := range map[string]func() *frames{"proxy": g.frames, "proxy, HTTPS": g.secureFrames} {
		for _, flood := range floods {
			t.Run(listener+"/"+flood.name, func(t *testing.T) {
				f := open()
				end := make(chan error, 1)
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: post, EndHeaders: true})
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: fields(":method", "GET", ":scheme", "http", ":authority", "gate", ":path", "/x"), EndHeaders: true, EndStream: true})
				_ = f.out.Flush()
				go func() {
					_, err := io.Copy(io.Discard, f.conn)
					end <- err
				}()
				var err error
				for n := 0; err == nil && n < 1_000_000; n++ {
					err = flood.one(f)
				}
				if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the flood was let in: %v", err)
				}
				if err := <-end; errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection goes on")
				}
				g.wants(http.StatusOK, "/x", honest.Secret)
			})
		}
		metric := `keygate_client_connections_flooding_total{listener="` + listener + `"}`
		if n := g.metric(metric); n < float64(len(floods)-2) { // net/http bounds the answers that wait, of which some floods cause many
			t.Errorf("%s: %v connections were taken for floods, of %d", listener, n, len(floods))
		}
	}
	g.stop()
}

// Nobody who uses what was sent to them is taken for a flood: some clients acknowledge
// each piece of an answer with two WINDOW_UPDATEs as soon as it is there, and ask how
// long the way is with a PING; others send an upload byte by byte.
func TestBusyClientsAreNoFlood(t *testing.T) {
	t.Parallel()
	g, secret := meteredGate(t)
	for name, open := range map[string]func() *frames{"in clear": g.frames, "over TLS": g.secureFrames} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := open()
			head := func(method, path string) []byte {
				return fields(":method", method, ":scheme", "http", ":authority", "gate", ":path", path, "authorization", "Bearer "+secret)
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head("GET", "/events"), EndHeaders: true, EndStream: true})
			got := 0
			for ended := false; !ended; {
				_ = f.out.Flush()
				switch frame, err := f.ReadFrame(); frame := frame.(type) {
				case *http2.DataFrame:
					got += len(frame.Data())
					ended = frame.StreamEnded()
					_ = f.WriteWindowUpdate(0, max(1, frame.Length))
					_ = f.WriteWindowUpdate(1, max(1, frame.Length))
					_ = f.WritePing(false, [8]byte{})
				case nil:
					t.Fatalf("after %d events: %v", got, err)
				}
			}
			if got != 20_000 {
				t.Errorf("%d events", got)
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: head("POST", "/x"), EndHeaders: true})
			for range 50_000 {
				_ = f.WriteData(3, false, []byte("x"))
			}
			_ = f.WriteData(3, true, nil)
			_ = f.out.Flush()
			for ended := false; !ended; {
				switch frame, err := f.ReadFrame(); frame := frame.(type) {
				case *http2.HeadersFrame:
					ended = frame.StreamEnded()
				case *http2.DataFrame:
					ended = frame.StreamEnded()
				case nil:
					t.Fatalf("the upload: %v", err)
				}
			}
		})
	}
}

// The management listener has the same bounds: members of organizations may reach it.
func TestFloodOfTheManagementListener(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_UPSTREAM": newUpstream(t, nil).URL})
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.management, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	f := g.framesOver(conn)
	for n := 0; err == nil && n < 1_000_000; n++ {
		err = f.WriteSettings()
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the flood was let in: %v", err)
	}
	f.ended(t)
	if n := g.metric(`keygate_client_connections_flooding_total{listener="management"}`); n != 1 {
		t.Errorf("%v connections were taken for floods", n)
	}
	g.stop()
}
