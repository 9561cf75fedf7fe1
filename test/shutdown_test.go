package test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// slowUpstream holds every request until it is released.
func slowUpstream(t *testing.T) (u *upstream, release func()) {
	t.Helper()
	gate := make(chan struct{})
	release = func() { close(gate) }
	return newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-gate:
			_, _ = io.WriteString(w, "done\n")
		case <-r.Context().Done():
		}
	}), release
}

type outcome struct {
	answer
	err error
}

// inFlight sends requests that the upstream holds, and returns when it has all of them.
func (g *gateway) inFlight(u *upstream, n int) <-chan outcome {
	g.t.Helper()
	outcomes := make(chan outcome, n)
	c, key := newClient(g.t), g.newKey("in flight").Secret
	for range n {
		go func() {
			a, err := try(c, http.MethodGet, g.proxy+"/slow", key, nil)
			outcomes <- outcome{a, err}
		}()
	}
	eventually(g.t, "the upstream has all requests", func() bool { return u.count.Load() == int64(n) })
	return outcomes
}

// draining waits until the gateway says that it is on its way out.
func (g *gateway) draining() {
	g.t.Helper()
	eventually(g.t, "/readyz says that it drains", func() bool {
		status, body := g.readyz()
		if (status == http.StatusServiceUnavailable) != body.Draining || body.Ready == body.Draining {
			g.t.Errorf("/readyz: %d %+v", status, body)
		}
		return body.Draining
	})
}

// Requests under way finish; new ones go elsewhere; who asks is told.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, release := slowUpstream(t)
			g := start(t, settings{"KEYGATE_UPSTREAM": u.URL, "KEYGATE_DEFAULT_PLAN": "enterprise"})
			outcomes := g.inFlight(u, 5)
			g.signal(signal)
			g.draining()
			eventually(t, "new connections are refused", func() bool {
				_, err := try(newClient(t), http.MethodGet, g.proxy+"/slow", "", nil)
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			if !g.running() || g.do(http.MethodGet, g.management+"/livez", "", "").status != http.StatusOK {
				t.Error("it is not alive while it drains")
			}
			release()
			for range 5 {
				if o := <-outcomes; o.err != nil || o.status != http.StatusOK || o.body != "done\n" {
					t.Errorf("a request under way: %+v", o)
				}
			}
			if code := g.wait(); code != 0 {
				t.Errorf("exit code %d; it said:\n%s", code, g.said())
			}
			if n := len(g.logged("request")); n < 5 {
				t.Errorf("the access log has %d lines, want those of all 5 requests", n)
			}
			if len(g.logged("stopped")) != 1 {
				t.Errorf("the log does not say that it stopped:\n%s", g.said())
			}
		})
	}
}

// What does not finish in time is cut off: that is an end as it was ordered,
// with code 0 and a warning.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	u, _ := slowUpstream(t)
	g := start(t, settings{"KEYGATE_UPSTREAM": u.URL, "KEYGATE_DRAIN_TIMEOUT": "300ms"})
	outcomes := g.inFlight(u, 3)
	g.stop()
	for range 3 {
		if o := <-outcomes; o.err == nil {
			t.Errorf("a request that was cut off was answered: %+v", o)
		}
	}
	if len(g.logged("requests were cut off")) != 1 {
		t.Errorf("no warning:\n%s", g.said())
	}
}

// Whoever cannot wait asks twice.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	u, _ := slowUpstream(t)
	g := start(t, settings{"KEYGATE_UPSTREAM": u.URL, "KEYGATE_DRAIN_TIMEOUT": "1h"})
	outcomes := g.inFlight(u, 1)
	g.signal(syscall.SIGTERM)
	g.draining()
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code == 0 {
		t.Error("exit code 0")
	}
	if status, ok := g.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended by %v, want SIGTERM as the cause", g.cmd.ProcessState)
	}
	select {
	case o := <-outcomes:
		if o.err == nil {
			t.Errorf("the request was answered: %+v", o)
		}
	case <-time.After(patience):
		t.Error("the request hangs")
	}
}

// streamingGateway is one with every kind of stream open and clients of every kind
// under way.
func streamingGateway(t *testing.T, s settings) (*gateway, *streamer, []*openStream, *callers) {
	t.Helper()
	api, files := newStreamer(t), newCertificate(t, 1)
	env := settings{
		"KEYGATE_POLICY": strings.ReplaceAll(inFrontOf(api.upstream, streamPolicy), "GRPC", grpcServer(t)), "KEYGATE_DEFAULT_PLAN": "enterprise",
		"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
	}
	maps.Copy(env, s)
	g := start(t, env)
	key := g.newKey("caller").Secret
	streams, callers := g.streams(api, key), g.callers(key)
	pingAll(t, streams, "before")
	callers.flows(t, 100)
	return g, api, streams, callers
}

// Whoever balances the load and looks at /readyz sends the gateway's requests
// elsewhere before it stops to take them: not one is refused, whatever it came over.
// Each stream goes on to its own end, WebSockets too, of which http.Server's Shutdown
// knows nothing: they were cut at once.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	rounds, delay := 1, "5s"
	if full() {
		rounds, delay = 20, "15s" // under all the load that there is room for
	}
	for range rounds {
		testStopUnderLoad(t, delay)
	}
}

func testStopUnderLoad(t *testing.T, delay string) {
	g, _, streams, callers := streamingGateway(t, settings{"KEYGATE_DRAIN_DELAY": delay, "KEYGATE_DRAIN_TIMEOUT": "2m"})
	g.signal(syscall.SIGTERM)
	g.draining()
	callers.flows(t, 20)
	res, err := newClient(t).Get(g.proxy + "/quick") // over a connection of its own
	if err != nil || res.StatusCode != http.StatusUnauthorized || !res.Close {
		t.Fatalf("a new connection, /readyz having turned: %v %+v", err, res)
	}
	res.Body.Close()
	callers.stop()
	for _, base := range []string{g.proxy, g.secureURL()} {
		eventually(t, "new connections are refused", func() bool {
			_, address, _ := strings.Cut(base, "://")
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
	for i := range 3 {
		pingAll(t, streams, fmt.Sprint("draining ", i))
	}
	for _, s := range streams {
		if strings.HasPrefix(s.name, "WebSocket") {
			time.Sleep(time.Second) // by then it would have ended, having nothing else to wait for; if not, this tests less
		}
		if err := errors.Join(s.ping("the last"), s.finish()); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d; it said:\n%s", code, g.said())
	}
	if cut := g.logged("requests were cut off"); len(cut) > 0 {
		t.Errorf("logged: %v", cut)
	}
	answered := 0
	for _, line := range g.logged("request") {
		if line["http.response.status_code"] != float64(http.StatusUnauthorized) {
			answered++
		}
		if line["aborted"] == true {
			t.Errorf("logged as aborted: %v", line)
		}
	}
	if want := int(callers.requests.Load()) + len(streams); answered != want {
		t.Errorf("the access log has %d requests, want %d", answered, want)
	}
}

// A stream that outlives the drain time is cut in a way that its client can tell
// from an end: with words where its protocol has some. That is no failure of the
// program's.
func TestStopCutsStreams(t *testing.T) {
	t.Parallel()
	g, _, streams, callers := streamingGateway(t, settings{"KEYGATE_DRAIN_TIMEOUT": "1s"})
	callers.stop()
	g.stop()
	for _, s := range streams {
		err := s.rest()
		kind, _, _ := strings.Cut(s.name, ",")
		want := map[string]string{"events": "", "WebSocket": "\x03\xe9the gateway is stopping", "gRPC": "the gateway is stopping"}[kind]
		if err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", s.name, err, want)
		}
		if kind == "gRPC" && status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want %v", s.name, err, codes.Unavailable)
		}
	}
	if len(g.logged("requests were cut off")) == 0 {
		t.Errorf("no warning:\n%s", g.said())
	}
	cut := 0
	for _, line := range g.logged("request") {
		if strings.Contains(fmt.Sprint(line["reason"]), "keygate stops") {
			cut++
		}
	}
	if cut != len(streams) {
		t.Errorf("the log says of %d of %d streams that the end of the drain cut them", cut, len(streams))
	}
}
