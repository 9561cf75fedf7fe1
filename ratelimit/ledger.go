package ratelimit

import (
	"context"
	"errors"
	"time"
)

// CallTimeout is D of the exact path: what a Take books is charged as if it
// were admitted at the end of this time, and whoever asked admits only before it.
const CallTimeout = 50 * time.Millisecond

// Drift is ρ: by how much the clock of a replica may run faster or slower than
// the ledger's. Whoever waits for a span of the ledger's time to end takes 2ρ
// off it, once for each clock.
const Drift = 0.001

// Less2Drift shortens a span of the ledger's clock so that it ends on the clock
// of a replica before it ends on the ledger's, as far as either drifts.
func Less2Drift(d time.Duration) time.Duration {
	return d - time.Duration(2*Drift*float64(d))
}

// LeaseTime is τ of a sliding limit: how long a lease of it may be spent, a
// fifth of the window and at most two seconds. Tokens that are leased and not
// spent are missing elsewhere for that long.
func LeaseTime(per time.Duration) time.Duration {
	return min(per/5, maxLease)
}

const maxLease = 2 * time.Second

// ConcurrentLease is τ of a limit on requests in flight: for how long what has
// begun may go on without word from the ledger. What holds a place of a replica
// that died is missing elsewhere for that long.
const ConcurrentLease = 20 * time.Second

// Ledger keeps what was spent. An error means that the back end failed or that
// an ask is malformed, never "denied". Implementations are safe for concurrent use.
type Ledger interface {
	// Lease answers asks[i] in grants[i]; there must be as many grants as asks.
	// The memory is the caller's: each grant is overwritten, and its Limits are
	// appended to what capacity it has. Asks of one call are independent of one
	// another, the limits within an ask are decided together: all or none.
	// An error leaves the grants undefined; whether the asks took effect is then
	// unknown, so that nothing may be admitted on them.
	Lease(ctx context.Context, asks []Ask, grants []Grant) error
	// Peek answers what Lease would for a cost of a.Cost, and spends nothing.
	Peek(ctx context.Context, a Ask) (Grant, error)
}

// Settler is a ledger whose charges can be corrected once it is known what a
// request came to.
type Settler interface {
	// Settle makes the charge of Reserved one of Actual, for each reservation by
	// itself; a batch goes out as one pipeline. What was reserved too much returns
	// to the budgets where the charge itself is still held there, and within
	// SettleWithin; what was too little is charged from now on, also beyond the
	// quota, which delays later requests.
	//
	// Both numbers are cumulative over the corrections that Session names, so that
	// calls may be lost, repeated and overtake each other. What became of rs[i] is
	// in errs[i]; there must be as many. ErrForgotten says that the ledger does not
	// know the earlier ones: nothing was changed, and what is not settled yet may
	// be settled under another name.
	Settle(ctx context.Context, rs []Reservation, errs []error)
}

// SettleWithin is how long after its booking a charge can be corrected
// downward; a ledger remembers the corrections for as long.
const SettleWithin = 5 * time.Minute

// ErrForgotten says that a ledger does not know the corrections made before.
var ErrForgotten = errors.New("earlier corrections are not known to the ledger")

// Reservation is what requests of one key took before their cost was known.
type Reservation struct {
	Organization, Key string
	Limits            []Limit
	// Session names a series of corrections. It is not the name of a lease.
	Session string
	// Reserved is the sum of what was reserved, over the series, and Actual of what
	// it came to; Seen is the largest Reserved that the ledger is known to have
	// taken in.
	Reserved, Actual, Seen int64
	// At is the ledger's time at or before which the earliest of the charges was
	// made that the ledger is not known to have corrected.
	At time.Time
}

// Stopper is a ledger that can be told of a key's change before the replicas
// have heard of it, so that a limited key dies with its next ask wherever the
// message is late.
type Stopper interface {
	// Stop makes every ask for the key with a lower version end in Stopped, for
	// StopLife from now. Organization and key are those of the asks. A mark is
	// never lowered, so that calls may be repeated and overtake each other.
	Stop(ctx context.Context, organization, key string, version int64) error
}

// StopLife is how long a stop mark lasts. Nobody may act on a copy of a key that
// was read longer ago than this: the mark that would stop it is forgotten.
const StopLife = 24 * time.Hour

// Ask is one key's request for budget.
type Ask struct {
	// Organization places the budgets: all of one organization live together,
	// so that key and organization limits are decided in one step. Where it is
	// empty, the key stands in for it.
	Organization string
	Key          string
	// Version is the key's: one below its stop mark is answered Stopped. Rules
	// is the policy's: one below that of the last ask about any of the budgets is
	// answered Stale, unless Stored has it decided with the limits of that one.
	Version, Rules int64
	Stored         bool
	// Corrected says that the cost is known only later, see [Settler]: the request is
	// charged at once, by itself, since a correction finds no charge of a unit that
	// was leased and is not reported yet. Ledgers do not look at it.
	Corrected bool
	// Handle, if there is one, leads a [Limiter] to what it holds of the key.
	// Ledgers do not look at it.
	Handle *Handle
	// Open says that the plan prefers admitting over refusing when the ledger
	// lost its state.
	Open   bool
	Limits []Limit
	// Session names the lease being reported or extended; NextSession opens if
	// the former is gone. Both empty on the exact path. A name is never used
	// again once its session ended, and whoever asks has one ask of a session
	// under way at a time: an answer that comes after the next ask was sent
	// must be ignored, it may speak of a session that has ended since.
	Session, NextSession string
	// Spent is the session's cumulative spending, Seen the largest
	// Grant.Leased received for it.
	Spent, Seen int64
	// Take is the summed cost of the requests waiting now, booked at once, as
	// much as fits in steps of Cost. Want is how many further tokens to lease.
	Take, Want int64
	// Cost is the largest single request waiting; at least 1.
	Cost int64
	// Release ends the session: its unspent tokens return to the budget, also
	// where the key or the policy has changed since. Nothing else can be asked
	// along with it.
	Release bool
}

// Status says what became of an Ask.
type Status uint8

const (
	// Denied: something was asked for, and not one request of cost Ask.Cost fits.
	Denied Status = iota
	// Granted: Taken or Leased is what was asked, or as much as fitted; also
	// the answer to a report that asks for nothing.
	Granted
	// Expired: the session asked about is gone; Leased and TTL belong to
	// NextSession. Take is served all the same.
	Expired
	// Stopped: the key has changed since Ask.Version. Nothing was decided or
	// taken in, and of the grant only Now and Version are set. Whoever asked
	// reads the key again and, if it still may be used, asks with its version.
	Stopped
	// Stale: a replica with a newer policy has used this budget. Nothing was
	// decided or taken in; Version is the number of that policy.
	Stale
	// Lost: the ledger may have lost what was spent, and gives nothing of sliding
	// limits until it cannot matter any more; RetryAfter of those limits says
	// when. Reports are taken in all the same.
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
	// Both count whatever the status: a session that is denied more tokens may
	// still have its life prolonged for those it holds.
	Leased int64
	TTL    time.Duration
	// Now is the ledger's clock.
	Now time.Time
	// Limits has one state for each limit asked, in the order asked, as it is
	// after this answer. A limit is violated if less than Ask.Cost is left
	// and not all of Take, or nothing of Want, could be given.
	Limits []State
	// Version is the lowest that is not stopped, when Status is Stopped, and that
	// of the policy when it is Stale.
	Version int64
	// OthersHold says that other sessions hold unspent tokens, so that a
	// denial may end before RetryAfter.
	OthersHold bool
}
