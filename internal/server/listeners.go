package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"keygate/config"
	"keygate/internal/pace"
	"keygate/proxy"
)

// maxManagementConnections is what the management listener holds open: operators, those
// of their customers who look after keys themselves, probes and Prometheus.
const maxManagementConnections = 1000

// listeners are all those of an instance.
type listeners struct {
	plain, management *listener
	secure            *listener // nil: the proxy does not speak HTTPS itself
}

// listenAll binds every address, or none.
func listenAll(ctx context.Context, c config.Config, gate, management http.Handler, r prometheus.Registerer, log *zap.Logger, cleanUp *cleanUps) (_ *listeners, err error) {
	l := &listeners{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	metrics, connections := newCertificateMetrics(r), newConnectionMetrics(r)
	bind := func(name, addr string, h http.Handler, certFile, keyFile string) (*listener, error) {
		if certFile == "" {
			return listen(ctx, name, addr, h, nil, log)
		}
		cert, err := newCertificate(name, certFile, keyFile, metrics, log)
		if err != nil {
			return nil, err
		}
		cleanUp.add(inBackground(cert.watch))
		return listen(ctx, name, addr, h, cert, log)
	}
	if l.management, err = bind("management", c.AdminAddr, management, c.AdminTLSCert, c.AdminTLSKey); err != nil {
		return l, err
	}
	l.management.server.ReadTimeout, l.management.server.WriteTimeout = adminReadTimeout, adminWriteTimeout
	if l.plain, err = bind("proxy", c.Addr, gate, "", ""); err != nil {
		return l, err
	}
	if c.TLSCert != "" {
		if l.secure, err = bind("proxy, HTTPS", c.TLSAddr, gate, c.TLSCert, c.TLSKey); err != nil {
			return l, err
		}
	}
	l.management.Listener = connections.bound(l.management.Listener, l.management.name, maxManagementConnections, pace.Pace{})
	for _, each := range l.proxy() {
		each.Listener = connections.bound(each.Listener, each.name, c.MaxConnections, takes(c))
		// Over HTTP/2 a client can leave an answer standing without its connection: it
		// opens no window. net/http then ends what takes longer than this in all, its own
		// answers too, which nobody else sees; the proxy lifts it off longer ones and
		// judges those itself.
		each.server.WriteTimeout = c.WriteTimeout
		each.server.ConnContext = proxy.WithConnection
	}
	for _, each := range l.all() {
		each.server.ConnState = noteState
		if each.secure {
			if err = meterFrames(each.server); err != nil {
				return l, err
			}
		}
	}
	return l, nil
}

// takes is how clients must take answers.
func takes(c config.Config) pace.Pace { return pace.Pace{Wait: c.WriteTimeout, Rate: c.ClientMinRate} }

// sends is how clients must send the bodies of requests.
func sends(c config.Config) pace.Pace { return pace.Pace{Wait: c.ReadTimeout, Rate: c.ClientMinRate} }

// proxy lists those in front of the upstreams.
func (l *listeners) proxy() []*listener {
	if l.secure == nil {
		return []*listener{l.plain}
	}
	return []*listener{l.plain, l.secure}
}

func (l *listeners) all() []*listener { return append(l.proxy(), l.management) }

// close ends all that are there, with their connections.
func (l *listeners) close() error {
	var errs []error
	for _, each := range []*listener{l.plain, l.secure, l.management} {
		if each != nil {
			_ = each.Close() // one that was never served; else it does no harm
			errs = append(errs, each.server.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *listeners) secureField() zap.Field {
	if l.secure == nil {
		return zap.Skip()
	}
	return zap.String("proxy_https", l.secure.url())
}
