package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// memoryConn is the server's end of a connection whose client has sent all that it
// has to say, and reads on.
type memoryConn struct {
	net.Conn // nil: what is not below is not asked for
	remote   net.Addr
	ended    chan struct{} // closed when nothing more will be written
	end      sync.Once

	mu      sync.Mutex
	changed sync.Cond
	in      []byte
	out     bytes.Buffer
	late    bool // the read deadline is over
	closed  bool
}

func newMemoryConn(sent []byte, remote net.Addr) *memoryConn {
	c := &memoryConn{in: sent, remote: remote, ended: make(chan struct{})}
	c.changed.L = &c.mu
	return c
}

// mostSent keeps what is sent well below net/http's buffer of 4 KiB.
const mostSent = 4000

// Read gives what was sent, then the end. That net/http waits for a single byte is
// how it finds out that a client is gone while its request is served: this one stays.
// It asks for as little for no other reason, since its buffer is never nearly full.
func (c *memoryConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 && len(p) == 1 && !c.late && !c.closed {
		c.changed.Wait()
	}
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.late:
		return 0, os.ErrDeadlineExceeded
	case len(c.in) == 0:
		return 0, io.EOF
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *memoryConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *memoryConn) written() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.out.Bytes())
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = !t.IsZero() && !t.After(time.Now())
	c.changed.Broadcast()
	return nil
}

// CloseWrite comes half a second before Close where net/http lets a client read on.
func (c *memoryConn) CloseWrite() error {
	c.end.Do(func() { close(c.ended) })
	return nil
}

func (c *memoryConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.changed.Broadcast()
	return c.CloseWrite()
}

func (c *memoryConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memoryConn) RemoteAddr() net.Addr             { return c.remote }
func (c *memoryConn) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 100), Port: 8080}
}

// memoryListener hands out connections.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{} }

// arrival is a request at the upstream.
type arrival struct {
	wire []byte // of its connection, on which it came alone
	r    *http.Request
	body []byte
}

// memoryUpstream answers each request when it has arrived whole, on a connection of
// its own.
type memoryUpstream struct {
	mu      sync.Mutex
	answer  []byte // nil: a good one
	arrived []arrival
}

const (
	goodAnswer    = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
	upgradeAnswer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"
)

func (u *memoryUpstream) transport() *http.Transport {
	return &http.Transport{DisableCompression: true, ExpectContinueTimeout: time.Second, DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go u.serve(server)
		return client, nil
	}}
}

// answers sets what is answered from now on and forgets what has arrived.
func (u *memoryUpstream) answers(answer []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer, u.arrived = answer, nil
}

func (u *memoryUpstream) taken() []arrival {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.arrived
}

func (u *memoryUpstream) serve(conn net.Conn) {
	defer conn.Close()
	var wire bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &wire))
	r, err := http.ReadRequest(in)
	if err != nil {
		u.note(arrival{wire: wire.Bytes()})
		return
	}
	if r.Header.Get("Expect") != "" {
		_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil { // the gate gave it up
		return
	}
	answer := u.note(arrival{wire: bytes.Clone(wire.Bytes()), r: r, body: body})
	switch {
	case answer != nil:
	case r.Header.Get("Upgrade") != "":
		answer = []byte(upgradeAnswer)
	default:
		answer = []byte(goodAnswer)
	}
	_, _ = conn.Write(answer)
}

func (u *memoryUpstream) note(a arrival) (answer []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.arrived = append(u.arrived, a)
	return u.answer
}
