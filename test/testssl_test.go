package test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// testssl.sh finds nothing of medium or higher severity on either listener, one with a
// certificate for ECDSA, the other for RSA. There is nothing to overlook: the
// certificates are signed by an authority that it is told of.
func TestTestssl(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it")
	}
	t.Parallel()
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	factors, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t)
	public, private := a.issue(t, curve), a.issue(t, factors)
	g := start(t, settings{
		"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": public.cert, "KEYGATE_TLS_KEY": public.key,
		"KEYGATE_ADMIN_TLS_CERT": private.cert, "KEYGATE_ADMIN_TLS_KEY": private.key, "KEYGATE_FAILED_PER_ADDRESS": "off",
	})
	for name, url := range map[string]string{"proxy": g.secureURL(), "management": g.management} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testssl(t, strings.TrimPrefix(url, "https://"), a.file)
		})
	}
}

// testssl judges one listener.
func testssl(t *testing.T, address, authority string) {
	findings := filepath.Join(t.TempDir(), "findings.json")
	program, err := exec.LookPath("testssl.sh") // its own name
	if err != nil {
		program = tool(t, "testssl", "testssl.sh") // Debian's
	}
	// With -n none it asks no name server, and by itself nobody whom a certificate names.
	p := launch(t, t.TempDir(), nil, program,
		"--quiet", "--color", "0", "--warnings", "off", "-n", "none", "--add-ca", authority, "--jsonfile", findings, address)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Minute): // it takes two, and ten on a machine that has much else to do
		t.Fatalf("testssl does not end; it said:\n%s", p.stdout.String())
	}
	var found []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal([]byte(read(t, findings)), &found); err != nil {
		t.Fatalf("%v; testssl said:\n%s", err, p.stdout.String())
	}
	severities := make(map[string]string)
	for _, f := range found {
		severities[f.ID] = f.Severity
		switch f.Severity {
		case "OK", "INFO":
		case "LOW":
			t.Logf("low: %s: %s", f.ID, f.Finding)
		case "WARN": // it could not look
			if f.ID != "engine_problem" { // Debian's openssl speaks no GOST, and neither does Go
				t.Errorf("%s: %s", f.ID, f.Finding)
			}
		default:
			t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	t.Logf("%d findings", len(found))
	// What it must have looked at, so that a run that ends early is none.
	for _, id := range []string{"TLS1_2", "TLS1_3", "PFS", "ALPN_HTTP2", "cipher_order", "cert_chain_of_trust", "HSTS_time", "heartbleed", "ROBOT", "secure_client_renego", "LUCKY13", "RC4"} {
		if severities[id] != "OK" {
			t.Errorf("%s: %q, want OK", id, severities[id])
		}
	}
	if slices.IndexFunc(found, func(f struct{ ID, Severity, Finding string }) bool { return f.ID == "scanTime" }) < 0 {
		t.Errorf("the scan did not come to its end:\n%s", p.stdout.String())
	}
}

// authority signs certificates as those of the public web are, but is known only to
// who is given its file.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(t), Subject: pkix.Name{CommonName: "keygate test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{written(t, "authority.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), cert, key}
}

// issue writes a certificate for this key, with what one of the public web says: a
// season to live, names, and where revocations are listed.
func (a *authority) issue(t *testing.T, key crypto.Signer) certificateFiles {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: newSerial(t), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 90),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, CRLDistributionPoints: []string{"http://authority.invalid/list.crl"},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificateFiles{
		cert: written(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		key:  written(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))),
	}
}

// newSerial is a random one, of 128 bits, as authorities give out.
func newSerial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
