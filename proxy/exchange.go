package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/proxy/upstream"
	"keygate/ratelimit"
)

// exchange is one request and its answer: it travels through every step, is the
// ResponseWriter that the answer goes through, and in the end becomes the log
// line and the metrics.
//
// Exchanges are reused, each with a ReverseProxy whose hooks are bound to it
// once: that is what keeps forwarding free of closures made per request.
type exchange struct {
	proxy   *Proxy
	reverse httputil.ReverseProxy
	shard   uint32    // among the streams
	stream  stream    // outlives the request: see suspect
	buf     [256]byte // for header values
	fields  [24]zap.Field
	states  [keys.MaxLimits]ratelimit.State // for the decision
	taker   taker                           // of the answer
	request
}

// request is the part of an exchange that ends with it.
type request struct {
	w http.ResponseWriter
	r *http.Request

	id        string // request id, ours
	start     time.Time
	peer      netip.Addr // the other end of the connection
	peerText  string
	client    netip.Addr // peer, or whom trusted proxies name
	trusted   bool       // whether peer is a trusted proxy
	secure    bool       // whether the client's connection is HTTPS
	policy    *Policy
	rule      *rule
	principal *auth.Principal
	access    auth.Access
	exposed   bool // a key stood in the URL
	preflight bool // keygate answers a browser's question itself
	inClear   bool // a key came over plain HTTP where HTTPS is required
	call      upstream.Call
	stop      context.CancelCauseFunc // ends the request at its upstream; nil: closing the answer does
	ask       ratelimit.Ask
	limits    ratelimit.Decision
	flight    *ratelimit.Flight // nil where the key's requests in flight are not limited
	cut       context.CancelCauseFunc
	tunnel    bool   // it became a WebSocket connection
	dismissed bool   // it was under way when the gate's time was over
	crowded   string // the key among whose requests under way this one counts; "": none

	decision decision
	cause    error  // for the operator, never for the client
	reason   string // why the key does not do, for the log
	keyID    string // of a key that is known but not in force
	status   int
	bytes    int64
	late     bool          // the client did not take the answer in time
	sent     time.Time     // when the request went upstream
	upstream time.Duration // until the upstream's header arrived
	done     bool
}

// decision is what became of a request, as metrics and logs name it.
type decision uint8

const (
	allowed decision = iota
	public
	badRequest
	notFound
	methodNotAllowed
	unauthenticated
	forbidden
	limited
	unavailable
	decisions // how many there are
)

var decisionNames = [decisions]string{
	"allowed", "public", "bad_request", "not_found", "method_not_allowed",
	"unauthenticated", "forbidden", "limited", "unavailable",
}

func (p *Proxy) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := p.exchanges.Get().(*exchange)
	x.w, x.r, x.policy = w, r, p.policy.Load()
	x.start = p.now()
	x.taker.left = p.takes.Wait
	x.id = newRequestID(x.start)
	x.peer = peerAddress(r.RemoteAddr)
	x.peerText = x.peer.String()
	x.client, x.trusted = p.clientAddress(x.peer, r.Header)
	x.secure = cameSecurely(r, x.trusted)
	return x
}

// finish records the exchange, also while a panic passes through: net/http
// wants http.ErrAbortHandler to cut the connection of a broken answer. Such an
// exchange is not reused, since something may still refer to it.
func (x *exchange) finish() {
	x.countReset()
	x.leave()
	if x.stop != nil {
		x.stop(nil)
	}
	x.call.End()
	x.land()
	x.thinOut()
	x.countSlow()
	if !x.done {
		cause := recover()
		if cause != http.ErrAbortHandler {
			x.cause = fmt.Errorf("panic: %v", cause)
			x.proxy.accessLog.Error("keygate panicked", zap.String("request_id", x.id), zap.Any("panic", cause), zap.Stack("stack"))
		}
		x.record()
		panic(http.ErrAbortHandler)
	}
	x.record()
	x.request = request{}
	x.proxy.exchanges.Put(x)
}

// record has the log and the metrics know of the exchange. Only then has it ended for
// whoever waits for it: the program, when it stops.
func (x *exchange) record() {
	x.proxy.record(x)
	if x.tunnel {
		x.proxy.tunnels.Add(-1)
	}
	if x.dismissed {
		x.proxy.dismissed.Add(-1)
	}
}

// Header, Write and WriteHeader make the exchange the ResponseWriter of its
// answer, to learn the status and the length, and how long the client takes. Everything
// else an answer can do (deadlines) net/http finds through Unwrap.
func (x *exchange) Header() http.Header { return x.w.Header() }

// The invitation to send a body is not passed on: net/http gives its own when the
// upstream's makes the transport read the body, and which of the two came first was
// chance. The client would have been invited twice. One of HTTP/1.0 knows no answers
// before the answer (RFC 9110, section 15.2).
func (x *exchange) WriteHeader(status int) {
	if status == http.StatusContinue || status < 200 && !x.r.ProtoAtLeast(1, 1) {
		return
	}
	if status >= 200 && x.status == 0 { // others are informational: a final one follows
		x.status = status
	}
	x.w.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	watched := x.watched()
	var since time.Duration
	if watched {
		since = x.offer()
	}
	n, err := x.w.Write(b)
	if watched {
		x.took(since, n)
	}
	x.bytes += int64(n)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		x.late = true
	}
	return n, err
}

// FlushError sends what was written so far. Over HTTP/2 that may wait for the client.
func (x *exchange) FlushError() error {
	control := http.NewResponseController(x.w)
	if !x.watched() {
		return control.Flush()
	}
	since := x.offer()
	err := control.Flush()
	x.took(since, 0)
	return err
}

func (x *exchange) Unwrap() http.ResponseWriter { return x.w }
