package server

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// framed is what a client writes, after the preface.
func framed(write func(f *http2.Framer)) []byte {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	write(f)
	return b.Bytes()
}

func times(n int, write func(f *http2.Framer)) []byte { return bytes.Repeat(framed(write), n) }

// Each kind of frame that asks for nothing may come as often as the bound says, and once
// more after it is too much.
func TestFramesThatAskForNothing(t *testing.T) {
	for name, one := range map[string]func(f *http2.Framer){
		"SETTINGS":         func(f *http2.Framer) { _ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}) },
		"PING":             func(f *http2.Framer) { _ = f.WritePing(false, [8]byte{}) },
		"WINDOW_UPDATE":    func(f *http2.Framer) { _ = f.WriteWindowUpdate(0, 1) },
		"PRIORITY":         func(f *http2.Framer) { _ = f.WritePriority(1, http2.PriorityParam{}) },
		"GOAWAY":           func(f *http2.Framer) { _ = f.WriteGoAway(0, 0, nil) },
		"empty DATA":       func(f *http2.Framer) { _ = f.WriteData(1, false, nil) },
		"padding":          func(f *http2.Framer) { _ = f.WriteDataPadded(1, false, nil, make([]byte, 255)) },
		"RST_STREAM":       func(f *http2.Framer) { _ = f.WriteRSTStream(1, 0) },
		"an unknown frame": func(f *http2.Framer) { _ = f.WriteRawFrame(0x77, 0xff, 1, make([]byte, 300)) },
	} {
		t.Run(name, func(t *testing.T) {
			var m frameMeter
			m.starts(time.Now().Add(time.Hour), 0) // time brings nothing
			if !m.came(times(framesAtOnce, one)) {
				t.Error("cut too soon")
			}
			if m.came(times(1, one)) {
				t.Error("not cut")
			}
		})
	}
}

// What is sent and what is asked for entitles to frames, and so does time.
func TestFramesThatAreEarned(t *testing.T) {
	window := func(f *http2.Framer) { _ = f.WriteWindowUpdate(0, 1) }
	settings := func(f *http2.Framer) { _ = f.WriteSettings() }
	spent := func() *frameMeter {
		m := new(frameMeter)
		m.starts(time.Now().Add(time.Hour), 0)
		m.came(times(framesAtOnce, settings))
		return m
	}
	m := spent()
	m.goes(times(50, func(f *http2.Framer) { _ = f.WriteData(1, false, []byte("x")) })) // 500 bytes
	if !m.came(times(500/sentPerFrame, window)) || m.came(times(1, window)) {
		t.Error("for what was sent, WINDOW_UPDATE may come")
	}
	m = spent()
	m.goes(times(50, func(f *http2.Framer) { _ = f.WritePing(true, [8]byte{}); _ = f.WriteSettingsAck() }))
	if m.came(times(1, window)) {
		t.Error("what is answered to frames entitles to no more of them")
	}
	m = spent()
	if !m.came(times(1, func(f *http2.Framer) { _ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true}) })) ||
		!m.came(times(framesPerRequest, settings)) || m.came(times(1, settings)) {
		t.Error("a request entitles to frames")
	}
	m = &frameMeter{left: -100, since: time.Now()}
	if m.topUp(m.since.Add(900*time.Millisecond)) || !m.topUp(m.since.Add(100*time.Millisecond)) {
		t.Error("time entitles to frames")
	}
	m = spent()
	m.goes(times(1, func(f *http2.Framer) { _ = f.WriteRSTStream(3, http2.ErrCodeStreamClosed) }))
	if m.came(times(1, func(f *http2.Framer) { _ = f.WriteData(3, false, []byte("x")) })) {
		t.Error("what has to be answered with RST_STREAM counts")
	}
}

// A client that does not begin with the preface of HTTP/2 is not metered.
func TestFramesOfAnotherProtocol(t *testing.T) {
	var m frameMeter
	if !m.came([]byte("P")) || !m.came([]byte("UT / HTTP/1.1\r\n\r\n")) || !m.came(make([]byte, 1<<20)) {
		t.Error("HTTP/1.1 was metered")
	}
	if m = (frameMeter{}); !m.came([]byte(http2.ClientPreface[:10])) || !m.came([]byte(http2.ClientPreface[10:])) || !m.on.Load() {
		t.Error("HTTP/2 was not")
	}
}

// In whatever pieces it comes, the frames are found that golang.org/x/net/http2 finds,
// and the meter takes anything.
func FuzzFrames(f *testing.F) {
	f.Add(framed(func(f *http2.Framer) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("x"), EndHeaders: true, PadLength: 7})
		_ = f.WriteDataPadded(1, true, []byte("hello"), make([]byte, 3))
		_ = f.WriteRawFrame(0x77, 0xff, 1<<31-1, make([]byte, 300))
	}), 3)
	f.Add([]byte(http2.ClientPreface), 1)
	f.Fuzz(func(t *testing.T, whole []byte, piece int) {
		if piece < 1 {
			return
		}
		var want, got []frameHeader
		for rest := bytes.NewReader(whole); ; {
			h, err := http2.ReadFrameHeader(rest)
			if err != nil {
				break
			}
			want = append(want, frameHeader{int(h.Length), h.Type, h.Flags})
			_, _ = rest.Seek(int64(h.Length), io.SeekCurrent)
		}
		var s frameScanner
		var m frameMeter
		for p := range slices.Chunk(whole, piece) {
			for f, rest, found := s.next(p); found; f, rest, found = s.next(rest) {
				got = append(got, f)
			}
			m.goes(p)
			m.came(p)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("found %+v, want %+v", got, want)
		}
	})
}
