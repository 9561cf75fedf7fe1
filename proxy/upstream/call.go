package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keygate/proxy/route"
)

// Call is one request at an upstream, with all its attempts. End must be called
// when its answer has been passed on, or given up.
type Call struct {
	// URL is what the client asked for: its path goes upstream, below the target's,
	// as Rewrite says.
	URL     *url.URL
	Rewrite *route.Rewrite
	// Body is the request's, nil if it has none.
	Body *Body
	// Retries bounds the further attempts.
	Retries int

	via      *Client
	target   *target // of the attempt
	tried    uint64
	attempts int
	cancel   context.CancelCauseFunc // nil: nothing needs it
	total    *time.Timer
	idle     *stall
	verdict  func(error) // what the breaker waits for
}

// Do sends a request, which it may change, and returns the answer's header. The
// error is a *BusyError if it was not sent, a *TimeoutError or another net.Error
// if the upstream took too long.
func (c *Call) Do(via *Client, r *http.Request) (*http.Response, error) {
	if err := c.begin(via); err != nil {
		return nil, err
	}
	r = c.bound(r)
	guardReplay(r)
	res, err := c.try(r, r)
	for err != nil && c.mayRepeat(r, err) {
		via.retried.Add(1)
		again := r.WithContext(r.Context())
		u := *r.URL
		again.URL = &u
		res, err = c.try(again, r)
	}
	c.judge(r, res, err)
	if err != nil {
		return nil, err
	}
	c.keepSteady(r, res)
	return res, nil
}

// begin counts the request in, if there is room for it.
func (c *Call) begin(via *Client) error {
	u := via.Upstream
	if most := u.options.MaxConcurrent; u.inFlight.Add(1) > int64(most) && most > 0 {
		u.inFlight.Add(-1)
		u.crowded.Add(1)
		return &BusyError{}
	}
	if u.breaker != nil {
		var err error
		if c.verdict, err = u.breaker.allow(c.Body); err != nil {
			u.inFlight.Add(-1)
			return err
		}
	}
	u.budget.earn()
	c.via = via
	return nil
}

// bound gives the request the context that its time-outs end.
func (c *Call) bound(r *http.Request) *http.Request {
	t := c.via.timeouts
	sends := c.Body != nil && t.FirstByte > 0
	ctx := r.Context()
	if c.Body != nil {
		ctx = c.Body.traced(ctx)
	}
	if t.Total == 0 && t.Idle == 0 && !sends {
		return r.WithContext(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c.cancel = cancel
	if t.Total > 0 {
		body := c.Body
		c.total = time.AfterFunc(t.Total, func() {
			cancel(&TimeoutError{phaseTotal, t.Total})
			body.interrupt()
		})
	}
	if sends {
		c.Body.stall = newStall("first_byte", t.FirstByte, cancel)
	}
	return r.WithContext(ctx)
}

// guardReplay tells net/http which requests may be sent again when a connection
// that was kept turns out to be closed. By itself it does that with any method if
// there is an Idempotency-Key; but what an upstream makes of that key it knows
// best, and a POST shall never arrive twice. It looks for the name in canonical
// form; any other spelling is the same to the upstream (RFC 9110, section 5.1).
// With an empty value the key says that a method is idempotent and is not sent
// (net/http, type Transport).
func guardReplay(r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return
	case http.MethodPut, http.MethodDelete:
		if _, there := r.Header["Idempotency-Key"]; !there {
			r.Header["Idempotency-Key"] = nil
		}
		return
	}
	for _, name := range [...]string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, there := r.Header[name]; there {
			delete(r.Header, name)
			r.Header[strings.ToLower(name)] = values
		}
	}
}

// try makes one attempt, with a request of its own; in is the first one's.
func (c *Call) try(r, in *http.Request) (*http.Response, error) {
	if c.target != nil {
		c.target.inFlight.Add(-1)
	}
	u := c.via.Upstream
	t := u.pick(c.tried)
	c.target = t
	c.tried |= 1 << t.index
	c.attempts++
	t.inFlight.Add(1)
	c.point(r, t)
	if t.h2c && r.Header["Upgrade"] != nil {
		// HTTP/2 has no such thing (RFC 9113, section 8.2.2). Who does not know the
		// protocol that is asked for answers as if it had not been (RFC 9110, section
		// 7.8), where net/http would fail, and the upstream get the blame.
		r.Header = r.Header.Clone()
		r.Header.Del("Upgrade")
		r.Header.Del("Connection")
	}
	if err := c.attach(r, t); err != nil {
		return nil, err
	}
	res, err := c.via.connections[t.index].roundTrip(r)
	switch {
	case err == nil && !unavailable(res.StatusCode):
		t.answered(u.clock)
	case err == nil:
		u.failed(t, badAnswer, statusError(res.StatusCode))
	default:
		if cause, ok := errors.AsType[*TimeoutError](context.Cause(r.Context())); ok {
			err = cause
		}
		if tooLongFor(err) {
			err = ErrHeaderTooLong
		}
		if c.blameless(in, err) {
			break
		}
		why := reasonOf(err)
		u.failed(t, why, err)
		if why == timedOut {
			c.via.connections[t.index].suspect(u.clock())
		}
	}
	return res, err
}

// attach gives the attempt its body.
func (c *Call) attach(r *http.Request, t *target) error {
	r.GetBody = nil
	again := c.Body != nil
	if !idempotent(r.Method) && t.twoVersions {
		// HTTP/2 would send it again after a PROTOCOL_ERROR, which says nothing
		// about whether the request was acted on (golang/go#47635).
		again = false
		if c.Body == nil {
			r.Body = noBody{}
			return nil
		}
	}
	if c.Body == nil {
		r.Body = nil
		return nil
	}
	c.Body.stall.pause()
	var err error
	if r.Body, err = c.Body.again(); err == nil && again {
		r.GetBody = c.Body.again
	}
	return err
}

// point aims a request at a target.
func (c *Call) point(r *http.Request, t *target) {
	u, rewrite := r.URL, c.Rewrite
	u.Scheme, u.Host = t.scheme, t.host
	switch rewrite.Host {
	case "":
		r.Host = t.host
	case route.ClientHost: // as it is
	default:
		r.Host = rewrite.Host
	}
	u.Path, u.RawPath = c.URL.Path, ""
	if c.URL.RawPath == "" && t.path == "" && rewrite.Strip == "" && rewrite.Prefix == "" {
		return
	}
	// What is stripped is a literal part of the route's pattern, of characters that
	// the canonical form does not encode.
	u.Path = below(t.path+rewrite.Prefix, strings.TrimPrefix(c.URL.Path, rewrite.Strip))
	u.RawPath = below(t.raw+rewrite.Prefix, strings.TrimPrefix(route.Canonical(c.URL), rewrite.Strip))
}

// below puts a path under another.
func below(base, path string) string {
	if base+path == "" {
		return "/"
	}
	return base + path
}

// keepSteady bounds what follows the header of an answer.
func (c *Call) keepSteady(r *http.Request, res *http.Response) {
	if c.Body != nil {
		c.Body.stall.end()
	}
	if c.cancel == nil {
		return
	}
	stream, takenOver := res.Body.(io.ReadWriteCloser)
	takenOver = takenOver && res.StatusCode == http.StatusSwitchingProtocols
	if takenOver {
		// No transport looks after it any more.
		context.AfterFunc(r.Context(), func() { _ = stream.Close() })
	}
	bound := c.via.timeouts.Idle
	if bound == 0 {
		return
	}
	c.idle = newStall("idle", bound, c.cancel)
	body := steady{res.Body, c.idle}
	if takenOver {
		res.Body = &steadyStream{body, stream}
		return
	}
	res.Body = &body
}

// End gives back what the call holds.
func (c *Call) End() {
	if c.via == nil {
		return
	}
	u := c.via.Upstream
	c.Body.end()
	if c.Body != nil {
		c.Body.stall.end()
	}
	c.idle.end()
	if c.total != nil {
		c.total.Stop()
	}
	if c.cancel != nil {
		c.cancel(nil)
	}
	if c.verdict != nil { // something panicked
		c.verdict(errNoVerdict)
	}
	u.inFlight.Add(-1)
	if c.target != nil {
		c.target.inFlight.Add(-1)
		if u.closed.Load() {
			c.via.connections[c.target.index].closeIdle()
		}
	}
}

// Target is the one of the last attempt, as logs and metrics call it; "" before the
// first.
func (c *Call) Target() string {
	if c.target == nil {
		return ""
	}
	return c.target.label
}
