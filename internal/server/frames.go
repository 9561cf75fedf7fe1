package server

import (
	"encoding/binary"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// What a client of HTTP/2 may send of frames that are legal and ask for nothing:
// SETTINGS, PRIORITY, PING, WINDOW_UPDATE, unknown types, DATA without data, and
// whatever has to be answered with RST_STREAM. net/http reads them for as long as they
// come, and answers some, at no cost to whoever sends them (CVE-2019-9512, -9515,
// -9518). Envoy bounds the same kinds; that a request, and what is sent in an answer,
// entitle to some is taken from it.
const (
	framesAtOnce     = 10_000
	framesPerSecond  = 100 // so that a stream may live for ever
	framesPerRequest = 100

	// Clients acknowledge each DATA frame with two WINDOW_UPDATEs, and measure their
	// connection with PINGs while they receive. The shortest DATA frame that holds
	// anything has ten bytes.
	sentPerFrame = 4
)

// frameHeader is RFC 9113, section 4.1, without the stream.
type frameHeader struct {
	length int
	kind   http2.FrameType
	flags  http2.Flags
}

// frameHeaderBytes is the length of a frame's header.
const frameHeaderBytes = 9

// frameScanner finds the headers of frames in what passes, piece by piece.
type frameScanner struct {
	skip   int // bytes of the payload under way
	header [frameHeaderBytes]byte
	have   int // of header
}

// next finds the next frame that begins in p, and the rest behind its header; not
// found where p ends before that does.
func (s *frameScanner) next(p []byte) (f frameHeader, rest []byte, found bool) {
	skipped := min(s.skip, len(p))
	s.skip -= skipped
	p = p[skipped:]
	n := copy(s.header[s.have:], p)
	s.have += n
	if s.have < frameHeaderBytes {
		return f, nil, false
	}
	s.have = 0
	f = frameHeader{
		length: int(binary.BigEndian.Uint32(s.header[:]) >> 8),
		kind:   http2.FrameType(s.header[3]),
		flags:  http2.Flags(s.header[4]),
	}
	s.skip = f.length
	return f, p[n:], true
}

// frameMeter counts the frames of a connection in both directions. What comes is read by
// one goroutine at a time, and so is what goes.
type frameMeter struct {
	on      atomic.Bool // the connection speaks HTTP/2
	preface int         // how much of the client's preface came; -1: it speaks something else

	in, out frameScanner
	data    atomic.Int64 // bytes of DATA frames that were sent
	resets  atomic.Int64 // RST_STREAM frames that were sent, and are not charged yet

	left   int       // frames that may still come
	since  time.Time // when left was last topped up
	opened int       // HEADERS that came without RST_STREAM so far
	paid   int64     // of data, by the frames that it entitled to
}

// starts tells that the connection speaks HTTP/2, and that these bytes of the preface
// are still to come.
func (m *frameMeter) starts(now time.Time, preface int) {
	m.in.skip = preface
	m.left, m.since = framesAtOnce, now
	m.on.Store(true)
}

// came takes what was read from the client, and tells whether that is bearable. Whether
// the client speaks HTTP/2 is what its first bytes say.
func (m *frameMeter) came(p []byte) bool {
	if !m.on.Load() {
		if m.preface < 0 || len(p) == 0 {
			return true
		}
		missing := http2.ClientPreface[m.preface:]
		n := min(len(p), len(missing))
		if !strings.HasPrefix(missing, string(p[:n])) {
			m.preface = -1
			return true
		}
		m.preface += n
		if m.preface < len(http2.ClientPreface) {
			return true
		}
		m.starts(time.Now(), 0)
		p = p[n:]
	}
	for f, rest, found := m.in.next(p); found; f, rest, found = m.in.next(rest) {
		m.charge(f)
	}
	if m.resets.Load() > 0 {
		m.left -= int(m.resets.Swap(0))
	}
	return m.left >= 0 || m.topUp(time.Now())
}

// charge accounts for a frame of the client.
func (m *frameMeter) charge(f frameHeader) {
	switch f.kind {
	case http2.FrameHeaders:
		m.opened++
		m.left = min(m.left+framesPerRequest, framesAtOnce)
		return
	case http2.FrameContinuation: // net/http bounds the whole header
		return
	case http2.FrameRSTStream: // package proxy bounds those of requests
		if m.opened > 0 {
			m.opened--
			return
		}
	case http2.FrameData:
		most := 0 // of padding, its length included
		if f.flags.Has(http2.FlagDataPadded) {
			most = 1 + 255
		}
		if f.length > most || f.flags.Has(http2.FlagDataEndStream) {
			return
		}
	case http2.FrameWindowUpdate, http2.FramePing:
		if m.paid+sentPerFrame <= m.data.Load() {
			m.paid += sentPerFrame
			return
		}
	}
	m.left--
}

// topUp adds what time has brought, and tells whether that was enough.
func (m *frameMeter) topUp(now time.Time) bool {
	brought := int(min(now.Sub(m.since).Seconds()*framesPerSecond, framesAtOnce))
	m.left = min(m.left+brought, framesAtOnce)
	m.since = now
	return m.left >= 0
}

// goes takes what is written to the client.
func (m *frameMeter) goes(p []byte) {
	if !m.on.Load() {
		return
	}
	for f, rest, found := m.out.next(p); found; f, rest, found = m.out.next(rest) {
		switch f.kind {
		case http2.FrameData:
			m.data.Add(int64(frameHeaderBytes + f.length))
		case http2.FrameRSTStream:
			m.resets.Add(1)
		}
	}
}
