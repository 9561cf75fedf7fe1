package proxy

import (
	"context"

	"keygate/auth"
)

// A key that came where others can read it must be taken as theirs. The client is told
// so, if at all, whether or not it is a key; whose it is only the operator learns.
// Strings that are no key cost what they cost anywhere: the budget of their address.

// Where a key was exposed, as the audit log and the metric name it.
const (
	exposedInURL   = "url"
	exposedInClear = "plain_http"
)

// findInClear finds out whose key was sent in clear.
func (p *Proxy) findInClear(x *exchange) {
	token, _ := auth.Bearer(x.r.Header, x.exposed)
	if x.keyID = p.exposes(x, token, exposedInClear); x.keyID != "" {
		x.inClear = true
		p.metrics.exposedInClear.Inc()
	}
}

// findInURL finds out whose key stood in the URL, which histories and logs of others
// keep.
func (p *Proxy) findInURL(x *exchange) {
	found := p.exposes(x, auth.InURL(p.format, x.r.URL), exposedInURL)
	if x.principal == nil && x.keyID == "" {
		x.keyID = found
	}
}

// exposes has a key reported and returns its id; "" where the token is nobody's.
func (p *Proxy) exposes(x *exchange, token, where string) (key string) {
	if token == "" {
		return ""
	}
	// Also when the client has gone meanwhile: the key is exposed all the same.
	principal, refused := p.auth.Authenticate(context.WithoutCancel(x.r.Context()), token, x.client, x.policy.keys)
	if refused != nil {
		key = refused.Key // of one that is not in force
	} else {
		key = principal.Key.ID
	}
	if key != "" && p.exposed != nil {
		p.exposed(key, where, x.client)
	}
	return key
}
