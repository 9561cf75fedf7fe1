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
// is not ASCII for an upstream that failed. A client of HTTP/1.0 cannot change at all.
func keepUpgrade(r *http.Request) {
	delete(r.Header, "Http2-Settings")
	upgrade := r.Header["Upgrade"]
	if len(upgrade) > 0 && (len(upgrade) > 1 || !strings.EqualFold(upgrade[0], "websocket") || !r.ProtoAtLeast(1, 1)) {
		delete(r.Header, "Upgrade")
	}
}
