package proxy

import (
	"context"
	"errors"
	"log"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"

	"keygate/internal/pace"
	"keygate/proxy/route"
	"keygate/proxy/upstream"
	"keygate/ratelimit"
)

// copyBufferSize is that of the buffers through which bodies are copied.
const copyBufferSize = 32 << 10

// bufferPool lends the buffers through which bodies are copied.
type bufferPool struct{ pool sync.Pool }

var buffers = &bufferPool{pool: sync.Pool{New: func() any { return new([copyBufferSize]byte) }}}

func (b *bufferPool) Get() []byte { return b.pool.Get().(*[copyBufferSize]byte)[:] }

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[copyBufferSize]byte)(buf)) }

// discardLog is where ReverseProxy would repeat what the access log says.
var discardLog = log.New(discard{}, "", 0)

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// rewrite turns the client's request into the one that goes upstream.
// ReverseProxy has removed hop-by-hop headers, Forwarded and X-Forwarded-For,
// -Host and -Proto before, so nothing set here can be nominated away by a
// client's Connection header.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	// ReverseProxy drops what it cannot parse; the upstream shall see what the
	// client sent, byte for byte.
	out.URL.RawQuery, out.URL.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery

	h := out.Header
	for name := range h {
		if route.Dropped(name) || x.rule.requestHeaders.decides(name) {
			delete(h, name)
		}
	}
	for name := range out.Trailer {
		if !x.mayTrail(name) {
			delete(out.Trailer, name)
		}
	}
	x.call.Body.ForwardTrailers(out.Trailer)
	if !x.rule.ForwardKey || x.principal == nil && x.rule.budget == nil { // a preflight: nobody has looked at it
		delete(h, "Authorization")
	}
	x.rule.requestHeaders.apply(h)
	x.forwardedHeaders(in, h)
	if x.principal == nil {
		return
	}
	x.principal.Identify(h)
	h["X-Keygate-Scopes"] = x.access.Scopes
	if space := x.access.Space; space != nil {
		h["X-Keygate-Space"] = []string{space.ID}
		h["X-Keygate-Space-Slug"] = []string{space.Slug}
	}
}

// forwardedHeaders tells the upstream who asked, and for what, and the request's
// id. What a trusted proxy says is kept; what anyone else says is not.
func (x *exchange) forwardedHeaders(in *http.Request, h http.Header) {
	chain, host, proto := x.peerText, in.Host, "http"
	if in.TLS != nil {
		proto = "https"
	}
	if x.trusted {
		if prior := in.Header["X-Forwarded-For"]; len(prior) > 0 {
			chain = strings.Join(prior, ", ") + ", " + chain
		}
		if prior := in.Header["X-Forwarded-Host"]; len(prior) == 1 {
			host = prior[0]
		}
		if prior := in.Header["X-Forwarded-Proto"]; len(prior) == 1 {
			proto = prior[0]
		}
	}
	values := [4]string{chain, host, proto, x.id} // one allocation for all
	h["X-Forwarded-For"] = values[0:1:1]
	h["X-Forwarded-Host"] = values[1:2:2]
	h["X-Forwarded-Proto"] = values[2:3:3]
	h["X-Request-Id"] = values[3:4:4]
}

// modifyResponse adds what keygate says about an admitted request.
func (x *exchange) modifyResponse(res *http.Response) error {
	x.upstream = x.proxy.now().Sub(x.sent)
	x.call.Body.Answered()
	x.settle(res.Header)
	switched := res.StatusCode == http.StatusSwitchingProtocols
	if switched {
		x.status = res.StatusCode // ReverseProxy writes it past the ResponseWriter
		x.tunnel = true
		x.proxy.tunnels.Add(1) // before net/http forgets the connection
	}
	// Into the answer itself: what stands in res.Header is copied once more,
	// value by value, and must not stand beside what keygate says.
	x.rule.responseHeaders.apply(res.Header)
	x.replaceCORS(res.Header)
	if len(res.Trailer) > 0 && x.r.ProtoMajor == 1 && x.r.ProtoMinor > 0 && x.r.Method != http.MethodHead && res.StatusCode != http.StatusNotModified {
		// HTTP/1.1 has trailers after chunks only (RFC 9112, section 7.1.2), HTTP/2 also
		// after a body of known length. net/http sends none with this header.
		delete(res.Header, "Content-Length")
	}
	x.follow(res)
	own := x.w.Header()
	x.describe(own)
	if switched {
		delete(own, "Connection")
	} else if x.r.ProtoMajor == 1 && x.call.Body.Beside() {
		own["Connection"] = lastAnswer
	}
	for name := range own {
		delete(res.Header, name)
	}
	return nil
}

// lastAnswer is the header Connection of one that ends its connection: over HTTP/1.1
// as it says (RFC 9112, section 9.6), while net/http's HTTP/2 server sends GOAWAY in
// its place and goes on with the streams that are open.
var lastAnswer = []string{"close"}

// describe sets the request id, the limits' state and, where it is near, when the
// key or its secret ends.
func (x *exchange) describe(h http.Header) {
	if x.proxy.leaving.Load() {
		h["Connection"] = lastAnswer
	}
	values := [2]string{x.id} // one allocation for both
	h["X-Request-Id"] = values[0:1:1]
	if x.secure && x.proxy.hsts != nil {
		h["Strict-Transport-Security"] = x.proxy.hsts // RFC 6797, section 7.2: never over plain HTTP
	}
	if x.principal != nil {
		x.principal.Announce(h, x.start)
	}
	if len(x.limits.Limits) == 0 {
		return
	}
	if x.limits.Degraded != "" { // the plan is open and the shared budget out of reach
		h["X-Keygate-Degraded"] = []string{"limits"}
	}
	values[1] = string(ratelimit.AppendState(x.buf[:0], x.limits))
	// Shared by all answers: a header map may hold it, nobody may write to it.
	h["Ratelimit-Policy"] = x.principal.LimitPolicy
	h["Ratelimit"] = values[1:2:2]
}

// prepareCall says what the upstream gets to see of the request.
func (x *exchange) prepareCall() {
	keepUpgrade(x.r)
	x.call.URL, x.call.Rewrite, x.call.Retries = x.r.URL, &x.rule.Rewrite, x.rule.Retries
	if x.r.ContentLength == 0 {
		return
	}
	sends := x.proxy.sends
	if x.r.ProtoMajor == 2 && isGRPC(x.r.Header) {
		sends = pace.Pace{} // a stream of messages, in which silence is nothing wrong
	}
	x.call.Body = upstream.NewBody(x.r, http.NewResponseController(x.w), x.rule.MaxBody, sends)
	if x.principal != nil && (x.r.ContentLength < 0 || x.r.ContentLength > shortBody) {
		// The body may be a stream that goes on before there is an answer to close.
		ctx, stop := context.WithCancelCause(x.r.Context())
		x.r, x.stop = x.r.WithContext(ctx), stop
	}
}

// RoundTrip makes the exchange the transport of its ReverseProxy.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	return x.call.Do(x.rule.to, r)
}

// upstreamFailed answers where the upstream gave no answer.
func (x *exchange) upstreamFailed(_ http.ResponseWriter, _ *http.Request, err error) {
	x.upstream = x.proxy.now().Sub(x.sent)
	x.cause = err
	if why := x.wasCut(); why != nil {
		x.limits = ratelimit.Decision{} // a 401 or 403 says nothing of them
		if x.r.ProtoMajor == 1 {
			x.w.Header()["Connection"] = lastAnswer // nothing is read from it any more
		}
		x.refuse(x.refused(why))
		return
	}
	if busy, ok := errors.AsType[*upstream.BusyError](err); ok {
		x.refuse(x.spared(busy))
		return
	}
	x.refuse(x.noAnswer(x.statusOf(err)))
}

// statusClientGone is nginx's 499: nobody reads it but the operator.
const statusClientGone = 499

// statusOf decides what a failed upstream call was. This is the only place.
func (x *exchange) statusOf(err error) int {
	var timeout interface{ Timeout() bool }
	switch {
	case x.call.Body.TooLarge():
		return http.StatusRequestEntityTooLarge
	case x.call.Body.Late():
		return http.StatusRequestTimeout
	case x.wasCutOff():
		return http.StatusServiceUnavailable
	case x.call.Body.Abandoned(): // the end of the wait for the client looks as if it had left
		return http.StatusBadGateway
	case x.r.Context().Err() != nil:
		return statusClientGone
	case x.call.Body.Broken():
		return http.StatusBadRequest
	case errors.Is(err, upstream.ErrHeaderTooLong):
		return http.StatusRequestHeaderFieldsTooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}
