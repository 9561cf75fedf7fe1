package server

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// connectionMetrics are those of the connections of clients.
type connectionMetrics struct {
	open    *prometheus.GaugeVec
	refused *prometheus.CounterVec
}

func newConnectionMetrics(r prometheus.Registerer) *connectionMetrics {
	m := &connectionMetrics{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keygate_client_connections", Help: "Open connections of clients, by listener; at most KEYGATE_MAX_CONNECTIONS.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_client_connections_refused_total", Help: "Connections of clients that were closed at once because there were too many.",
		}, []string{"listener"}),
	}
	r.MustRegister(m.open, m.refused)
	return m
}

// bounded is a listener whose connections are bounded in number and in how long
// their clients may take nothing of what is sent. What is too much is closed, not
// left waiting: those who wait would keep everybody else from being accepted.
type bounded struct {
	net.Listener
	most    int64
	patient time.Duration // 0: no bound
	count   atomic.Int64
	open    prometheus.Gauge
	refused prometheus.Counter
}

func (m *connectionMetrics) bound(ln net.Listener, name string, most int, patient time.Duration) *bounded {
	return &bounded{Listener: ln, most: int64(most), patient: patient, open: m.open.WithLabelValues(name), refused: m.refused.WithLabelValues(name)}
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
			return &boundedConn{Conn: conn, of: b, began: time.Now()}, nil
		}
		b.count.Add(-1)
		b.refused.Inc()
		_ = conn.Close() // the client sees a reset
	}
}

// boundedConn is a connection of a bounded listener.
type boundedConn struct {
	net.Conn
	of       *bounded
	began    time.Time
	deadline atomic.Int64 // of writing, in nanoseconds after began; 0: none yet
	foreign  atomic.Bool  // somebody else has set it, for good
	closed   atomic.Bool
}

// Write gives the client its time anew, or an eighth or a second less: the timer is
// not touched with each piece.
func (c *boundedConn) Write(p []byte) (int, error) {
	if c.of.patient > 0 && !c.foreign.Load() {
		next := time.Since(c.began) + c.of.patient
		if last := c.deadline.Load(); int64(next)-last > int64(min(time.Second, c.of.patient/8)) && c.deadline.CompareAndSwap(last, int64(next)) {
			if err := c.Conn.SetWriteDeadline(c.began.Add(next)); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Write(p)
}

// SetWriteDeadline is for those who know better, such as who cuts a stream.
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	c.foreign.Store(!t.IsZero())
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
