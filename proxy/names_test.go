package proxy_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer knows one name while it is told to, and leads it to 127.0.0.1.
type nameServer struct {
	conn  net.PacketConn
	knows atomic.Bool
	asked atomic.Int64
}

// newNameServer has this process ask it, until the test ends.
func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn}
	s.knows.Store(true)
	ended := make(chan struct{})
	go func() { defer close(ended); s.serve(t) }()
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = former
		_ = conn.Close()
		<-ended
	})
	return s
}

func (s *nameServer) serve(t *testing.T) {
	buf := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:n]); err != nil || len(m.Questions) != 1 {
			t.Errorf("no question: %v", err)
			continue
		}
		s.asked.Add(1)
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		switch {
		case !s.knows.Load():
			m.RCode = dnsmessage.RCodeServerFailure
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			}}
		}
		answer, err := m.Pack()
		if err != nil {
			t.Error(err)
			continue
		}
		_, _ = s.conn.WriteTo(answer, from) // who asked may be gone
	}
}

// A name that stops resolving costs nobody a connection that is there; who needs a
// new one gets 502, and the first request after it is back gets its answer.
func TestNameThatStopsResolving(t *testing.T) {
	names := newNameServer(t)
	u := newUpstream(t)
	g, secret := front(t, []string{strings.Replace(u.URL, "127.0.0.1", "api.keygate.test", 1)})
	wants := func(what string, status int) {
		t.Helper()
		for _, method := range []string{"GET", "POST"} {
			a := g.do(method, "/x", secret, "")
			if a.StatusCode != status || strings.Contains(string(a.body), "keygate.test") {
				t.Errorf("%s: %s: %d %s, want %d", what, method, a.StatusCode, a.body, status)
			}
		}
	}
	wants("the name leads to the upstream", http.StatusOK)
	if names.asked.Load() == 0 {
		t.Fatal("nobody asked for the name: this tests nothing")
	}
	names.knows.Store(false)
	wants("over the connection that is kept", http.StatusOK)
	u.CloseClientConnections()
	wants("without a name", http.StatusBadGateway)
	names.knows.Store(true)
	wants("it is back", http.StatusOK)
}
