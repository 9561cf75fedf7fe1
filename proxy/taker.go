package proxy

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// taker is the client as the one who takes an answer over HTTP/2. It gives a window
// for as much as it wants and can leave one answer standing while it takes others, so
// that no connection's time-out sees it. Whoever looks after the requests under way
// looks at this too: there is no timer for each piece.
//
// Over HTTP/1.1 an answer stands still only with its connection, which has a bound of
// its own for that.
type taker struct {
	left  time.Duration
	until atomic.Int64 // since the exchange's start, in nanoseconds: when it is too slow; 0: it is not waited for
}

// errSlow is why an answer was cut off that its client did not take.
var errSlow = errors.New("the client did not take the answer in time")

// offer begins to wait for the client, and returns since when.
func (x *exchange) offer() (since time.Duration) {
	since = x.proxy.now().Sub(x.start)
	x.taker.until.Store(int64(since + x.taker.left))
	return since
}

// took ends that.
func (x *exchange) took(since time.Duration, bytes int) {
	x.taker.until.Store(0)
	x.taker.left = x.proxy.takes.Left(x.taker.left, x.proxy.now().Sub(x.start)-since, bytes)
}

// watched reports whether the client's taking is judged here.
func (x *exchange) watched() bool { return x.r.ProtoMajor == 2 && x.proxy.takes.Wait > 0 }

// isStuck reports whether the client has been too slow to take the answer.
func (x *exchange) isStuck(now time.Time) bool {
	until := x.taker.until.Load()
	return until != 0 && int64(now.Sub(x.start)) >= until
}

// look is what the requests under way are looked at for besides their keys. Its
// shard's lock is held.
func (x *exchange) look(now time.Time) {
	switch {
	case !x.watched() || x.stream.slow:
	case x.isStuck(now):
		x.stream.slow = true
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Unix(1, 0)) // resets the stream
	case !x.stream.lifted && now.Sub(x.start) >= streamAge:
		// The server's time-out is for the whole of an answer. It is for those that
		// nobody looks at.
		x.stream.lifted = true
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Time{})
	}
}

// lower sets the server's time-out again for what net/http still has of an answer from
// which it was lifted: the handler has ended, and nobody looks any more.
func (x *exchange) lower() {
	if wait := x.proxy.takes.Wait; wait > 0 {
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(wait)) // of the real clock
	}
}

// slowClients counts requests that were cut because their client was slow.
type slowClients struct{ body, answer prometheus.Counter }

func newSlowClients(r prometheus.Registerer) slowClients {
	cut := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keygate_slow_clients_cut_total", Help: "Requests that were cut because their client was too slow: to send the body (answered 408), or to take the answer.",
	}, []string{"part"})
	r.MustRegister(cut)
	return slowClients{cut.WithLabelValues("body"), cut.WithLabelValues("answer")}
}

// countSlow counts a request that ended because of its client's pace, and has the log
// say so.
func (x *exchange) countSlow() {
	if x.call.Body.Late() {
		x.proxy.slow.body.Inc()
	}
	if x.late {
		x.proxy.slow.answer.Inc()
		x.cause = errSlow
	}
}
