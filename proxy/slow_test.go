package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"keygate/auth"
	"keygate/internal/keys"
)

// A client that stops sending held its place, and the upstream's, for as long as it
// liked where the route had no total. It is answered 408, the upstream is not blamed,
// and a client that sends something now and then may take its time.
func TestClientThatStopsSending(t *testing.T) {
	const patient = 400 * time.Millisecond
	g := newGate(t, gateOptions{patient: patient})
	g.upstream.answer = readsAll
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		t.Parallel()
		writer, answers := pipeTo(t, client, url+"/any/x", secret)
		_, _ = io.WriteString(writer, "begun")
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusRequestTimeout || a.problem.Error != "Request timed out" {
			t.Errorf("a client that stops: %v %s", a.Response, a.body)
		}
		writer, answers = pipeTo(t, client, url+"/any/x", secret)
		for range 8 { // much longer than the bound in all
			_, _ = io.WriteString(writer, "x")
			time.Sleep(patient / 4)
		}
		_ = writer.Close()
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusOK || string(a.body) != "xxxxxxxx" {
			t.Errorf("a client that is only slow: %v %s", a.Response, a.body)
		}
	})
}

// What bounds the client's sending must not bound the upstream's thinking, nor a
// conversation in which the answer has begun.
func TestPatienceIsForTheBodyAlone(t *testing.T) {
	const patient = 200 * time.Millisecond
	g := newGate(t, gateOptions{patient: patient})
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/any/talk" {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(w, r.Body)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(3 * patient)
		_, _ = io.WriteString(w, "thought")
	}
	_, secret := g.key(keys.NewKey{})
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		t.Parallel()
		writer, answers := pipeTo(t, client, url+"/any/think", secret)
		_, _ = io.WriteString(writer, "question")
		_ = writer.Close()
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusOK || string(a.body) != "thought" {
			t.Errorf("an upstream that thinks: %v %s", a.Response, a.body)
		}
		writer, answers = pipeTo(t, client, url+"/any/talk", secret)
		_, _ = io.WriteString(writer, "one,")
		time.Sleep(3 * patient)
		_, _ = io.WriteString(writer, "two")
		_ = writer.Close()
		if a, ok := <-answers; !ok || a.StatusCode != http.StatusOK || string(a.body) != "one,two" {
			t.Errorf("a conversation: %v %s", a.Response, a.body)
		}
	})
}

// One key's requests under way have a bound of their own, which costs no other key
// anything and comes before what the limits count.
func TestRequestsUnderWayPerKey(t *testing.T) {
	const most = 5
	policy := strings.Replace(testPolicy, "requests: 3, per: 1m }, { name: burst, requests: 2, per: 1s }", "requests: 6, per: 1m }", 1)
	g := newGate(t, gateOptions{perKey: most, policy: policy})
	release := make(chan struct{})
	arrived := make(chan struct{}, 2*most)
	g.upstream.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/any/hold" {
			arrived <- struct{}{}
			<-release
		}
	}
	_, secret := g.key(keys.NewKey{Plan: "tiny"})
	_, other := g.key(keys.NewKey{Name: "other"})
	var held []<-chan answer
	for range most {
		writer, answers := pipeTo(t, http.DefaultClient, g.url+"/any/hold", secret)
		_ = writer.Close()
		held = append(held, answers)
		<-arrived
	}
	for range 3 {
		a := g.get("GET", "/any/x", secret)
		if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || !slices.Equal(a.problem.ViolatedPolicies, []string{"under-way"}) {
			t.Errorf("one too many: %d %v %s", a.StatusCode, a.Header, a.body)
		}
		if a := g.get("GET", "/any/x", other); a.StatusCode != http.StatusOK {
			t.Errorf("another key: %d %s", a.StatusCode, a.body)
		}
		if a := g.get("GET", "/.keygate/me", secret); a.StatusCode != http.StatusOK {
			t.Errorf("what a key asks about itself: %d %s", a.StatusCode, a.body)
		}
	}
	for _, asked := range []struct {
		secret string
		status int
	}{{secret, http.StatusTooManyRequests}, {other, 0}} {
		e := g.proxy.Explain(t.Context(), auth.Question{Method: "GET", Target: "/any/x", Key: keys.HashSecret(asked.secret)})
		if limit := e.Checks[len(e.Checks)-2]; e.Status != asked.status || limit.Name != "limit" || strings.Contains(limit.Detail, "under way") != (asked.status != 0) {
			t.Errorf("explained as %d: %+v", e.Status, limit)
		}
	}
	close(release)
	for _, answers := range held {
		if a := <-answers; a.Response == nil || a.StatusCode != http.StatusOK {
			t.Errorf("one that was held: %v", a.Response)
		}
	}
	// Of six requests a minute five are spent: the refused ones were not counted, and
	// all places are free.
	waitFor(t, func() bool { return g.get("GET", "/any/x", secret).StatusCode == http.StatusOK })
	if a := g.get("GET", "/any/x", secret); a.StatusCode != http.StatusTooManyRequests || !slices.Equal(a.problem.ViolatedPolicies, []string{"minute"}) {
		t.Errorf("the limit: %d %s", a.StatusCode, a.body)
	}
	if n := g.metric("keygate_crowded_keys_refused_total{}"); n != 3 {
		t.Errorf("%v refusals are counted, want 3", n)
	}
}

// A WebSocket is under way for as long as it is open, and gives its place back.
func TestWebSocketsAreUnderWay(t *testing.T) {
	g := newGate(t, gateOptions{perKey: 1})
	g.upstream.answer = streamingUpstream
	_, secret := g.key(keys.NewKey{})
	s := g.webSocket("/any/socket", secret, "")
	if a := g.get("GET", "/any/x", secret); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("beside a WebSocket: %d %s", a.StatusCode, a.body)
	}
	_ = s.Conn.Close()
	waitFor(t, func() bool { return g.get("GET", "/any/x", secret).StatusCode == http.StatusOK })
}

// A body that ends in the middle of a chunk, or never begins, is no different.
func TestRawBodyThatStops(t *testing.T) {
	g := newGate(t, gateOptions{patient: 200 * time.Millisecond})
	g.upstream.answer = readsAll
	_, secret := g.key(keys.NewKey{})
	for _, begun := range []string{
		"Content-Length: 10\r\n\r\n", "Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(conn, "POST /any/x HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer %s\r\n%s", secret, begun)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusRequestTimeout || !res.Close {
			t.Errorf("%q: %v %v", begun, res, err)
		} else if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		} else if n, err := in.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%q: the connection goes on", begun)
		}
		_ = conn.Close()
	}
}
