package proxy_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// rawServer is an upstream that does what a well-behaved server never would.
type rawServer struct {
	t        testing.TB
	listener net.Listener
	serve    func(c *rawConn)
	running  sync.WaitGroup

	mu        sync.Mutex
	open      map[net.Conn]bool
	accepted  int
	delivered []string // method and body of each request that arrived whole
}

type rawConn struct {
	net.Conn
	server *rawServer
	in     *bufio.Reader
	number int // of the connection, from 1
}

func newRawServer(t testing.TB, serve func(c *rawConn)) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{t: t, listener: l, serve: serve, open: make(map[net.Conn]bool)}
	s.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.accepted++
			c := &rawConn{conn, s, bufio.NewReader(conn), s.accepted}
			s.open[conn] = true
			s.mu.Unlock()
			s.running.Go(func() {
				defer func() {
					_ = conn.Close()
					s.mu.Lock()
					delete(s.open, conn)
					s.mu.Unlock()
				}()
				s.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for c := range s.open {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

func (s *rawServer) addr() string { return s.listener.Addr().String() }

// deliveries are the requests that arrived whole, so far.
func (s *rawServer) deliveries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.delivered...)
}

func (s *rawServer) connections() (open, ever int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), s.accepted
}

func (s *rawServer) deliver(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered = append(s.delivered, what)
}

// read reads a whole request; nil at the connection's end.
func (c *rawConn) read() *http.Request {
	r, err := http.ReadRequest(c.in)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	c.server.deliver(strings.TrimSpace(r.Method + " " + string(body[:min(len(body), 20)])))
	return r
}

func (c *rawConn) answer(text string) {
	_, _ = io.WriteString(c, text) // nobody may be there to read it
}

const good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// reset ends the connection with a reset instead of an end.
func (c *rawConn) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// Frames of HTTP/2 (RFC 9113, section 6) that a server needs to answer, or not to.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway = 0x0, 0x1, 0x3, 0x4, 0x7

	flagEndStream, flagAck, flagEndHeaders = 0x1, 0x1, 0x4

	protocolError, internalError, refusedStream = 0x1, 0x2, 0x7
)

func (c *rawConn) frame(kind, flags byte, stream uint32, payload []byte) {
	b := make([]byte, 9, 9+len(payload))
	b[0], b[1], b[2] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload))
	b[3], b[4] = kind, flags
	binary.BigEndian.PutUint32(b[5:], stream)
	_, _ = c.Write(append(b, payload...))
}

// http2 reads requests on one connection of HTTP/2 and hands on the stream of each
// that has arrived whole.
func (c *rawConn) http2(arrived func(stream uint32)) {
	c.frames(func(_, flags byte, stream uint32) {
		if flags&flagEndStream != 0 {
			c.server.deliver("stream")
			arrived(stream)
		}
	})
}

// http2Begun hands on the stream of each request of which some of the body is there.
func (c *rawConn) http2Begun(arrived func(stream uint32)) {
	c.frames(func(kind, _ byte, stream uint32) {
		if kind == frameData {
			arrived(stream)
		}
	})
}

// frames hands on those that belong to requests.
func (c *rawConn) frames(each func(kind, flags byte, stream uint32)) {
	if _, err := io.ReadFull(c.in, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	c.frame(frameSettings, 0, 0, nil)
	for {
		var head [9]byte
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c.in, payload); err != nil {
			return
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case kind == frameSettings && flags&flagAck == 0:
			c.frame(frameSettings, flagAck, 0, nil)
		case kind == frameHeaders || kind == frameData:
			each(kind, flags, stream)
		}
	}
}

// answer2 is 200 without a body: ":status: 200" is the 8th entry of HPACK's static
// table (RFC 7541, appendix A).
func (c *rawConn) answer2(stream uint32) {
	c.frame(frameHeaders, flagEndStream|flagEndHeaders, stream, []byte{0x88})
}

func (c *rawConn) resetStream(stream uint32, code byte) {
	c.frame(frameReset, 0, stream, []byte{0, 0, 0, code})
}
