package server

import (
	"encoding/json"
	"net/http"
	"strings"
)

// demoName is the upstream of an instance that nobody gave one.
const demoName = "demonstration"

// demoUpstream is a small API to try keygate with: it shows what an upstream
// gets to see of a request.
func demoUpstream() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		identity := make(map[string]string)
		for name, values := range r.Header {
			if strings.HasPrefix(name, "X-Keygate-") || name == "X-Request-Id" || strings.HasPrefix(name, "X-Forwarded-") {
				identity[name] = strings.Join(values, ", ")
			}
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		// An error here means that keygate went away, and then nobody reads it.
		_ = enc.Encode(map[string]any{
			"message":  "Hello from keygate's demonstration API. Set KEYGATE_UPSTREAM to put keygate in front of yours.",
			"method":   r.Method,
			"path":     r.URL.EscapedPath(),
			"identity": identity,
		})
	})
}
