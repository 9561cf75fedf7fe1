package proxy_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"keygate/internal/keys"
)

// A byte now and then held a place for as long as the client liked: each one gave it
// the whole time-out anew. It must be as fast as the rate says while it is waited for;
// who is may take longer than the time-out in all.
func TestClientThatDribbles(t *testing.T) {
	const patient, every = 400 * time.Millisecond, 20 * time.Millisecond
	g := newGate(t, gateOptions{patient: patient, rate: 2000})
	g.upstream.answer = readsAll
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		writer, answers := pipeTo(t, client, url+"/any/x", secret)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for n := 0; n < 1000; n++ {
				if _, err := io.WriteString(writer, "x"); err != nil {
					return
				}
				time.Sleep(every)
			}
		}()
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusRequestTimeout {
			t.Errorf("a client that dribbles: %v %s", a.Response, a.body)
		}
		_ = writer.Close()
		<-ended

		writer, answers = pipeTo(t, client, url+"/any/x", secret)
		piece := strings.Repeat("x", 1000) // wins back 500 ms
		for range 3 * patient / every {
			_, _ = io.WriteString(writer, piece)
			time.Sleep(every)
		}
		_ = writer.Close()
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusOK {
			t.Errorf("a client that keeps to the rate: %v", a.Response)
		}
	})
	if n := g.metric(`keygate_slow_clients_cut_total{part="body"}`); n != 2 {
		t.Errorf("%v bodies are counted as slow, want 2", n)
	}
}

// An upload is as slow as its upstream reads. That is not the client's fault: it is
// waited for in nothing meanwhile.
func TestUpstreamThatReadsSlowly(t *testing.T) {
	const patient = 300 * time.Millisecond
	g := newGate(t, gateOptions{patient: patient, rate: 1_000_000})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			time.Sleep(2 * patient)
			if _, err := io.CopyN(io.Discard, r.Body, 2<<20); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		_, _ = io.Copy(w, r.Body)
	}
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		t.Parallel()
		writer, answers := pipeTo(t, client, url+"/any/x", secret)
		_, _ = writer.Write(make([]byte, 6<<20))
		_, _ = io.WriteString(writer, "end")
		_ = writer.Close()
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusOK || string(a.body) != "end" {
			t.Errorf("%v %s", a.Response, a.body)
		}
	})
}

// A call of gRPC in which the client streams may be silent before there is an answer.
// That is so over HTTP/2, which gRPC needs: what else calls itself gRPC is not.
func TestSilentClientOfGRPC(t *testing.T) {
	const patient = 200 * time.Millisecond
	g := newGate(t, gateOptions{patient: patient, rate: 1000})
	g.upstream.answer = readsAll
	_, secret := g.key(keys.NewKey{})
	url2, client2 := g.overHTTP2()
	for url, on := range map[string]struct {
		client *http.Client
		status int
		text   string
	}{url2: {client2, http.StatusOK, "onetwo"}, g.url: {http.DefaultClient, http.StatusOK, ""}} {
		body, writer := io.Pipe()
		r := request(t, http.MethodPost, url+"/any/x", secret, body)
		r.Header.Set("Content-Type", "application/grpc")
		go func() {
			_, _ = io.WriteString(writer, "one")
			time.Sleep(4 * patient)
			_, _ = io.WriteString(writer, "two")
			_ = writer.Close()
		}()
		res, err := on.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != on.status || string(text) != on.text || (on.text == "") != (res.Header.Get("Grpc-Status") != "") {
			t.Errorf("%s: %v %q", res.Proto, res, text)
		}
	}
	if n := g.metric(`keygate_slow_clients_cut_total{part="body"}`); n != 1 {
		t.Errorf("%v bodies are counted as slow, want 1", n)
	}
}

// Over HTTP/2 an answer that nobody reads stands still while its connection does not:
// the client opens no window for it. No time-out of the connection saw that, and it
// held its place for ever. One in which the upstream is silent goes on.
func TestUnreadAnswerOverHTTP2(t *testing.T) {
	const takes = time.Minute // of the test's clock
	g := newGate(t, gateOptions{takes: takes, rate: 240})
	release := make(chan struct{})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		switch r.URL.Path {
		case "/any/silent":
			<-release
		case "/any/endless":
			block := make([]byte, 64<<10)
			for {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}
		_, _ = io.WriteString(w, "end")
	}
	_, secret := g.key(keys.NewKey{})
	url, client := g.overHTTP2()
	get := func(path string) *http.Response {
		t.Helper()
		res, err := client.Do(request(t, http.MethodGet, url+path, secret, nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	silent, unread := get("/any/silent"), get("/any/endless")
	g.proxy.CheckStreams(context.Background())
	waitFor(t, func() bool {
		g.wait(takes)
		g.proxy.CheckStreams(context.Background())
		return g.metric(`keygate_slow_clients_cut_total{part="answer"}`) == 1
	})
	if n, err := io.Copy(io.Discard, unread.Body); err == nil {
		t.Errorf("an answer without end has one after %d bytes", n)
	}
	close(release)
	if text, err := io.ReadAll(silent.Body); err != nil || string(text) != "end" {
		t.Errorf("a silent upstream: %q %v", text, err)
	}
	if text, err := io.ReadAll(get("/any/x").Body); err != nil || string(text) != "end" {
		t.Errorf("the same connection: %q %v", text, err)
	}
	waitFor(t, func() bool {
		for _, line := range g.logs.FilterLevelExact(zapcore.InfoLevel).All() {
			if line.ContextMap()["error"] == "the client did not take the answer in time" {
				return true
			}
		}
		return false
	})
}
