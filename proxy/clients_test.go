package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"keygate/internal/problem"
)

// over serves the gate in a version of HTTP of its own.
func (g *gate) over(version string) (url string, client *http.Transport) {
	g.t.Helper()
	s := httptest.NewUnstartedServer(g.proxy)
	s.EnableHTTP2 = version == "HTTP/2"
	s.StartTLS()
	g.t.Cleanup(s.Close)
	transport := s.Client().Transport.(*http.Transport)
	g.t.Cleanup(transport.CloseIdleConnections)
	return s.URL, transport
}

// overHTTP2 serves the gate over HTTP/2 as well.
func (g *gate) overHTTP2() (url string, client *http.Client) {
	g.t.Helper()
	url, transport := g.over("HTTP/2")
	return url, &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// onBoth runs a test as an HTTP/1.1 client and as one of HTTP/2.
func (g *gate) onBoth(test func(t *testing.T, url string, client *http.Client)) {
	url2, client2 := g.overHTTP2()
	g.t.(*testing.T).Run("HTTP/1.1", func(t *testing.T) { test(t, g.url, &http.Client{Timeout: 30 * time.Second}) })
	g.t.(*testing.T).Run("HTTP/2", func(t *testing.T) { test(t, url2, client2) })
}

// request makes one with a key.
func request(t testing.TB, method, url, secret string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	return r
}

// pipeTo sends a body that the test writes.
func pipeTo(t testing.TB, client *http.Client, url, secret string) (*io.PipeWriter, <-chan answer) {
	t.Helper()
	body, writer := io.Pipe()
	t.Cleanup(func() { _ = writer.Close() })
	r := request(t, http.MethodPost, url, secret, body)
	answers := make(chan answer, 1)
	go func() {
		defer close(answers)
		res, err := client.Do(r)
		if err != nil {
			t.Errorf("no answer: %v", err)
			return
		}
		defer res.Body.Close()
		a := answer{Response: res}
		a.body, _ = io.ReadAll(res.Body)
		if res.Header.Get("Content-Type") == problem.ContentType {
			_ = json.Unmarshal(a.body, &a.problem)
		}
		answers <- a
	}()
	return writer, answers
}

// readsAll is an upstream that wants the whole body before it answers.
func readsAll(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}
