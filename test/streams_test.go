package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// streamPolicy has a route for each kind of stream, and one that changes.
const streamPolicy = `
version: 1
upstreams:
  api: { targets: ["UPSTREAM"], timeouts: { connect: 5s } }
  grpc: { targets: ["h2c://GRPC"], timeouts: { connect: 5s } }
permissions: { "orders:read": { group: Read } }
routes:
  - { match: "GET /quick", upstream: api, permission: any }
  - { match: "POST /quick", upstream: api, permission: any }
  - { match: "GET /events/{id}", upstream: api, permission: any }
  - { match: "GET /socket", upstream: api, permission: any }
  - { match: "POST /grpc.testing.TestService/{method}", upstream: grpc, permission: any }
  - { match: "GET /first", upstream: api, permission: any }
`

// streamer is an API with server-sent events that come when the test says so,
// WebSockets that send back what they get, and requests that are answered at once.
type streamer struct {
	*upstream
	mu     sync.Mutex
	events map[string]chan string
}

func newStreamer(t *testing.T) *streamer {
	t.Helper()
	s := &streamer{events: map[string]chan string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events/{id}", s.serveEvents)
	mux.HandleFunc("GET /socket", echoSocket)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "hello\n")
	})
	s.upstream = newUpstream(t, mux.ServeHTTP)
	return s
}

func (s *streamer) of(id string) chan string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events[id] == nil {
		s.events[id] = make(chan string)
	}
	return s.events[id]
}

func (s *streamer) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_ = http.NewResponseController(w).Flush()
	events := s.of(r.PathValue("id"))
	for {
		select {
		case text, more := <-events:
			if !more {
				return
			}
			_, _ = fmt.Fprintf(w, "data: %s\n\n", text)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// echoSocket sends back what comes, frame for frame, without looking at it.
func echoSocket(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(conn, rw.Reader)
}

// openStream is one that is under way. ping has something go through it and come
// back; finish ends it and wants it whole; rest is how it ends if nobody does.
type openStream struct {
	name   string
	ping   func(text string) error
	finish func() error
	rest   func() error
}

// streams opens one of each kind, over each protocol that has it, WebSockets last.
func (g *gateway) streams(api *streamer, key string) []*openStream {
	g.t.Helper()
	return []*openStream{
		g.openEvents("events, HTTP/1.1", newClient(g.t), g.proxy, api, key),
		g.openEvents("events, HTTPS", secureClient(g.t, false), g.secureURL(), api, key),
		g.openEvents("events, HTTP/2", secureClient(g.t, true), g.secureURL(), api, key),
		g.openCall("gRPC, h2c", false, key),
		g.openCall("gRPC, HTTP/2", true, key),
		g.openSocket("WebSocket", key, func(address string) (net.Conn, error) { return net.Dial("tcp", address) }, g.proxy),
		g.openSocket("WebSocket, HTTPS", key, func(address string) (net.Conn, error) {
			return tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		}, g.secureURL()),
	}
}

func (g *gateway) openEvents(name string, c *http.Client, base string, api *streamer, key string) *openStream {
	g.t.Helper()
	c = &http.Client{Transport: c.Transport} // without a bound on the whole answer
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, name)
	r, err := http.NewRequest(http.MethodGet, base+"/events/"+id, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	res, err := c.Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		g.t.Fatalf("%s: %v %+v", name, err, res)
	}
	g.t.Cleanup(func() { _ = res.Body.Close() })
	body, events := bufio.NewReader(res.Body), api.of(id)
	rest := func() error {
		left, err := io.ReadAll(body)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("more came: %q", left)
		}
		return err
	}
	return &openStream{
		name: name, rest: rest,
		ping: func(text string) error {
			select {
			case events <- text:
			case <-time.After(patience):
				return errors.New("the upstream has no such stream any more")
			}
			line, err := body.ReadString('\n')
			if err == nil && line != "data: "+text+"\n" {
				err = fmt.Errorf("the line %q", line)
			}
			if err == nil {
				_, err = body.ReadString('\n')
			}
			return err
		},
		finish: func() error { close(events); return rest() },
	}
}

func (g *gateway) openSocket(name, key string, dial func(address string) (net.Conn, error), base string) *openStream {
	g.t.Helper()
	_, address, _ := strings.Cut(base, "://")
	conn, err := dial(address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer "+key+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); err != nil {
		g.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 101 ") {
		g.t.Fatalf("%s: %q %v", name, line, err)
	}
	if _, err := textproto.NewReader(r).ReadMIMEHeader(); err != nil {
		g.t.Fatal(err)
	}
	return &openStream{
		name: name,
		ping: func(text string) error {
			frame := "\x81" + string(rune(len(text))) + text // RFC 6455, section 5.2: short and without a mask
			if _, err := io.WriteString(conn, frame); err != nil {
				return err
			}
			got := make([]byte, len(frame))
			if _, err := io.ReadFull(r, got); err != nil {
				return err
			}
			if string(got) != frame {
				return fmt.Errorf("the frame %q", got)
			}
			return nil
		},
		finish: conn.Close,
		rest: func() error {
			left, err := io.ReadAll(r)
			if err == nil {
				err = fmt.Errorf("it ended with %s", left)
			}
			return err
		},
	}
}

func (g *gateway) openCall(name string, secure bool, key string) *openStream {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.t.Cleanup(cancel)
	call, err := testgrpc.NewTestServiceClient(g.dialGRPC(secure, key)).FullDuplexCall(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	rest := func() error { _, err := call.Recv(); return err }
	return &openStream{
		name: name, rest: rest,
		ping: func(text string) error {
			if err := call.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: int32(len(text))}}}); err != nil {
				return err
			}
			answer, err := call.Recv()
			if err == nil && len(answer.GetPayload().GetBody()) != len(text) {
				err = fmt.Errorf("the message %v", answer)
			}
			return err
		},
		finish: func() error {
			if err := call.CloseSend(); err != nil {
				return err
			}
			if err := rest(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("it ended with %w", err)
			}
			return nil
		},
	}
}

func pingAll(t *testing.T, streams []*openStream, text string) {
	t.Helper()
	for _, s := range streams {
		if err := s.ping(text); err != nil {
			t.Fatalf("%s, %s: %v", s.name, text, err)
		}
	}
}

// callers are clients of all kinds that ask until they are told to stop; in the long
// form without a pause, else with one that leaves room for other tests. None of their
// requests may fail.
type callers struct {
	requests atomic.Int64
	stopping chan struct{}
	clients  sync.WaitGroup
}

func (g *gateway) callers(key string) *callers {
	g.t.Helper()
	l, pause := &callers{stopping: make(chan struct{})}, 10*time.Millisecond
	if full() {
		pause = 0
	}
	cleartext := &http.Transport{Protocols: new(http.Protocols)}
	cleartext.Protocols.SetUnencryptedHTTP2(true)
	g.t.Cleanup(cleartext.CloseIdleConnections)
	for name, kind := range map[string]struct {
		client *http.Client
		base   string
		change []func(*http.Request)
	}{
		"HTTP/1.1":                    {newClient(g.t), g.proxy, nil},
		"HTTP/1.1, a connection each": {newClient(g.t), g.proxy, []func(*http.Request){alone}},
		"HTTPS":                       {secureClient(g.t, false), g.secureURL(), nil},
		"HTTPS, a connection each":    {secureClient(g.t, false), g.secureURL(), []func(*http.Request){alone}},
		"HTTP/2":                      {secureClient(g.t, true), g.secureURL(), nil},
		"HTTP/2 without TLS":          {&http.Client{Transport: cleartext, Timeout: patience}, g.proxy, nil},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			l.clients.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-l.stopping:
						return
					case <-time.After(pause):
					}
					body := ""
					if method == http.MethodPost {
						body = fmt.Sprint(n, " ")
					}
					a, err := try(kind.client, method, kind.base+"/quick", key, strings.NewReader(body), kind.change...)
					if err != nil || a.status != http.StatusOK || a.body != body+"hello\n" {
						g.t.Errorf("%s, %s, request %d: %v, %d %q", name, method, n, err, a.status, a.body)
						return
					}
					l.requests.Add(1)
				}
			})
		}
	}
	return l
}

// alone asks for a connection that is used once.
func alone(r *http.Request) { r.Close = true }

func (l *callers) stop() {
	close(l.stopping)
	l.clients.Wait()
}

// flows waits until so many more requests have been answered.
func (l *callers) flows(t *testing.T, more int64) {
	t.Helper()
	until := l.requests.Load() + more
	eventually(t, "requests are answered", func() bool { return t.Failed() || l.requests.Load() >= until })
}
