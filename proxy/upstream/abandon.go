package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// A transport that has lost its connection, or its stream of HTTP/2, does not come
// back before its Read of the body has (net/http, persistConn.mapRoundTripError).
// While a silent client is waited for, its request would outlive the upstream for as
// long as the client likes. So a body is told when nobody is there any more who
// wants it: by the connection over HTTP/1, by the attempt's Close over HTTP/2.

// abandonedFor is how long the client is still waited for then: one that goes on
// sending has its request tried again where that is allowed.
const abandonedFor = 2 * time.Second

var errAbandoned = errors.New("the upstream left while the rest of the client's body was waited for")

// orphan ends the wait for a client on behalf of an upstream that is gone. The zero
// value is one that nobody has abandoned.
type orphan struct {
	mu    sync.Mutex
	timer *time.Timer
	dead  atomic.Bool // the time is over
	over  bool        // there is an answer, or nobody reads any more
}

// begin is called when the upstream has left; then ends the wait.
func (o *orphan) begin(then func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over || o.timer != nil {
		return
	}
	o.timer = time.AfterFunc(abandonedFor, func() {
		o.mu.Lock() // after end nothing may happen to the client's connection
		defer o.mu.Unlock()
		if !o.over && o.timer != nil {
			o.dead.Store(true)
			then()
		}
	})
}

// rest is called when the body goes to another place.
func (o *orphan) rest() { o.stop(false) }

func (o *orphan) end() { o.stop(true) }

func (o *orphan) stop(over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = o.over || over
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}

// Abandoned reports whether the upstream left while a client was silent of which it
// had not got the whole body.
func (b *Body) Abandoned() bool { return b != nil && b.orphan.dead.Load() }

// GiveUp ends the wait for the client at once: the request is over. It must not be
// called when the request's handler has returned.
func (b *Body) GiveUp() {
	if b != nil {
		b.orphan.dead.Store(true)
		b.interrupt()
	}
}

// wire is a connection to an upstream that tells the body on it when it is closed.
type wire struct {
	*net.TCPConn
	closed  atomic.Bool
	carries atomic.Pointer[attempt]
}

// Close implements net.Conn.
func (w *wire) Close() error {
	err := w.TCPConn.Close()
	w.closed.Store(true)
	if a := w.carries.Swap(nil); a != nil {
		a.abandon()
	}
	return err
}

// traced has the body know the connections that it is sent on.
func (b *Body) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: b.sentOn})
}

func (b *Body) sentOn(on httptrace.GotConnInfo) {
	conn := on.Conn
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	w, ok := conn.(*wire)
	a := b.current.Load()
	if !ok || a == nil {
		return
	}
	a.wire.Store(w)
	w.carries.Store(a)
	if a.ended.Load() {
		w.carries.CompareAndSwap(a, nil)
	} else if w.closed.Load() {
		a.abandon()
	}
}

// abandon is called when what the attempt was sent on is gone. Where it has been
// sent, or another has taken its place, that is nothing new.
func (a *attempt) abandon() {
	b := a.body
	if b.current.Load() == a && !b.whole.Load() {
		b.orphan.begin(b.interrupt)
	}
}
