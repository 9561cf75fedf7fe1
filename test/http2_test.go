package test

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

const protocolsPolicy = `
version: 1
upstreams:
  http1: { targets: ["HTTP1"] }
  h2c: { targets: ["H2C"] }
  http2: { targets: ["HTTP2"], tls: { ca: "CA" } }
routes:
  - { match: "/http1/{what}", upstream: http1, permission: any }
  - { match: "/h2c/{what}", upstream: h2c, permission: any }
  - { match: "/http2/{what}", upstream: http2, permission: any }
`

// upstreamProtocols is what the upstream of each route speaks.
var upstreamProtocols = map[string]string{"http1": "HTTP/1.1", "h2c": "HTTP/2.0", "http2": "HTTP/2.0"}

// way is one by which a client and an upstream meet.
type way struct {
	*gateway
	client   *http.Client
	url      string // of the gate, with the route's beginning
	key      string
	protocol string          // of the client
	hinted   chan<- struct{} // the client has seen early hints, and the upstream may go on
}

// What a request has beside its header and its body, from each kind of client to each
// kind of upstream: over HTTP/2 all of it has another form than over HTTP/1.1, and the
// gate turns one into the other.
func TestProtocols(t *testing.T) {
	t.Parallel()
	hinted := make(chan struct{}, 1)
	answer := protocolsUpstream(hinted)
	plain, h2c, secure := httptest.NewServer(answer), httptest.NewUnstartedServer(answer), httptest.NewUnstartedServer(answer)
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Start()
	secure.EnableHTTP2 = true
	secure.StartTLS()
	for _, s := range []*httptest.Server{plain, h2c, secure} {
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	}
	ca := written(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	files := newCertificate(t, 1)
	g := start(t, settings{
		"KEYGATE_POLICY":       strings.NewReplacer("HTTP1", plain.URL, "H2C", "h2c"+strings.TrimPrefix(h2c.URL, "http"), "HTTP2", secure.URL, "CA", ca).Replace(protocolsPolicy),
		"KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
	})
	k := g.newKey("everything")
	prior := &http.Transport{Protocols: new(http.Protocols)}
	prior.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(prior.CloseIdleConnections)
	for name, from := range map[string]way{
		"HTTP/1.1":            {client: newClient(t), url: g.proxy, protocol: "HTTP/1.1"},
		"HTTP/2 in clear":     {client: &http.Client{Transport: prior, Timeout: patience}, url: g.proxy, protocol: "HTTP/2.0"},
		"HTTP/1.1 over HTTPS": {client: secureClient(t, false), url: g.secureURL(), protocol: "HTTP/1.1"},
		"HTTP/2 over HTTPS":   {client: secureClient(t, true), url: g.secureURL(), protocol: "HTTP/2.0"},
	} {
		from.gateway, from.key, from.hinted = g, k.Secret, hinted
		from.client.Transport.(*http.Transport).ExpectContinueTimeout = patience // a body goes when it is invited
		for to := range upstreamProtocols {
			by := from
			by.url += "/" + to
			t.Run(name+" to "+to, func(t *testing.T) {
				t.Run("trailers", by.trailers)
				t.Run("early hints", by.hints)
				t.Run("expectation", by.expectation)
				t.Run("HEAD", by.head)
			})
		}
	}
	g.stop()
}

// protocolsUpstream answers by the last part of the path.
func protocolsUpstream(hinted <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Upstream-Protocol", r.Proto)
		switch path.Base(r.URL.Path) {
		case "trailers":
			w.Header().Set("Trailer", "X-Announced")
			_, _ = io.Copy(io.Discard, r.Body)
			_ = json.NewEncoder(w).Encode(r.Trailer)
			w.Header().Set("X-Announced", "one")
			w.Header().Set(http.TrailerPrefix+"X-Sudden", "two")
		case "hints":
			for _, style := range []string{"</a.css>", "</b.css>"} {
				w.Header().Set("Link", style+"; rel=preload")
				w.WriteHeader(http.StatusEarlyHints)
				select {
				case <-hinted:
				case <-r.Context().Done():
					return
				}
			}
			w.WriteHeader(http.StatusAccepted)
		case "reads":
			_, _ = io.Copy(w, r.Body)
		case "refuses":
			w.WriteHeader(http.StatusConflict)
		case "head":
			w.Header().Set("X-Method", r.Method)
			w.Header().Set("Content-Length", "1234")
		}
	}
}

// send sends a request by this way and reads the answer, which must have come by it.
func (w way) send(t *testing.T, method, what string, body io.Reader, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.url+"/"+what, body)
	if err != nil {
		t.Fatal(err)
	}
	if w.key != "" {
		r.Header.Set("Authorization", "Bearer "+w.key)
	}
	change(r)
	res, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Proto != w.protocol {
		t.Errorf("the answer came over %s, want %s", res.Proto, w.protocol)
	}
	if got, want := res.Header.Get("X-Upstream-Protocol"), upstreamProtocols[path.Base(w.url)]; w.key != "" && got != want {
		t.Errorf("the upstream was asked over %q, want %s", got, want)
	}
	return res, string(text)
}

// trailers go both ways with their values, those that were not announced too; a
// client's cannot say who it is any more than its header.
func (w way) trailers(t *testing.T) {
	res, body := w.send(t, http.MethodPost, "trailers", io.MultiReader(strings.NewReader("body")), func(r *http.Request) {
		r.Trailer = http.Header{"X-Mine": {"kept"}, "X-Keygate-Key-Id": {"forged"}, "X-Forwarded-For": {"203.0.113.9"}}
	})
	var got http.Header
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got) != 1 || got.Get("X-Mine") != "kept" {
		t.Errorf("%v: the upstream got %s", err, body)
	}
	if len(res.Trailer) != 2 || res.Trailer.Get("X-Announced") != "one" || res.Trailer.Get("X-Sudden") != "two" {
		t.Errorf("the client got %v", res.Trailer)
	}
}

// hints are with the client one by one, while the upstream still works on the answer.
func (w way) hints(t *testing.T) {
	var got []string
	res, _ := w.send(t, http.MethodGet, "hints", nil, func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				got = append(got, strconv.Itoa(code)+" "+h.Get("Link"))
				w.hinted <- struct{}{}
				return nil
			},
		}))
	})
	if want := []string{"103 </a.css>; rel=preload", "103 </b.css>; rel=preload"}; res.StatusCode != http.StatusAccepted || !slices.Equal(got, want) {
		t.Errorf("%d after %q, want %q", res.StatusCode, got, want)
	}
}

// expectation: who asks first whether to send is invited when the upstream wants the
// body, and not where the gate refuses.
func (w way) expectation(t *testing.T) {
	res, body, invited := w.expect(t, "reads")
	if res.StatusCode != http.StatusOK || body != "body" || !invited {
		t.Errorf("where it is wanted: %d %q, invited %v", res.StatusCode, body, invited)
	}
	w.unwanted(t)
	w.key = ""
	if res, _, invited := w.expect(t, "reads"); res.StatusCode != http.StatusUnauthorized || invited {
		t.Errorf("without a key: %d, invited %v", res.StatusCode, invited)
	}
}

// unwanted: an upstream that refuses before it reads is spared the body, and so is the
// client. Of a client over HTTP/2 the gate does not learn that it waits (net/http
// keeps that field to itself), so it may be invited once the gate has let it in. Who
// waits for an upstream that says nothing for a second is sent on too, which on a busy
// machine happens, but not each time.
func (w way) unwanted(t *testing.T) {
	invited := true
	for range 5 {
		var res *http.Response
		if res, _, invited = w.expect(t, "refuses"); res.StatusCode != http.StatusConflict {
			t.Errorf("where the upstream refuses: %d", res.StatusCode)
		}
		if !invited || w.protocol == "HTTP/2.0" {
			return
		}
	}
	t.Error("where the upstream refuses the client is invited to send")
}

// expect sends a body when it is invited, and reports whether it was.
func (w way) expect(t *testing.T, what string) (res *http.Response, body string, invited bool) {
	t.Helper()
	var read, asked atomic.Bool
	res, body = w.send(t, http.MethodPost, what, readBy(func(p []byte) (int, error) {
		if read.Swap(true) {
			return 0, io.EOF
		}
		return copy(p, "body"), nil
	}), func(r *http.Request) {
		r.ContentLength = int64(len("body"))
		r.Header.Set("Expect", "100-continue")
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got100Continue: func() { asked.Store(true) }}))
	})
	if read.Load() && !asked.Load() {
		t.Error("the client sent without having been invited")
	}
	return res, body, asked.Load()
}

// readBy is a body that is read by a function.
type readBy func([]byte) (int, error)

func (f readBy) Read(p []byte) (int, error) { return f(p) }

// head: the answer says how long the body would be and has none, twice over one
// connection; a refusal does the same.
func (w way) head(t *testing.T) {
	for range 2 {
		res, body := w.send(t, http.MethodHead, "head", nil, func(*http.Request) {})
		if res.StatusCode != http.StatusOK || body != "" || res.ContentLength != 1234 || res.Header.Get("X-Method") != http.MethodHead {
			t.Errorf("%d %q, length %d, asked by %s", res.StatusCode, body, res.ContentLength, res.Header.Get("X-Method"))
		}
	}
	w.key = ""
	res, body := w.send(t, http.MethodHead, "head", nil, func(*http.Request) {})
	if res.StatusCode != http.StatusUnauthorized || body != "" || res.ContentLength <= 0 {
		t.Errorf("refused: %d %q, length %d", res.StatusCode, body, res.ContentLength)
	}
}
