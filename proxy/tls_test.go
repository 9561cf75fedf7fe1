package proxy_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs the certificates of one test.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert, _ = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "a test's authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.file = a.write("CERTIFICATE", a.cert.Raw)
	return a
}

// sign makes a key and a certificate, of its own where there is no authority yet.
func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, tls.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert, tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func (a *authority) write(kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "file.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// server serves over TLS as host, to clients with a certificate of the authority.
func (a *authority) server(host string, http2 bool, handler http.HandlerFunc) string {
	a.t.Helper()
	_, _, pair := a.sign(&x509.Certificate{DNSNames: []string{host}})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = http2
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.URL
}

// TestUpstreamTLS: with an authority, a client certificate and a name of its own;
// without any of them the upstream is not trusted, or does not trust the gate.
func TestUpstreamTLS(t *testing.T) {
	a := newAuthority(t)
	key, cert, _ := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "the gate"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := a.write("CERTIFICATE", cert.Raw), a.write("PRIVATE KEY", private)
	other := newAuthority(t)
	for _, http2 := range []bool{true, false} {
		url := a.server("api.internal", http2, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Proto, " ", r.TLS.PeerCertificates[0].Subject.CommonName, " ", r.TLS.ServerName)
		})
		proto := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[http2]
		client := fmt.Sprintf("cert: %q, key: %q", certFile, keyFile)
		for _, c := range []struct {
			name, tls, want string
			status          int
		}{
			{"all that it takes", fmt.Sprintf("tls: { ca: %q, %s, server_name: api.internal }", a.file, client), proto + " the gate api.internal", 200},
			{"without the authority", fmt.Sprintf("tls: { %s, server_name: api.internal }", client), "", 502},
			{"another authority", fmt.Sprintf("tls: { ca: %q, %s, server_name: api.internal }", other.file, client), "", 502},
			{"another name", fmt.Sprintf("tls: { ca: %q, %s, server_name: api.external }", a.file, client), "", 502},
			{"the name of the target", fmt.Sprintf("tls: { ca: %q, %s }", a.file, client), "", 502},
			{"no client certificate", fmt.Sprintf("tls: { ca: %q, server_name: api.internal }", a.file), "", 502},
		} {
			t.Run(proto+" "+c.name, func(t *testing.T) {
				g, secret := front(t, []string{url}, c.tls)
				for _, method := range []string{"GET", "POST"} {
					a := g.do(method, "/x", secret, "")
					if a.StatusCode != c.status || c.status == 200 && string(a.body) != c.want {
						t.Errorf("%s: %d %s, want %d %s", method, a.StatusCode, a.body, c.status, c.want)
					}
					if strings.Contains(string(a.body), "certificate") {
						t.Errorf("the client learns of our certificates: %s", a.body)
					}
				}
			})
		}
	}
}

// TestHTTP2Upstreams: over TLS by agreement, without it because the target says so.
func TestHTTP2Upstreams(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
		_, _ = io.Copy(w, r.Body)
	})
	h2c := httptest.NewUnstartedServer(echo)
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Start()
	t.Cleanup(h2c.Close)
	over := httptest.NewUnstartedServer(echo)
	over.EnableHTTP2 = true
	over.StartTLS()
	t.Cleanup(over.Close)
	ca := (&authority{t: t}).write("CERTIFICATE", over.Certificate().Raw)
	for name, c := range map[string][2]string{
		"h2c": {strings.Replace(h2c.URL, "http:", "h2c:", 1), ""},
		"TLS": {over.URL, fmt.Sprintf("tls: { ca: %q }", ca)},
	} {
		t.Run(name, func(t *testing.T) {
			g, secret := front(t, []string{c[0]}, c[1])
			for _, body := range []string{"", "small", strings.Repeat("x", 1<<20)} {
				for _, method := range []string{"POST", "PUT"} {
					a := g.do(method, "/x", secret, body)
					if a.StatusCode != 200 || a.Header.Get("X-Proto") != "HTTP/2.0" || string(a.body) != body {
						t.Errorf("%s of %d bytes: %d over %s, %d bytes back", method, len(body), a.StatusCode, a.Header.Get("X-Proto"), len(a.body))
					}
				}
			}
		})
	}
}

// TestWebSocketToTLS: WebSocket needs HTTP/1.1, also where the connections for all
// else agreed on HTTP/2.
func TestWebSocketToTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, r.Proto)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := (&authority{t: t}).write("CERTIFICATE", s.Certificate().Raw)
	g, secret := front(t, []string{s.URL}, fmt.Sprintf("tls: { ca: %q }", ca))
	if a := g.get("GET", "/x", secret); string(a.body) != "HTTP/2.0" {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", secret)
	in := bufio.NewReader(conn)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	fmt.Fprint(conn, "hi\n")
	if line, err := in.ReadString('\n'); line != "echo hi\n" {
		t.Errorf("%q %v", line, err)
	}
}
