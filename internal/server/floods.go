package server

import (
	"errors"
	"net"
	"net/http"
)

// maxIdleBytes is what a client may send on one connection while no request of it is
// under way. What is honestly sent without one is little: at most the rest of an upload
// that was refused, which is what is on its way when the refusal arrives.
const maxIdleBytes = 4 << 20

var (
	errIdleFlood  = errors.New("4 MiB without a request")
	errFrameFlood = errors.New("too many HTTP/2 frames that ask for nothing")
)

// Read counts what comes, and closes the connection of which that is too much.
func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.busy.Load() && c.idleBytes.Add(int64(n)) > maxIdleBytes {
		return 0, c.flooded(errIdleFlood)
	}
	if !c.frames.came(p[:n]) {
		return 0, c.flooded(errFrameFlood)
	}
	return n, err
}

func (c *boundedConn) flooded(err error) error {
	if !c.closed.Load() {
		c.of.floods.Inc()
	}
	_ = c.Close()
	return err
}

// noteState is the ConnState of servers whose listener is bounded. Over HTTP/2 a
// connection is idle when none of its streams is open.
func noteState(conn net.Conn, state http.ConnState) {
	c := boundedOf(conn)
	if c == nil {
		return
	}
	c.busy.Store(state == http.StateActive || state == http.StateHijacked)
	c.idleBytes.Store(0)
}

// boundedOf finds the connection of a bounded listener below that of TLS.
func boundedOf(conn net.Conn) *boundedConn {
	for {
		switch c := conn.(type) {
		case *boundedConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}
