package auth

import (
	"fmt"
	"net/netip"
	"time"
)

// AddressKey is what budgets of client addresses count by: whoever has an IPv6
// address commands the whole /64 around it.
func AddressKey(addr netip.Addr) string {
	if addr.Is6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return addr.String()
}

// Failed counts a request that failed through its client's doing against the
// budget of the client's address, and refuses it as one too many where that is
// used up. It is for answers to what cannot succeed: a valid key is never asked.
func (a *Authenticator) Failed(client netip.Addr) *Refusal {
	if a.failures == nil || !client.IsValid() {
		return nil
	}
	if ok, wait := a.failures.Allow(AddressKey(client)); !ok {
		return a.tooMany(wait)
	}
	return nil
}

// exhausted is Failed without counting anything, for what is not even looked up.
func (a *Authenticator) exhausted(client netip.Addr) *Refusal {
	if a.failures == nil || !client.IsValid() {
		return nil
	}
	left, wait := a.failures.Peek(AddressKey(client))
	if left > 0 {
		return nil
	}
	r := a.tooMany(wait)
	r.Detail = fmt.Sprintf("Too many requests from this address failed, so that imported API keys which the gateway does not have in memory are not looked up for it at the moment. Wait %d s before the next request.", r.RetryAfter)
	return r
}

func (a *Authenticator) tooMany(wait time.Duration) *Refusal {
	seconds := max(1, int64((wait+time.Second-1)/time.Second))
	r := refuse(TooManyFailures, "Too many requests from this address failed: with keys that do not exist, or to where nothing is. Wait "+
		fmt.Sprint(seconds)+" s before the next one; requests with a valid API key of this gateway are served meanwhile.")
	r.RetryAfter = seconds
	a.cache.stats.FailuresRefused.Add(1)
	return r
}
