package proxy

import (
	"net/http"
	"strings"

	"keygate/internal/problem"
)

// cameSecurely reports whether the client's own connection was HTTPS: the one to
// keygate, or what a trusted proxy in front says of the one to it. A proxy that
// says several things, or something else than https, is not taken at its word.
func cameSecurely(r *http.Request, trusted bool) bool {
	if trusted {
		if said := r.Header["X-Forwarded-Proto"]; len(said) > 0 {
			return len(said) == 1 && strings.EqualFold(said[0], "https")
		}
	}
	return r.TLS != nil
}

// checkSecure refuses what came in clear where HTTPS is required. A redirect would
// hide that the key has been sent in clear already, and go on hiding it.
func (p *Proxy) checkSecure(x *exchange) *refusal {
	if !p.https || x.secure {
		return nil
	}
	p.findInClear(x)
	return &refusal{decision: forbidden, problem: problem.Problem{
		Status: http.StatusForbidden, Error: "HTTPS is required",
		Detail: "This API is for HTTPS only. If the request carried an API key it was sent in clear and must be taken as exposed: rotate it.",
	}}
}
