package test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// mutualPolicy leads to an upstream that wants a certificate of the gate.
const mutualPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"], tls: { ca: "CA", cert: "CERT", key: "KEY", server_name: localhost } } }
plans: { none: { limits: [] } }
routes:
  - { match: "/{path...}", permission: any }
`

// Whoever renewed the certificate that keygate shows its upstream, or the authority
// that it trusts, had to know of SIGHUP: the policy file, which alone was looked at,
// names the same files as before. The pair is in force by itself now, no request
// fails for it, and half of a renewal leaves the former.
func TestUpstreamCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"file", "variable"} {
		t.Run(place, func(t *testing.T) { t.Parallel(); testRenewal(t, place) })
	}
}

func testRenewal(t *testing.T, place string) {
	var served atomic.Pointer[tls.Certificate]
	authority, shown := newCertificate(t, 1), newCertificate(t, 101)
	serve := func() {
		pair, err := tls.LoadX509KeyPair(authority.cert, authority.key)
		if err != nil {
			t.Fatal(err)
		}
		served.Store(&pair)
	}
	serve()
	// It asks for a certificate and says which one it was shown.
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
	}))
	api.TLS = &tls.Config{
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return served.Load(), nil },
	}
	api.StartTLS()
	api.TLS.Certificates = nil
	t.Cleanup(api.Close)

	policy := strings.NewReplacer("UPSTREAM", api.URL, "CA", authority.cert, "CERT", shown.cert, "KEY", shown.key).Replace(mutualPolicy)
	s := settings{"KEYGATE_DEFAULT_PLAN": "none", "KEYGATE_POLICY": policy}
	if place == "file" {
		delete(s, "KEYGATE_POLICY")
		s["KEYGATE_POLICY_FILE"] = written(t, "policy.yaml", policy)
	}
	g := start(t, s)
	k := g.newKey("client").Secret
	if a := g.wants(http.StatusOK, "/x", k); a.body != "101" {
		t.Fatalf("the upstream saw certificate %s", a.body)
	}
	_, before := g.readyz()

	load := g.load(2, "/load", k)
	shown.issue(t, 102)
	eventually(t, "the renewed certificate is shown", func() bool { return g.get("/x", k).body == "102" })
	load.stop()
	if _, now := g.readyz(); now.Policy.Rules != before.Policy.Rules || now.Policy.Error != "" {
		t.Errorf("a certificate made another policy: %+v, before %+v", now.Policy, before.Policy)
	}

	// Half of a renewal: a pair that is none.
	other := newCertificate(t, 103)
	put(t, shown.cert, read(t, other.cert))
	eventually(t, "the half is refused", func() bool { return g.metric("keygate_policy_last_load_successful") == 0 })
	if a := g.wants(http.StatusOK, "/x", k); a.body != "102" {
		t.Errorf("the upstream saw certificate %s", a.body)
	}
	put(t, shown.key, read(t, other.key))
	eventually(t, "the other half is there", func() bool { return g.get("/x", k).body == "103" })
	if _, now := g.readyz(); now.Policy.Error != "" || now.Policy.Rules != before.Policy.Rules {
		t.Errorf("/readyz: %+v", now.Policy)
	}

	// The authority: trusted before the upstream is of it, both for a while.
	former := read(t, authority.cert)
	authority.issue(t, 2)
	next := read(t, authority.cert)
	put(t, authority.cert, former+next)
	loads := g.metric(`keygate_policy_loads_total{result="success"}`)
	eventually(t, "both authorities are trusted", func() bool { return g.metric(`keygate_policy_loads_total{result="success"}`) > loads })
	put(t, authority.cert, next) // for the server, and the gate from its next look on
	serve()
	eventually(t, "the former is not", func() bool { return g.metric(`keygate_policy_loads_total{result="success"}`) > loads+1 })
	g.wants(http.StatusOK, "/x", k)
	g.stop()
	for _, line := range strings.Split(g.stderr.String(), "\n") {
		if strings.Contains(line, "PRIVATE KEY") {
			t.Errorf("a private key stands in the log: %s", line)
		}
	}
}
