package auth

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"keygate/internal/keys"
	"keygate/proxy/route"
)

// Holds reports whether nothing of what a principal stands on, its key, the key's
// owner and organization, has changed as far as this replica knows.
func (a *Authenticator) Holds(p *Principal) bool { return a.cache.stamps.holds(p.stamp) }

// Silent reports whether the change feed has been silent for so long that nothing
// remembered is trusted.
func (a *Authenticator) Silent() bool { return !a.cache.isFresh() }

// Ended reports whether the key, or the secret that was presented, has ended by
// itself.
func (p *Principal) Ended(now time.Time) bool {
	for _, at := range [...]moment{p.Key.expires, p.Secret.ends} {
		if at != 0 && !now.Before(at.time()) {
			return true
		}
	}
	return false
}

// Recheck decides anew about a request that was admitted before and is still under
// way. It is no use of the key, and no failure of its client.
func (a *Authenticator) Recheck(ctx context.Context, r *http.Request, rule *route.Rule, client netip.Addr, policy *keys.Policy) (*Principal, *Refusal) {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return nil, unknownKey() // it would not have been admitted
	}
	e, refusal := a.entry(ctx, keys.HashSecret(token(values[0])), policy)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := stateAt(&e.record, a.now()); refusal != nil {
		return nil, refusal
	}
	p, refusal := a.under(e, policy)
	if refusal != nil {
		return nil, refusal
	}
	if _, refusal := a.Authorize(ctx, p, r, rule, client); refusal != nil {
		return nil, refusal
	}
	return p, nil
}
