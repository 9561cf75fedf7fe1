package proxy

import (
	"encoding/binary"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// follower is what knows where frames end.
type follower interface {
	pass(p []byte)
	between() bool
}

// ends lists the offsets in a stream at which a frame ends, given how long the one is
// that a stream begins with; 0: that is not to be known yet.
func ends(stream []byte, length func([]byte) uint64) (at []int) {
	for i := 0; ; {
		n := length(stream[i:])
		if n == 0 || n > uint64(len(stream)-i) {
			return at
		}
		i += int(n)
		at = append(at, i)
	}
}

// webSocketLength is the length of the frame that b begins with (RFC 6455, section 5.2).
func webSocketLength(b []byte) uint64 {
	if len(b) < 2 {
		return 0
	}
	head, payload := 2, uint64(b[1]&0x7f)
	switch {
	case payload == 126 && len(b) >= 4:
		head, payload = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case payload == 127 && len(b) >= 10:
		head, payload = 10, binary.BigEndian.Uint64(b[2:])
	case payload >= 126:
		return 0
	}
	if b[1]&0x80 != 0 {
		head += 4
	}
	return saturated(uint64(head), payload)
}

// grpcLength is that of the message that b begins with.
func grpcLength(b []byte) uint64 {
	if len(b) < 5 {
		return 0
	}
	return saturated(5, uint64(binary.BigEndian.Uint32(b[1:])))
}

func saturated(a, b uint64) uint64 { return a + min(b, 1<<63) }

// FuzzFrames: in whatever pieces a stream comes, it is known to stand between two
// frames exactly where one ended.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x02hi\x88\x00"), []byte{1})
	f.Add([]byte("\x82\x7e\x00\x03abc\x81\x85mask\x00\x00\x00\x00\x00"), []byte{3, 0, 2})
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01a\x00\x00"), []byte{4, 9})
	f.Add([]byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffaaaa"), []byte{200})
	f.Add([]byte("\x00\x00\x00\x00\x02hi\x01\x00\x00\x00\x00"), []byte{2, 5})
	f.Fuzz(func(t *testing.T, stream, pieces []byte) {
		for _, c := range []struct {
			name   string
			follow follower
			length func([]byte) uint64
		}{{"WebSocket", new(webSocketFrames), webSocketLength}, {"gRPC", new(grpcFrames), grpcLength}} {
			want := append(ends(stream, c.length), 0)
			for at, i := 0, 0; ; i++ {
				if got := c.follow.between(); got != slices.Contains(want, at) {
					t.Fatalf("%s: after %d bytes of %q: between frames %v", c.name, at, stream, got)
				}
				if at == len(stream) {
					break
				}
				n := 1
				if len(pieces) > 0 {
					n = int(pieces[i%len(pieces)]) + 1
				}
				n = min(n, len(stream)-at)
				c.follow.pass(stream[at : at+n])
				at += n
			}
		}
	})
}

// FuzzForwardedFor: nobody but a trusted proxy has a say in who the client is, and
// nobody at all about what those saw who stand nearer.
func FuzzForwardedFor(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.1", "", "198.51.100.7", false)
	f.Add("203.0.113.9", "10.0.0.2", "10.0.0.1", true)
	f.Add("::ffff:10.0.0.3, 2001:db8::1%eth0, [2001:db8::2]:80", "10.0.0.4:1234", "10.0.0.1", true)
	f.Add("junk, ,10.0.0.9", ",", "10.0.0.1", true)
	p := &Proxy{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::/48")}}
	f.Fuzz(func(t *testing.T, first, second, remote string, two bool) {
		h := http.Header{"X-Forwarded-For": {first}}
		if two {
			h["X-Forwarded-For"] = append(h["X-Forwarded-For"], second)
		}
		peer, err := netip.ParseAddr(remote)
		if err != nil {
			peer = netip.MustParseAddr("10.0.0.1")
		}
		peer = peer.Unmap().WithZone("")
		client, trusted := p.clientAddress(peer, h)
		if want := nearest(peer, strings.Split(strings.Join(h["X-Forwarded-For"], ","), ","), p.trusts); client != want || trusted != p.trusts(peer) {
			t.Fatalf("%q by way of %s: the client is %s, want %s", h, peer, client, want)
		}
		if client.Zone() != "" || client.Is4In6() || !client.IsValid() {
			t.Fatalf("%q: the client's address %s has another form too", h, client)
		}
		if !p.trusts(client) { // nothing that stands further away matters
			h["X-Forwarded-For"] = append([]string{"192.0.2.66, 10.0.0.66"}, h["X-Forwarded-For"]...)
			if again, _ := p.clientAddress(peer, h); again != client {
				t.Fatalf("%q: the client is %s, was %s", h, again, client)
			}
		}
	})
}

// nearest is the address that is farthest from the peer among those that an unbroken
// row of trusted ones vouches for.
func nearest(peer netip.Addr, seen []string, trusts func(netip.Addr) bool) netip.Addr {
	if !trusts(peer) || len(seen) == 0 {
		return peer
	}
	last := strings.TrimSpace(seen[len(seen)-1])
	addr, err := netip.ParseAddr(last)
	if err != nil {
		at, err := netip.ParseAddrPort(last)
		if err != nil {
			return peer
		}
		addr = at.Addr()
	}
	return nearest(addr.Unmap().WithZone(""), seen[:len(seen)-1], trusts)
}
