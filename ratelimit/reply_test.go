package ratelimit_test

import (
	"testing"
	"time"

	"keygate/ratelimit"
)

// A reply that says more than a ledger can have meant opens no limit: what a lease holds
// is at most the least quota, and it ends when leases do.
func TestTrapReplyThatSaysTooMuch(t *testing.T) {
	l := newLine(t, minute(100), limit("hour", 3000, time.Hour))
	lie := func() (again bool) {
		r := l.Compose("key_a")
		if r == nil {
			return false
		}
		g := l.lease(ratelimit.AskOf(r))
		if ratelimit.AskOf(r).Session != "" {
			g.Leased, g.TTL = 1<<53, 1<<53*time.Microsecond
		}
		_, again = l.Receive("key_a", r, &g)
		return again
	}
	for range 4 {
		for range 4 {
			l.Request(l.ask())
		}
		for range 4 {
			if !lie() {
				break
			}
		}
	}
	_, granted, total, live := l.Lease("key_a")
	if !live || granted-total > 100 {
		t.Errorf("%d of %d spent, live %t", total, granted, live)
	}
	l.advance(tau)
	if _, _, _, live := l.Lease("key_a"); live {
		t.Error("it lives on")
	}
}
