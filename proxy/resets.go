package proxy

import (
	"context"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Bounds on the requests of one HTTP/2 connection that its client resets. Each costs
// the client two small frames and no waiting, and its place among the connection's
// streams is free again at once (CVE-2023-44487). net/http bounds how many of them
// are under way, not how many come one after the other.
const (
	resetsPerSecond = 100
	resetsAtOnce    = 1000
)

// connection is what is known of a client's connection.
type connection struct {
	net.Conn
	resets *rate.Limiter
}

type connectionKey struct{}

// WithConnection is the ConnContext of a server in front of a Proxy. Without it no
// connection is closed for the requests that its client resets.
func WithConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{c, rate.NewLimiter(resetsPerSecond, resetsAtOnce)})
}

// countReset notes that the client gave up a request, and closes the connection of one
// that does nothing else. A trusted proxy's connection carries many clients' requests:
// what one of them gives up must not end those of the others.
func (x *exchange) countReset() {
	if x.r.ProtoMajor != 2 || x.trusted || context.Cause(x.r.Context()) != context.Canceled { // keygate has other causes
		return
	}
	c, known := x.r.Context().Value(connectionKey{}).(*connection)
	if known && !c.resets.AllowN(x.proxy.now(), 1) {
		x.proxy.resetFloods.Inc()
		_ = c.Close()
	}
}

func newResetFloods(r prometheus.Registerer) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "keygate_reset_floods_total", Help: "Requests that were reset by their HTTP/2 client beyond what a connection may; each closes its connection.",
	})
	r.MustRegister(c)
	return c
}
