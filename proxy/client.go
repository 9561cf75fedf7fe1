package proxy

import (
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
)

// newRequestID is a UUIDv7 (RFC 9562, section 5.7), so that ids sort by time in
// any log: milliseconds, then 12 bits of a fraction of one (method 3 of section
// 6.2), then 62 random bits. They name a request and guard nothing, so that the
// runtime's own generator does: uuid.NewV7 asks the kernel and takes a lock.
func newRequestID(now time.Time) string {
	var id uuid.UUID
	ms := uint64(now.UnixMilli())
	fraction := uint64(now.Nanosecond()%int(time.Millisecond)) << 12 / uint64(time.Millisecond)
	binary.BigEndian.PutUint64(id[:8], ms<<16|7<<12|fraction)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|2<<62)
	return id.String()
}

// peerAddress is the address of the other end of a connection; IPv4 in IPv6
// form is IPv4. A Unix socket's peer has none.
func peerAddress(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// clientAddress finds the client behind trusted proxies: X-Forwarded-For is
// read from its end, where each proxy appended whom it saw, up to the first
// address that is not a trusted proxy. What stands before it anyone may have
// written, and before a place where none can be read too: whoever appended nothing
// vouches for nobody.
func (p *Proxy) clientAddress(peer netip.Addr, h http.Header) (client netip.Addr, trusted bool) {
	if !p.trusts(peer) {
		return peer, false
	}
	client = peer
	values := h["X-Forwarded-For"]
	for i := len(values) - 1; i >= 0; i-- {
		for rest, more := values[i], true; more; {
			last := rest
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				more = false
			}
			addr, ok := forwardedAddress(strings.TrimSpace(last))
			if !ok {
				return client, true
			}
			client = addr
			if !p.trusts(addr) {
				return client, true
			}
		}
	}
	return client, true
}

// forwardedAddress reads one element; some proxies append the port.
func forwardedAddress(s string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}

func (p *Proxy) trusts(addr netip.Addr) bool {
	for _, prefix := range p.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
