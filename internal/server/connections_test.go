package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keygate/internal/pace"
)

// serveBounded serves a handler on a bounded listener.
func serveBounded(t *testing.T, most int, takes pace.Pace, h http.HandlerFunc) (*bounded, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newConnectionMetrics(prometheus.NewRegistry()).bound(ln, "test", most, takes)
	s := &http.Server{Handler: h, WriteTimeout: takes.Wait} // as in listenAll: each piece has its own
	ended := make(chan error)
	go func() { ended <- s.Serve(b) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return b, ln.Addr().String()
}

func dial(t *testing.T, address, send string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// One connection too many is closed, those that are there go on, and there is room
// again when one of them ends.
func TestConnectionsAreBounded(t *testing.T) {
	b, address := serveBounded(t, 2, pace.Pace{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	asks := func(conn net.Conn, r *bufio.Reader) error {
		_, err := io.WriteString(conn, request)
		if err != nil {
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	one, oneReader := dial(t, address, "")
	two, twoReader := dial(t, address, "")
	for range 3 {
		if err := errors.Join(asks(one, oneReader), asks(two, twoReader)); err != nil {
			t.Fatal(err)
		}
		three, r := dial(t, address, "")
		if _, err := r.ReadByte(); err == nil {
			t.Fatal("a third connection is served")
		}
		_ = three.Close()
	}
	_ = one.Close()
	for b.count.Load() == 2 {
		time.Sleep(time.Millisecond)
	}
	if conn, r := dial(t, address, ""); asks(conn, r) != nil {
		t.Error("there is no room for another")
	}
}

// A client that takes nothing is cut off; one that takes a little now and then gets
// all of it.
func TestSlowReadersAreCut(t *testing.T) {
	failed := make(chan error, 1)
	_, address := serveBounded(t, 10, pace.Pace{Wait: 2 * time.Second}, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 32<<10)
		for range 1024 {
			if _, err := w.Write(block); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	})
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	dial(t, address, request)
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("of a client that takes nothing: %v", err)
	}
	_, r := dial(t, address, request)
	for range 8 {
		time.Sleep(300 * time.Millisecond)
		if _, err := io.CopyN(io.Discard, r, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; err != nil {
		t.Errorf("of one that takes its time: %v", err)
	}
}

// A client that takes a little within each time-out is cut off all the same where it
// is slower than the rate, and only there.
func TestTricklingReadersAreCut(t *testing.T) {
	const wait, every, piece = 2 * time.Second, 100 * time.Millisecond, 1000
	for name, c := range map[string]struct {
		rate int
		cut  bool
	}{"any rate": {0, false}, "below the rate": {1_000_000, true}, "above the rate": {100, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := prometheus.NewRegistry()
			b := newConnectionMetrics(registry).bound(nil, "test", 1, pace.Pace{Wait: wait, Rate: c.rate})
			ours, theirs := net.Pipe() // keeps nothing: each piece waits for its reader
			t.Cleanup(func() { _ = theirs.Close() })
			conn := b.wrap(ours)
			go func() {
				for buf := make([]byte, piece); ; time.Sleep(every) {
					if _, err := io.ReadFull(theirs, buf); err != nil {
						return
					}
				}
			}()
			var err error
			for n := 0; n < 30 && err == nil; n++ {
				_, err = conn.Write(make([]byte, piece))
			}
			if cut := errors.Is(err, os.ErrDeadlineExceeded); cut != c.cut || err != nil && !cut {
				t.Errorf("cut %v: %v", cut, err)
			}
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if n := f.Metric[0].GetCounter().GetValue(); f.GetName() == "keygate_client_connections_slow_total" && n != map[bool]float64{true: 1}[c.cut] {
					t.Errorf("%v are counted", n)
				}
			}
		})
	}
}

// net/http tells of a connection with TLS by that of TLS.
func TestStateIsNotedBelowTLS(t *testing.T) {
	c := &boundedConn{}
	c.idleBytes.Store(maxIdleBytes)
	noteState(tls.Server(c, nil), http.StateActive)
	if !c.busy.Load() || c.idleBytes.Load() != 0 {
		t.Error("the connection does not know that a request is under way")
	}
	noteState(tls.Server(c, nil), http.StateIdle)
	if c.busy.Load() {
		t.Error("the connection does not know that none is")
	}
	noteState(nil, http.StateActive) // none of ours
}
