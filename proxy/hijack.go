package proxy

import (
	"bufio"
	"net"
	"net/http"
)

// Hijack hands over the client's connection when it is about to speak WebSocket. What
// the client sent together with its handshake is in the reader already;
// httputil.ReverseProxy reads from the connection alone and would lose it
// (golang/go#80875).
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.w).Hijack()
	if err != nil || rw.Reader.Buffered() == 0 {
		return conn, rw, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	return &earlyConn{Conn: conn, early: append([]byte(nil), early...)}, rw, err
}

// earlyConn is a connection from which something was read already.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// CloseWrite tells the client that nothing follows, if the connection can.
func (c *earlyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
