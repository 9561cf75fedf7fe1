package server

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keygate/internal/pace"
)

// connectionMetrics are those of the connections of clients.
type connectionMetrics struct {
	open    *prometheus.GaugeVec
	refused *prometheus.CounterVec
	slow    *prometheus.CounterVec
	floods  *prometheus.CounterVec
}

func newConnectionMetrics(r prometheus.Registerer) *connectionMetrics {
	m := &connectionMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keygate_client_connections", Help: "Open connections of clients, by listener; at most KEYGATE_MAX_CONNECTIONS, 1,000 of the management listener.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_client_connections_refused_total", Help: "Connections of clients that were closed at once because there were too many.",
		}, []string{"listener"}),
		slow: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_client_connections_slow_total", Help: "Connections that were closed because their client did not take what was sent to it (KEYGATE_CLIENT_WRITE_TIMEOUT, KEYGATE_CLIENT_MIN_RATE).",
		}, []string{"listener"}),
		floods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_client_connections_flooding_total", Help: "Connections that were closed because their client sent a flood: 4 MiB with no request under way, or HTTP/2 frames without end that ask for nothing.",
		}, []string{"listener"}),
	}
	r.MustRegister(m.open, m.refused, m.slow, m.floods)
	return m
}

// bounded is a listener whose connections are bounded in number and in how slowly
// their clients may take what is sent. What is too much is closed, not
// left waiting: those who wait would keep everybody else from being accepted.
type bounded struct {
	net.Listener
	most    int64
	takes   pace.Pace // how clients must
	count   atomic.Int64
	open    prometheus.Gauge
	refused prometheus.Counter
	slow    prometheus.Counter
	floods  prometheus.Counter
}

func (m *connectionMetrics) bound(ln net.Listener, name string, most int, takes pace.Pace) *bounded {
	return &bounded{
		Listener: ln, most: int64(most), takes: takes,
		open: m.open.WithLabelValues(name), refused: m.refused.WithLabelValues(name), slow: m.slow.WithLabelValues(name),
		floods: m.floods.WithLabelValues(name),
	}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.count.Add(1) <= b.most {
			b.open.Inc()
			return b.wrap(conn), nil
		}
		b.count.Add(-1)
		b.refused.Inc()
		_ = conn.Close() // the client sees a reset
	}
}

func (b *bounded) wrap(conn net.Conn) *boundedConn {
	c := &boundedConn{Conn: conn, of: b, began: time.Now()}
	c.left.Store(int64(b.takes.Wait))
	return c
}

// boundedConn is a connection of a bounded listener.
type boundedConn struct {
	net.Conn
	of       *bounded
	began    time.Time
	left     atomic.Int64 // for how long the client is waited for, in nanoseconds
	deadline atomic.Int64 // of writing, in nanoseconds after began; 0: none yet
	foreign  atomic.Bool  // somebody else has set it, for good
	late     atomic.Bool  // it has passed, and is counted
	closed   atomic.Bool

	busy      atomic.Bool  // a request is under way
	idleBytes atomic.Int64 // that were read since none is
	frames    frameMeter   // of HTTP/2 without TLS
}

// Write waits for the client to take p for as long as it has left, or up to an eighth
// or a second less: the timer is not touched with each piece.
func (c *boundedConn) Write(p []byte) (int, error) {
	c.frames.goes(p)
	takes := c.of.takes
	if takes.Wait == 0 || c.foreign.Load() {
		return c.Conn.Write(p)
	}
	start, left := time.Since(c.began), time.Duration(c.left.Load())
	next, last := start+left, time.Duration(c.deadline.Load())
	if (next < last || next-last > min(time.Second, takes.Wait/8)) && c.deadline.CompareAndSwap(int64(last), int64(next)) {
		if err := c.Conn.SetWriteDeadline(c.began.Add(next)); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Write(p)
	c.left.Store(int64(takes.Left(left, time.Since(c.began)-start, n)))
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.foreign.Load() && !c.late.Swap(true) {
		c.of.slow.Inc()
	}
	return n, err
}

// SetWriteDeadline is for those who know better, such as who cuts a stream. One that
// is hardly sooner than what a piece has anyway is that of net/http for the whole
// answer, which is meant for HTTP/2 (listenAll): here each piece has its own.
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	if wait := c.of.takes.Wait; wait > 0 && time.Until(t) > wait/2 {
		return nil
	}
	c.foreign.Store(!t.IsZero())
	c.deadline.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both; net/http takes one off with it when a connection is handed
// over.
func (c *boundedConn) SetDeadline(t time.Time) error {
	c.foreign.Store(!t.IsZero())
	c.deadline.Store(0)
	return c.Conn.SetDeadline(t)
}

// CloseWrite tells the client that nothing follows.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	if !c.closed.Swap(true) {
		c.of.count.Add(-1)
		c.of.open.Dec()
	}
	return c.Conn.Close()
}
