package server

import (
	"errors"
	"net"
	"net/http"
)

// maxIdleBytes is what a client may send on one connection while no request of it is
// under way. Frames of HTTP/2 that are legal and ask for nothing (SETTINGS,
// WINDOW_UPDATE, PRIORITY, unknown types) are read, and some answered, for as long as
// they come, at no cost to whoever sends them (CVE-2019-9515). What is honestly sent
// without a request is little: at most the rest of an upload that was refused, which
// is what is on its way when the refusal arrives.
const maxIdleBytes = 4 << 20

var errIdleFlood = errors.New("4 MiB without a request")

// Read counts what comes while no request is under way, and closes the connection of
// which that is too much.
func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.busy.Load() || c.idleBytes.Add(int64(n)) <= maxIdleBytes {
		return n, err
	}
	c.of.floods.Inc()
	_ = c.Close()
	return 0, errIdleFlood
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
