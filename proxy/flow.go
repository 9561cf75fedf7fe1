package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// shortBody is up to which length, in bytes, a body is no stream: it is in some
// buffer before anybody could cut it.
const shortBody = 64 << 10

// errCut is what reading an answer gives that was cut.
var errCut = errors.New("the request was cut")

// follow makes an answer that may flow for long one that can be cut.
func (x *exchange) follow(res *http.Response) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		if conn, ok := res.Body.(io.ReadWriteCloser); ok {
			t := &tunnel{conn: conn, answered: make(chan struct{})}
			res.Body = t
			x.flows(t)
		}
		return
	}
	if res.ContentLength >= 0 && res.ContentLength <= shortBody {
		return
	}
	// Not a part of the exchange: the upstream's transport may hold on to it.
	a := &answerFlow{ReadCloser: res.Body, res: res, grpc: x.r.ProtoMajor == 2 && isGRPC(res.Header)}
	res.Body = a
	x.flows(a)
}

// answerFlow is the body of an answer. One of gRPC that stands between two messages
// ends with a status, all others are broken off.
type answerFlow struct {
	io.ReadCloser
	res      *http.Response
	grpc     bool
	messages grpcFrames
	cut      atomic.Pointer[goodbye] // nil: it was not
}

func (a *answerFlow) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.grpc {
		a.messages.pass(p[:n])
	}
	cut := a.cut.Load()
	if cut == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	if a.grpc && a.messages.between() {
		a.res.Trailer = http.Header{"Grpc-Status": {cut.status}, "Grpc-Message": {cut.message}}
		return n, io.EOF
	}
	if err == nil && a.grpc { // the rest of a message that is there already
		return n, nil
	}
	return n, errCut
}

func (a *answerFlow) end(why *goodbye) { a.cut.CompareAndSwap(nil, why) }

func (a *answerFlow) saysFarewell() bool { return a.grpc }

// tunnel is a connection to the upstream that was taken over by WebSocket. All that
// goes to the client comes through Read, so that it knows where frames end.
type tunnel struct {
	conn     io.ReadWriteCloser
	frames   webSocketFrames
	cut      atomic.Pointer[goodbye] // nil: it was not
	said     bool                    // goodbye
	heard    bool                    // the client's
	answered chan struct{}           // closed with heard
}

func (t *tunnel) Read(p []byte) (int, error) {
	if t.said {
		wait := time.NewTimer(farewell)
		defer wait.Stop()
		select {
		case <-t.answered:
		case <-wait.C:
		}
		return 0, errCut
	}
	n, err := t.conn.Read(p)
	t.frames.pass(p[:n])
	cut := t.cut.Load()
	if cut == nil || errors.Is(err, io.EOF) || n > 0 {
		return n, err
	}
	if !t.frames.between() || len(p) < len(cut.frame) {
		return 0, errCut
	}
	t.said = true
	return copy(p, cut.frame), nil
}

// Write passes on what the client sends; after the cut that is for nobody but the
// tunnel, which waits for the client's goodbye.
func (t *tunnel) Write(p []byte) (int, error) {
	if t.cut.Load() == nil {
		return t.conn.Write(p)
	}
	if !t.heard {
		t.heard = true
		close(t.answered)
	}
	return len(p), nil
}

// CloseWrite passes on that the client has finished sending.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.conn.(interface{ CloseWrite() error }); ok && t.cut.Load() == nil {
		return half.CloseWrite()
	}
	return errCut
}

// Close implements io.Closer.
func (t *tunnel) Close() error { return t.conn.Close() }

func (t *tunnel) end(why *goodbye) { t.cut.CompareAndSwap(nil, why) }

func (t *tunnel) saysFarewell() bool { return true }

// goodbye is what clients are told whose streams are cut.
type goodbye struct {
	frame           string // of WebSocket: Close, unmasked (RFC 6455, sections 5.5.1 and 7.4.1)
	status, message string // of gRPC
}

var (
	// noLonger has the status 1008, "policy violation".
	noLonger = &goodbye{"\x88\x1b\x03\xf0API key no longer allowed", grpcUnauthenticated, "the API key may no longer be used for this"}
	// stopping has the status 1001, "going away". Clients may connect again at once.
	stopping = &goodbye{"\x88\x19\x03\xe9the gateway is stopping", grpcUnavailable, "the gateway is stopping"}
)

// webSocketFrames follows frames (RFC 6455, section 5.2) to know where they end.
type webSocketFrames struct {
	header [14]byte
	have   int    // of the header
	left   uint64 // of the payload
}

// between reports whether the last byte was the last of a frame.
func (f *webSocketFrames) between() bool { return f.have == 0 && f.left == 0 }

func (f *webSocketFrames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have >= 2 && f.have == f.size() {
			f.left = f.length()
			f.have = 0
		}
	}
}

// size is the length of the header, of which two bytes are there.
func (f *webSocketFrames) size() int {
	n := 2
	switch f.header[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.header[1]&0x80 != 0 {
		n += 4 // the mask
	}
	return n
}

func (f *webSocketFrames) length() uint64 {
	var extended []byte
	switch short := f.header[1] & 0x7f; short {
	case 126:
		extended = f.header[2:4]
	case 127:
		extended = f.header[2:10]
	default:
		return uint64(short)
	}
	var n uint64
	for _, b := range extended {
		n = n<<8 | uint64(b)
	}
	return n
}

// grpcFrames follows the messages of gRPC over HTTP/2: a flag, four bytes of length,
// the message.
type grpcFrames struct {
	header [5]byte
	have   int
	left   uint32
}

func (f *grpcFrames) between() bool { return f.have == 0 && f.left == 0 }

func (f *grpcFrames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(int64(f.left), int64(len(p)))
			f.left -= uint32(n)
			p = p[n:]
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have == len(f.header) {
			f.left = uint32(f.header[1])<<24 | uint32(f.header[2])<<16 | uint32(f.header[3])<<8 | uint32(f.header[4])
			f.have = 0
		}
	}
}

func isGRPC(h http.Header) bool {
	kind := h["Content-Type"]
	return len(kind) == 1 && strings.HasPrefix(kind[0], "application/grpc")
}
