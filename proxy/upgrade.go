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
func keepUpgrade(h http.Header) {
	delete(h, "Http2-Settings")
	if upgrade := h["Upgrade"]; len(upgrade) > 0 && (len(upgrade) > 1 || !strings.EqualFold(upgrade[0], "websocket")) {
		delete(h, "Upgrade")
	}
}
