package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Bounds on connections of clients. A request's own length in time is the
// upstream's matter.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	adminReadTimeout  = 30 * time.Second
	adminWriteTimeout = 60 * time.Second
)

// listener is one address with what serves it.
type listener struct {
	name string
	net.Listener
	secure bool // whether it speaks HTTPS
	server *http.Server
}

// listen binds an address; serving starts later, so that nothing is announced
// that does not answer. With a certificate it speaks HTTPS, else HTTP; HTTP/2 in
// both, over plain HTTP for clients that begin with it (RFC 9113, section 3.3).
func listen(ctx context.Context, name, addr string, handler http.Handler, cert *certificate, log *zap.Logger) (*listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", addr, name, err)
	}
	l := &listener{name: name, Listener: ln, secure: cert != nil, server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          stdlog.New(serverLog{log.With(zap.String("listener", name))}, "", 0),
		// OPTIONS * is answered by the handler like any other request.
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
	}}
	l.server.Protocols.SetHTTP1(true)
	if cert == nil {
		l.server.Protocols.SetUnencryptedHTTP2(true)
		return l, nil
	}
	l.server.Protocols.SetHTTP2(true)
	l.server.TLSConfig = cert.config()
	return l, nil
}

// url is where the listener can be reached from this machine.
func (l *listener) url() string {
	if l.secure {
		return "https://" + dialable(l.Addr())
	}
	return "http://" + dialable(l.Addr())
}

// serverLog takes what net/http has to say of connections. Clients make it say
// most of that; a panic is ours.
type serverLog struct{ log *zap.Logger }

func (l serverLog) Write(text []byte) (int, error) {
	level := zapcore.DebugLevel
	if bytes.HasPrefix(text, []byte("http: panic serving")) {
		level = zapcore.ErrorLevel
	}
	l.log.Log(level, string(bytes.TrimSpace(text)))
	return len(text), nil
}

// serve runs until the listener is shut down.
func (l *listener) serve() error {
	serve := l.server.Serve
	if l.secure {
		serve = func(ln net.Listener) error { return l.server.ServeTLS(ln, "", "") }
	}
	if err := serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return nil
}

// drain stops accepting and waits for the requests under way, at most until ctx ends.
func (l *listener) drain(ctx context.Context) error {
	if err := l.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("%s: requests were still under way when the drain time ended: %w", l.name, err)
	}
	return nil
}

// dialable is an address under which a listener can be reached from here.
func dialable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
