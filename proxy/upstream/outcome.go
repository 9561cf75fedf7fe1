package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
)

// clientFailed reports whether the client left, or sent what cannot be read.
func (c *Call) clientFailed(r *http.Request) bool {
	if c.Body.Broken() || c.Body.TooLarge() || c.Body.Late() {
		return true
	}
	err := context.Cause(r.Context())
	_, ours := errors.AsType[*TimeoutError](err)
	return err != nil && !ours
}

// blameless reports whether a request may have failed for its client's sake. Who
// sends a body slowly can use up the total, or make an upstream give up, whenever
// they like, and could with a few requests have it taken for dead.
func (c *Call) blameless(r *http.Request, err error) bool {
	if c.clientFailed(r) || errors.Is(err, ErrHeaderTooLong) {
		return true
	}
	if c.Body == nil {
		return false
	}
	timeout, ok := errors.AsType[*TimeoutError](err)
	return ok && timeout.Phase == phaseTotal || !c.Body.whole.Load() && reasonOf(err) == brokenOff
}

// mayRepeat reports whether a request that failed may be sent once more, and
// counts it against the budget.
func (c *Call) mayRepeat(r *http.Request, err error) bool {
	if c.attempts > c.Retries || r.Context().Err() != nil || c.clientFailed(r) || c.Body != nil && (c.Body.lost.Load() || c.Body.Abandoned()) {
		return false
	}
	if !neverConnected(err) && !neverBegun(err) && (!idempotent(r.Method) || isTimeout(err)) {
		return false // it may have been acted on; or the wait was long enough
	}
	if !c.via.budget.spend() {
		c.via.spent.Add(1)
		return false
	}
	return true
}

// ErrHeaderTooLong is a request whose header is longer than an HTTP/2 upstream said
// it would take (SETTINGS_MAX_HEADER_LIST_SIZE; RFC 9113, section 6.5.2): it was not
// sent. That is the client's doing, as is what an HTTP/1.1 upstream answers itself.
var ErrHeaderTooLong = errors.New("the request's header is longer than the upstream takes")

// tooLongFor reports whether net/http did not send a request for that reason. It
// has no other way to tell.
func tooLongFor(err error) bool {
	return strings.Contains(err.Error(), "http2: request header list larger than peer's advertised limit")
}

// neverBegun reports whether an HTTP/2 server said that it did not look at the
// request (RFC 9113, section 8.7). net/http sends such a request again itself if
// it can get its body again, which it cannot here (attach); it has no other way
// to tell.
func neverBegun(err error) bool {
	text := err.Error()
	return strings.Contains(text, "REFUSED_STREAM; received from peer") ||
		strings.Contains(text, "http2: Transport received Server's graceful shutdown GOAWAY")
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	if ok && timeout.Timeout() {
		return true
	}
	_, ours := errors.AsType[*TimeoutError](err)
	return ours
}

func reasonOf(err error) reason {
	switch {
	case neverConnected(err):
		return notConnected
	case isTimeout(err):
		return timedOut
	}
	return brokenOff
}

// unavailable reports whether an answer says that there is none.
func unavailable(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// judge tells the breaker how the request went.
func (c *Call) judge(r *http.Request, res *http.Response, err error) {
	if c.verdict == nil {
		return
	}
	switch {
	case err != nil && c.blameless(r, err):
		c.verdict(errNoVerdict)
	case err != nil:
		c.verdict(err)
	case unavailable(res.StatusCode):
		c.verdict(statusError(res.StatusCode))
	default:
		c.verdict(nil)
	}
	c.verdict = nil
}
