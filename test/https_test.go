package test

import (
	"bytes"
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
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificateFiles are a certificate that vouches for itself, and its key.
type certificateFiles struct{ cert, key string }

// issue writes a new certificate with this serial number, each file in one step.
func (f certificateFiles) issue(t *testing.T, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "keygate test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	put(t, f.cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func newCertificate(t *testing.T, serial int64) certificateFiles {
	t.Helper()
	dir := t.TempDir()
	f := certificateFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	f.issue(t, serial)
	return f
}

// secureURL is where the proxy listens for HTTPS.
func (g *gateway) secureURL() string {
	g.t.Helper()
	u, _ := g.logged("keygate is ready")[0]["proxy_https"].(string)
	if u == "" {
		g.t.Fatal("the proxy does not say where it listens for HTTPS")
	}
	return u
}

// secureClient trusts every certificate: the tests look at the serial number.
func secureClient(t *testing.T, two bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!two)
	transport.Protocols.SetHTTP2(two)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// serial is that of the certificate that a new connection is shown.
func serial(t *testing.T, url string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// The proxy and the management listener speak HTTPS with certificates that are
// renewed under open connections; a bad pair leaves the former.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	public, private := newCertificate(t, 1), newCertificate(t, 101)
	g := start(t, settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": public.cert, "KEYGATE_TLS_KEY": public.key,
		"KEYGATE_ADMIN_TLS_CERT": private.cert, "KEYGATE_ADMIN_TLS_KEY": private.key, "KEYGATE_HSTS": "24h",
	})
	secure := g.secureURL()
	if !strings.HasPrefix(g.management, "https://") || !strings.HasPrefix(g.proxy, "http://") {
		t.Fatalf("management %s, proxy %s", g.management, g.proxy)
	}
	a, err := try(secureClient(t, true), http.MethodGet, g.management+"/v1/keys", g.key, nil)
	if err != nil || a.status != http.StatusOK || a.header.Get("Strict-Transport-Security") != "max-age=86400" {
		t.Fatalf("management: %v %d %v", err, a.status, a.header)
	}
	for _, two := range []bool{false, true} {
		a, err := try(secureClient(t, two), http.MethodGet, secure+"/x", g.key, nil)
		if err != nil || a.status != http.StatusOK || a.header.Get("Strict-Transport-Security") != "max-age=86400" {
			t.Fatalf("HTTP/2 %v: %v %d %v", two, err, a.status, a.header)
		}
		if got := api.seen().Header.Get("X-Forwarded-Proto"); got != "https" {
			t.Errorf("the upstream was told of %q", got)
		}
	}
	if got := g.wants(http.StatusOK, "/x", g.key).header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("over plain HTTP: Strict-Transport-Security: %q", got)
	}
	testOldTLS(t, secure)

	// A connection that stays open does not notice that the certificate changes.
	client := secureClient(t, true)
	steady := func() {
		t.Helper()
		if a, err := try(client, http.MethodGet, secure+"/x", g.key, nil); err != nil || a.status != http.StatusOK {
			t.Fatalf("%v %d", err, a.status)
		}
	}
	steady()
	public.issue(t, 2)
	eventually(t, "the new certificate is served", func() bool { return serial(t, secure) == 2 })
	steady()
	if n := serial(t, g.management); n != 101 {
		t.Errorf("the management listener has the certificate %d", n)
	}
	// Two files that are no pair: half of a renewal, or a mistake.
	put(t, public.cert, read(t, newCertificate(t, 99).cert))
	const failures = `keygate_certificate_loads_total{listener="proxy, HTTPS",result="failure"}`
	eventually(t, "the bad pair is logged and counted", func() bool {
		return len(g.logged("certificate not reloaded: the former one is still served")) > 0 && strings.Contains(g.secureMetrics(), failures)
	})
	if n := serial(t, secure); n != 2 {
		t.Errorf("after a bad pair the certificate is %d", n)
	}
	steady()
	public.issue(t, 3)
	eventually(t, "a good pair is served again", func() bool { return serial(t, secure) == 3 })
	steady()
	g.stop()
}

// secureMetrics are those of a management listener that speaks HTTPS.
func (g *gateway) secureMetrics() string {
	g.t.Helper()
	a, err := try(secureClient(g.t, false), http.MethodGet, g.management+"/metrics", "", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return a.body
}

// What is old or weak is not spoken: TLS before 1.2, and suites of TLS 1.2 without
// forward secrecy or with CBC.
func testOldTLS(t *testing.T, url string) {
	address := strings.TrimPrefix(url, "https://")
	for name, config := range map[string]*tls.Config{
		"TLS 1.1": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"CBC":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
		"RSA":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
	} {
		config.InsecureSkipVerify = true
		if conn, err := tls.Dial("tcp", address, config); err == nil {
			t.Errorf("%s is spoken", name)
			conn.Close()
		}
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatalf("TLS 1.2: %v", err)
	}
	conn.Close()
}

func TestHTTPSThatCannotStart(t *testing.T) {
	t.Parallel()
	good, other := newCertificate(t, 1), newCertificate(t, 2)
	for _, c := range []struct{ cert, key, want string }{
		{good.cert, other.key, "are no certificate with its key"},
		{good.cert + "x", good.key, "cannot be read"},
	} {
		g := prepare(t, settings{"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": c.cert, "KEYGATE_TLS_KEY": c.key})
		if said := g.refuses(3); !strings.Contains(said, c.want) {
			t.Errorf("it does not say %q: %s", c.want, said)
		}
	}
}

// Where HTTPS is required plain HTTP is refused and not redirected, and the key
// that came with it is reported, once, and paused where the operator wants that.
func TestRequireHTTPS(t *testing.T) {
	t.Parallel()
	for _, pause := range []bool{false, true} {
		t.Run(fmt.Sprintf("pause=%v", pause), func(t *testing.T) {
			t.Parallel()
			testRequireHTTPS(t, pause)
		})
	}
}

func testRequireHTTPS(t *testing.T, pause bool) {
	api, files := newUpstream(t, nil), newCertificate(t, 1)
	g := start(t, settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
		"KEYGATE_REQUIRE_HTTPS": "true", "KEYGATE_PAUSE_EXPOSED_KEYS": fmt.Sprint(pause), "KEYGATE_TRUSTED_PROXIES": "127.0.0.2", "KEYGATE_DEFAULT_PLAN": "enterprise",
	})
	k := g.newKey("careless")
	client, secure := secureClient(t, false), g.secureURL()
	if a, err := try(client, http.MethodGet, secure+"/x", k.Secret, nil); err != nil || a.status != http.StatusOK {
		t.Fatalf("over HTTPS: %v %d", err, a.status)
	}
	before := api.count.Load()
	g.refused(http.StatusForbidden, "HTTPS is required", "/x", "")
	g.refused(http.StatusForbidden, "HTTPS is required", "/x", newSecret(t))
	for range 3 {
		g.refused(http.StatusForbidden, "HTTPS is required", "/x", k.Secret)
	}
	// Anybody can say that they came by HTTPS; only a trusted proxy is believed.
	g.refused(http.StatusForbidden, "HTTPS is required", "/x", k.Secret, func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") })
	if api.count.Load() != before {
		t.Error("something in clear reached the upstream")
	}
	eventually(t, "the key is reported", func() bool {
		return len(g.logged("an API key was sent over plain HTTP and must be taken as exposed")) == 1
	})
	if n := g.metric(`keygate_exposed_keys_total{where="plain_http"}`); n != 4 {
		t.Errorf("%v requests with a key in clear are counted, want 4", n)
	}
	r := g.cli("audit", "list", "-o", "json")
	if n := strings.Count(r.stdout, `"key.exposed"`); n != 1 || !strings.Contains(r.stdout, k.ID) {
		t.Errorf("%d entries in the audit log: %s", n, r.stdout)
	}
	want := http.StatusOK
	if pause {
		want = http.StatusUnauthorized
		eventually(t, "the key is paused", func() bool {
			a, err := try(client, http.MethodGet, secure+"/x", k.Secret, nil)
			return err == nil && strings.Contains(a.body, "API key is paused")
		})
	}
	if a, err := try(client, http.MethodGet, secure+"/x", k.Secret, nil); err != nil || a.status != want {
		t.Errorf("%v %d", err, a.status)
	}
	testTrustedTerminator(t, g)
	g.stop() // the log is whole then
	inClear := 0
	for _, line := range g.logged("request") {
		if line["key_exposed_in_clear"] == true && line["key_id"] == k.ID && line["http.response.status_code"] == float64(403) {
			inClear++
		}
	}
	if inClear != 4 {
		t.Errorf("%d log lines name the key that came in clear, want 4", inClear)
	}
}

// testTrustedTerminator comes from an address that is believed about the scheme.
func testTrustedTerminator(t *testing.T, g *gateway) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: patience}
	for _, c := range []struct {
		said string
		want int
	}{{"https", http.StatusOK}, {"HTTPS", http.StatusOK}, {"https,http", http.StatusForbidden}, {"http", http.StatusForbidden}, {"", http.StatusForbidden}} {
		key := g.newKey("of-" + c.said).Secret // one that came in clear may be paused
		a, err := try(client, http.MethodGet, g.proxy+"/x", key, nil, func(r *http.Request) {
			if c.said != "" {
				r.Header.Set("X-Forwarded-Proto", c.said)
			}
		})
		if err != nil || a.status != c.want {
			t.Errorf("a trusted proxy says %q: %v %d, want %d: %s", c.said, err, a.status, c.want, a.body)
		}
	}
}

// Clients that speak HTTP/2 in clear begin with it (RFC 9113, section 3.3); an
// Upgrade to it is not answered: what follows would pass every rule.
func TestUnencryptedHTTP2(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Proto", r.Proto)
		_, _ = w.Write(bytes.ToUpper(body))
	})
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	a, err := try(&http.Client{Transport: transport, Timeout: patience}, http.MethodPost, g.proxy+"/x", g.key, strings.NewReader("hello"))
	if err != nil || a.status != http.StatusOK || a.body != "HELLO" || a.header.Get("X-Proto") != "HTTP/1.1" {
		t.Errorf("%v %d %q %v", err, a.status, a.body, a.header)
	}
	if got := api.seen().Header.Get("X-Forwarded-Proto"); got != "http" {
		t.Errorf("the upstream was told of %q", got)
	}
	a = g.wants(http.StatusOK, "/x", g.key, func(r *http.Request) {
		r.Header["Connection"], r.Header["Upgrade"], r.Header["Http2-Settings"] = []string{"Upgrade, HTTP2-Settings"}, []string{"h2c"}, []string{"AAMAAABkAAQAoAAAAAIAAAAA"}
	})
	if a.header.Get("Upgrade") != "" || api.seen().Header.Get("Upgrade") != "" {
		t.Errorf("h2c by Upgrade: %v, upstream %v", a.header, api.seen().Header)
	}
	g.stop()
}
