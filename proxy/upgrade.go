package proxy

import (
	"net/http"
	"strings"
)

// keepUpgrade lets a request change to WebSocket and to nothing else. A
// connection that changed is no longer looked at: over h2c (RFC 7540, section
// 3.2) any request could be made through it, past every rule. Without these
// headers the upstream answers in HTTP/1.1, as it may (RFC 9110, section 7.8).
// They are gone before httputil.ReverseProxy looks: it takes a protocol whose name
// is not ASCII for an upstream that failed.
func keepUpgrade(r *http.Request) {
	delete(r.Header, "Http2-Settings")
	if len(r.Header["Upgrade"]) > 0 && !asksForWebSocket(r) {
		delete(r.Header, "Upgrade")
	}
}

// asksForWebSocket reports whether a request is a handshake: a GET of HTTP/1.1 without a
// body (RFC 6455, section 4.1), which would be read while the connection is another's.
func asksForWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && r.ProtoAtLeast(1, 1) && r.Method == http.MethodGet && r.ContentLength == 0
}
