package ratelimit

import (
	"context"
	"time"
)

// CallTimeout is D of the exact path: what a Take books is charged as if it
// were admitted at the end of this time, and whoever asked admits only before it.
const CallTimeout = 50 * time.Millisecond

// Ledger keeps what was spent. An error means that the back end failed, never
// "denied". Implementations are safe for concurrent use.
type Ledger interface {
	// Lease answers each ask in order; asks of one call are independent of one
	// another, the limits within an ask are decided together: all or none.
	Lease(ctx context.Context, asks []Ask) ([]Grant, error)
	// Peek answers what Lease would for a cost of a.Cost, and spends nothing.
	Peek(ctx context.Context, a Ask) (Grant, error)
}

// Ask is one key's request for budget.
type Ask struct {
	// Organization places the budgets: all of one organization live together,
	// so that key and organization limits are decided in one step.
	Organization string
	Key          string
	// Version is the key's, Rules the policy's: an older one than the ledger
	// has seen is answered Stopped or Stale.
	Version, Rules int64
	// Open says that the plan prefers admitting over refusing when the ledger
	// lost its state.
	Open   bool
	Limits []Limit
	// Session names the lease being reported or extended; NextSession opens if
	// the former is gone. Both empty on the exact path.
	Session, NextSession string
	// Spent is the session's cumulative spending, Seen the largest
	// Grant.Leased received for it.
	Spent, Seen int64
	// Take is the summed cost of the requests waiting now, booked at once, as
	// much as fits in steps of Cost. Want is how many further tokens to lease.
	Take, Want int64
	// Cost is the largest single request waiting; at least 1.
	Cost int64
	// Release ends the session: its unspent tokens return to the budget.
	Release bool
}

// Status says what became of an Ask.
type Status uint8

const (
	// Denied: not one request of cost Ask.Cost fits.
	Denied Status = iota
	// Granted: Taken or Leased is what was asked, or as much as fitted.
	Granted
	// Expired: the session asked about is gone; Leased and TTL belong to NextSession.
	Expired
	// Stopped: the key's state changed since Ask.Version.
	Stopped
	// Stale: a replica with a newer policy has used this budget.
	Stale
	// Lost: the ledger may have lost what was spent and waits until it cannot matter.
	Lost
)

// Grant is the ledger's answer to one Ask.
type Grant struct {
	Status Status
	// Taken is how much of Ask.Take was booked.
	Taken int64
	// Admit bounds the exact path: Taken may be admitted until this long after
	// the ask was sent, less the allowance for clock drift; later it is burnt.
	Admit time.Duration
	// Leased is what the session was granted so far, cumulative. TTL is how
	// long it may be spent from the sending of the ask; 0: the deadline stays.
	Leased int64
	TTL    time.Duration
	// Now is the ledger's clock.
	Now    time.Time
	Limits []State
	// Version is the key version the ledger knows of when Status is Stopped.
	Version int64
	// OthersHold says that other sessions hold unspent tokens, so that a
	// denial may end before RetryAfter.
	OthersHold bool
}
