package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// certificateEvery lies between two looks at the files of a certificate.
	certificateEvery = 5 * time.Second
	// maxPEM bounds a file with certificates or a key in bytes.
	maxPEM = 1 << 20
)

// suites are those of TLS 1.2 that are forward secret and authenticate what they
// encrypt (RFC 9325, section 4.2); those of TLS 1.3 all are and cannot be chosen.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// certificateMetrics are those of all certificates.
type certificateMetrics struct {
	loads *prometheus.CounterVec
	ends  *prometheus.GaugeVec
}

func newCertificateMetrics(r prometheus.Registerer) *certificateMetrics {
	m := &certificateMetrics{
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_certificate_loads_total", Help: "Loads of a certificate, by listener and result. After a failure the former one is still served.",
		}, []string{"listener", "result"}),
		ends: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keygate_certificate_not_after_seconds", Help: "When the certificate that is served ends, in Unix time.",
		}, []string{"listener"}),
	}
	r.MustRegister(m.loads, m.ends)
	return m
}

// certificate is one of a listener, as its files had it when they were last good.
type certificate struct {
	listener, certFile, keyFile string
	metrics                     *certificateMetrics
	log                         *zap.Logger

	pair atomic.Pointer[tls.Certificate]
	seen [sha256.Size]byte // of the files that were loaded or refused last
}

// newCertificate loads a certificate; a start without one makes no sense.
func newCertificate(listener, certFile, keyFile string, m *certificateMetrics, log *zap.Logger) (*certificate, error) {
	c := &certificate{listener: listener, certFile: certFile, keyFile: keyFile, metrics: m, log: log}
	if err := c.load(); err != nil {
		return nil, &SetupError{fmt.Errorf("the certificate of the %s: %w", listener, err)}
	}
	return c, nil
}

// config is what the listener's connections are made with. Each handshake takes
// the certificate of its moment; connections that are open do not notice.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: suites,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// watch looks at the files until ctx ends: that also finds what network file
// systems do not tell and links that lead elsewhere. A bad pair leaves the former.
func (c *certificate) watch(ctx context.Context) {
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.look()
		}
	}
}

// look loads the files if they are others than those that were loaded or refused.
func (c *certificate) look() {
	seen := c.seen
	err := c.load()
	switch {
	case c.seen == seen:
	case err != nil:
		c.metrics.loads.WithLabelValues(c.listener, "failure").Inc()
		c.log.Error("certificate not reloaded: the former one is still served", zap.String("listener", c.listener), zap.Error(err))
	default:
		c.log.Info("certificate reloaded", zap.String("listener", c.listener), zap.Time("not_after", c.pair.Load().Leaf.NotAfter))
	}
}

// load reads both files and puts them in force if they are a pair, and other than
// before. The error holds nothing of what is in them.
func (c *certificate) load() error {
	cert, certErr := readPEM(c.certFile)
	key, keyErr := readPEM(c.keyFile)
	err := errors.Join(certErr, keyErr)
	seen := sha256.Sum256(bytes.Join([][]byte{cert, key, []byte(fmt.Sprint(err))}, []byte{0}))
	if seen == c.seen {
		return nil
	}
	c.seen = seen
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%q and %q are no certificate with its key: %w", c.certFile, c.keyFile, err)
	}
	c.pair.Store(&pair)
	c.metrics.loads.WithLabelValues(c.listener, "success").Inc()
	c.metrics.ends.WithLabelValues(c.listener).Set(float64(pair.Leaf.NotAfter.Unix()))
	return nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cannotRead(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(data) > maxPEM {
		err = errors.New("it is larger than 1 MiB")
	}
	if err != nil {
		return nil, cannotRead(path, err)
	}
	return data, nil
}

func cannotRead(path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // without the path, which stands here already
	}
	return fmt.Errorf("%q cannot be read: %w", path, err)
}
