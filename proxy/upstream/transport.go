package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"keygate/proxy/route"
)

// Bounds of connections. A connection over HTTP/2 carries all requests, so that
// one whose other end is gone must be found out: HTTP/1 leaves one behind with
// each request that timed out.
const (
	idleTimeout = 90 * time.Second
	idleTargets = 512
	keepAlive   = 30 * time.Second
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
	waitFor100  = time.Second
)

// connections are those to one target under one set of time-outs.
type connections struct {
	current atomic.Pointer[http.Transport]
	make    func() *http.Transport
	instead http.RoundTripper
	renewed atomic.Int64 // for suspicion, by the upstream's clock
}

func newConnections(t *target, bounds route.Timeouts, config *tls.Config, instead http.RoundTripper) *connections {
	dialer := &net.Dialer{Timeout: bounds.Connect, KeepAlive: keepAlive}
	c := &connections{instead: instead, make: func() *http.Transport {
		transport := &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, t.address)
				if err != nil {
					return nil, &connectError{err}
				}
				return &wire{TCPConn: conn.(*net.TCPConn)}, nil // of the network tcp there are no others
			},
			TLSClientConfig:       config.Clone(),
			TLSHandshakeTimeout:   bounds.TLS,
			ResponseHeaderTimeout: bounds.FirstByte,
			ExpectContinueTimeout: waitFor100,
			IdleConnTimeout:       idleTimeout,
			MaxIdleConnsPerHost:   idleTargets,
			Protocols:             new(http.Protocols),
			HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
			// The answer's encoding is between the client and the upstream.
			DisableCompression: true,
		}
		transport.Protocols.SetHTTP1(!t.h2c)
		transport.Protocols.SetHTTP2(t.scheme == "https")
		transport.Protocols.SetUnencryptedHTTP2(t.h2c)
		return transport
	}}
	c.current.Store(c.make())
	c.renewed.Store(-int64(suspectEvery))
	return c
}

func (c *connections) roundTrip(r *http.Request) (*http.Response, error) {
	transport := c.instead
	if transport == nil {
		transport = c.current.Load()
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return nil, short(err)
	}
	if err := passable(r, res); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

// What no server can pass on: an answer whose status has three digits but none of a
// class that there is (RFC 9110, section 15), and a change to a protocol that the
// request did not ask for (section 15.2.2), of which httputil.ReverseProxy would leave
// the connection open for nobody.
var (
	errNoStatus = errors.New("the upstream answered with a status below 100")
	errUnasked  = errors.New("the upstream changed to a protocol that it was not asked for")
)

func passable(r *http.Request, res *http.Response) error {
	switch {
	case res.StatusCode < http.StatusContinue:
		return errNoStatus
	case res.StatusCode == http.StatusSwitchingProtocols:
		asked := r.Header["Upgrade"] // of the request as keygate makes it: one value at most
		if _, taken := res.Body.(io.ReadWriteCloser); !taken || len(asked) == 0 || !strings.EqualFold(asked[0], res.Header.Get("Upgrade")) {
			return errUnasked
		}
	}
	return nil
}

// maxError bounds in bytes what an error says in the log: net/http repeats the line
// that it cannot read, of whatever length.
const maxError = 512

// longError is one that says too much.
type longError struct{ error }

func (e *longError) Error() string {
	return strings.ToValidUTF8(e.error.Error()[:maxError], "") + " …"
}

func (e *longError) Unwrap() error { return e.error }

func short(err error) error {
	if len(err.Error()) <= maxError {
		return err
	}
	return &longError{err}
}

func (c *connections) closeIdle() { c.current.Load().CloseIdleConnections() }

// renew has new requests make new connections. Those that are idle end now, the
// others with their requests.
func (c *connections) renew() { c.current.Swap(c.make()).CloseIdleConnections() }

// suspectEvery bounds how often a time-out is taken for a sign of dead connections.
const suspectEvery = time.Second

// suspect is told that a request timed out. Where the way to the target is broken
// the connections that are kept are dead too, and each would cost one more request
// its time; over HTTP/2 one connection would cost all of them theirs.
func (c *connections) suspect(now int64) {
	last := c.renewed.Load()
	if now-last >= int64(suspectEvery) && c.renewed.CompareAndSwap(last, now) {
		c.renew()
	}
}

// connectError is why there is no connection: no request can have passed.
type connectError struct{ error }

func (e *connectError) Unwrap() error { return e.error }

// neverConnected reports whether a request failed before there was a connection
// that it could have been sent on.
func neverConnected(err error) bool {
	if _, ok := errors.AsType[*connectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	return err.Error() == "net/http: TLS handshake timeout" // of a type of its own, which is not exported
}

// HasCertificates reports whether PEM holds a certificate.
func HasCertificates(pem []byte) bool { return x509.NewCertPool().AppendCertsFromPEM(pem) }

// CheckPair returns what is wrong with Certificate and Key, without a word of
// either.
func (o TLS) CheckPair() error {
	_, err := o.pair()
	return err
}

func (o TLS) pair() (tls.Certificate, error) { return tls.X509KeyPair(o.Certificate, o.Key) }

// config is what connections to https targets are made with.
func (o TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if len(o.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("ca holds no certificate in PEM")
		}
	}
	if len(o.Certificate) > 0 || len(o.Key) > 0 {
		pair, err := o.pair()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Names of targets are looked up by each new connection. Those that are kept
// would go on leading to an address that is gone: they are given up when a name
// leads elsewhere.
const (
	lookUpEvery   = 30 * time.Second
	lookUpTimeout = 5 * time.Second
)

// lookUp finds the addresses of a host, sorted.
func lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// follow calls moved whenever the target's name leads elsewhere than before,
// until ctx ends. A name that cannot be looked up changes nothing.
func (t *target) follow(ctx context.Context, lookUp func(context.Context, string) ([]netip.Addr, error), moved func()) {
	var known []netip.Addr
	for wait := time.Duration(0); sleep(ctx, wait); wait = lookUpEvery {
		found, err := lookUp(ctx, t.name)
		if err != nil || len(found) == 0 {
			continue
		}
		slices.SortFunc(found, netip.Addr.Compare)
		if known != nil && !slices.Equal(known, found) {
			moved()
		}
		known = found
	}
}
