package ratelimit

import "sync/atomic"

// Stats are the counters of a [Limiter]. Requests that are decided from a lease
// or from memory touch none of those that all keys share: Leased is counted when
// a lease is reported.
type Stats struct {
	// Trips counts calls of the ledger, Asks what they asked: several keys
	// travel in one call.
	Trips, Asks atomic.Uint64
	// Renewals counts asks on behalf of no request that waited: for more, or to
	// prolong.
	Renewals atomic.Uint64
	// Taken and Leased are the units admitted one by one and from leases.
	Taken, Leased atomic.Uint64
	// Released counts leases that were given back, Returned the units in them.
	Released, Returned atomic.Uint64
	// Remembered counts requests denied without asking the ledger.
	Remembered atomic.Uint64
	// Burnt is the cost that was booked or spent and not admitted.
	Burnt atomic.Uint64
	// Late counts decisions for which the ledger took too long.
	Late atomic.Uint64
	// Failures counts calls of the ledger that failed.
	Failures atomic.Uint64
	// Degraded counts decisions that this replica made by itself.
	Degraded atomic.Uint64
	// Lost counts signs that the ledger lost what was spent: leases that it
	// forgot before their end, and steps of its clock, which ClockSteps counts.
	Lost, ClockSteps atomic.Uint64
	// Forgotten is what was spent of the leases that the ledger forgot: quotas,
	// which do not wait after a loss, may be exceeded by as much.
	Forgotten atomic.Uint64
	// Held counts answers of a ledger that waits after a possible loss.
	Held atomic.Uint64
	// Stale counts answers that a newer policy is in use.
	Stale atomic.Uint64
	// Crowded counts decisions of keys for which there was no room in the table.
	Crowded atomic.Uint64
}
