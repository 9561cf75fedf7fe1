package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/google/uuid"
)

// newRequestID is a UUIDv7, so that ids sort by time in any log.
func newRequestID() string { return uuid.Must(uuid.NewV7()).String() }

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
// written.
func (p *Proxy) clientAddress(peer netip.Addr, h http.Header) (client netip.Addr, trusted bool) {
	if !p.trusts(peer) {
		return peer, false
	}
	client = peer
	values := h["X-Forwarded-For"]
	for i := len(values) - 1; i >= 0; i-- {
		rest := values[i]
		for rest != "" {
			var last string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				rest, last = "", rest
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

// budgetKey is what an address budget counts by: an IPv6 client commands a
// whole /64.
func budgetKey(addr netip.Addr) string {
	if addr.Is6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return addr.String()
}
