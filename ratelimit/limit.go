// Package ratelimit decides whether a request still fits the limits of its
// plan. A [Limiter] stands in front of a [Ledger], which keeps what was spent:
// in memory for a single replica, in Redis for any number of them.
//
// The guarantee of every ledger: in each window of a limit's length at most its
// quota is admitted, over all replicas together. docs/limits.md explains why.
package ratelimit

import (
	"fmt"
	"time"
)

// Limit is one bound on what a holder may spend.
type Limit struct {
	// Name is shown to clients in RateLimit headers and names the budget in
	// the ledger. Unique within the limits of one ask.
	Name string
	// Holder owns the budget: a key's id, or an organization's id where all
	// its keys share one budget.
	Holder string
	// Quota is the number of units of cost admitted in any window; at least 1.
	Quota int64
	// Per is the length of the sliding window, in whole seconds; 0 means a
	// calendar period, given by Start, End and NextEnd, or Concurrent.
	Per time.Duration
	// Period and Zone say what a calendar quota counts in; UTC if Zone is nil.
	// Ledgers look at neither: In computes the bounds from them.
	Period Period
	Zone   *time.Location
	// Start and End bound the present calendar period and NextEnd closes the
	// one after it, so that the ledger's clock picks the right one.
	Start, End, NextEnd time.Time
	// Shared says that all keys of an organization draw on one budget: its
	// Holder is the organization.
	Shared bool
	// Concurrent limits requests in flight rather than requests per window. Its
	// asks have no other limits: such a session counts what has not ended yet.
	Concurrent bool
}

// ConcurrentName is the name of the limit on requests in flight.
const ConcurrentName = "concurrent"

// Bounds of a sliding limit. The upper ones keep every product that the ledger
// forms (microseconds, counts) far inside 53 bits, where Lua numbers are exact.
const (
	MinWindow = time.Second
	MaxWindow = 31 * 24 * time.Hour
	MaxQuota  = 1_000_000_000_000
	// MaxConcurrent bounds a limit on requests in flight.
	MaxConcurrent = 1_000_000
	// MaxName bounds a limit's name; it is printed in headers.
	MaxName = 32
)

// Validate reports the first thing that is wrong with the limit as it stands in
// a policy: its holder is set later, for each key.
func (l Limit) Validate() error {
	if err := validateName(l.Name); err != nil {
		return err
	}
	if l.Quota < 1 || l.Quota > MaxQuota {
		return fmt.Errorf("limit %q: requests is %d; allowed are 1 to %d", l.Name, l.Quota, int64(MaxQuota))
	}
	if l.Period != NoPeriod {
		if l.Per != 0 || l.Period > Month {
			return fmt.Errorf("limit %q: per is both a duration and a calendar period", l.Name)
		}
		return nil
	}
	if l.Zone != nil {
		return fmt.Errorf("limit %q: a time zone is allowed only with a calendar period", l.Name)
	}
	if l.Per < MinWindow || l.Per > MaxWindow || l.Per%time.Second != 0 {
		return fmt.Errorf("limit %q: per is %s; allowed are whole seconds from %s to %s", l.Name, l.Per, MinWindow, MaxWindow)
	}
	return nil
}

// LeaseTime is τ of the limit: how long a lease of it may be spent.
func (l *Limit) LeaseTime() time.Duration {
	switch {
	case l.Concurrent:
		return ConcurrentLease
	case l.Per == 0:
		return maxLease
	}
	return LeaseTime(l.Per)
}

// validateName accepts what can stand in a structured header field (RFC 9651,
// section 3.3.3) without quoting, so that clients see the name as it was written.
func validateName(s string) error {
	if s == "" || len(s) > MaxName {
		return fmt.Errorf("limit name %q: allowed are 1 to %d characters", s, MaxName)
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return fmt.Errorf("limit name %q: allowed are letters, digits, '_', '-' and '.'", s)
		}
	}
	return nil
}

// State is what one limit looks like after a decision.
type State struct {
	Name      string
	Quota     int64
	Remaining int64
	// NextUnit is the time until Remaining next grows; 0 while nothing is spent.
	NextUnit time.Duration
	// RetryAfter is the time until the denied cost fits; 0 unless Violated.
	RetryAfter time.Duration
	Violated   bool
}

// Decision answers one request.
type Decision struct {
	Allowed bool
	// RetryAfter is the largest over the violated limits: a client that waits
	// that long is admitted if nobody else spends the budget meanwhile.
	RetryAfter time.Duration
	// Limits has one state for each limit asked, in the order asked.
	Limits []State
	// At is the ledger's time at or before the request was charged; zero where
	// that cannot be corrected later, see [Settling].
	At time.Time
	// Degraded says, in a word fit for a metric label, why a decision is
	// weaker than the promise; empty in normal operation.
	Degraded string
}
