// Package ledgertest is the contract of ratelimit.Ledger and ratelimit.Stopper as
// tests: every ledger runs the same ones.
package ledgertest

import (
	"context"
	"testing"
	"time"

	"keygate/ratelimit"
)

// Harness is an empty ledger to be tested.
type Harness struct {
	Ledger interface {
		ratelimit.Ledger
		ratelimit.Stopper
		ratelimit.Settler
	}
	// Advance moves the ledger's clock, which stands still otherwise.
	Advance func(time.Duration)
	// Holders is the number of keys and organizations that something is kept of.
	Holders func() int
	// Lose has the ledger find that what it knows may not be all.
	Lose func()
}

// Run runs the contract; open is called once or more per test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*world)
	}{
		{"TakeIsChargedForWindowAndCallTimeout", takeIsChargedForWindowAndCallTimeout},
		{"TakeGivesAsManyWholeRequestsAsFit", takeGivesAsManyWholeRequestsAsFit},
		{"AllLimitsOrNone", allLimitsOrNone},
		{"RetryAfterWalksCharges", retryAfterWalksCharges},
		{"PeekSpendsAndCreatesNothing", peekSpendsAndCreatesNothing},
		{"DenialMakesNoHolder", denialMakesNoHolder},
		{"MalformedAsks", malformedAsks},
		{"LargeNumbers", largeNumbers},
		{"ManyCharges", manyCharges},
		{"Placing", placing},
		{"Batch", batch},
		{"ConcurrentTakes", concurrentTakes},
		{"UnreportedLeaseIsChargedUntilExpiryAndWindow", unreportedLeaseIsChargedUntilExpiryAndWindow},
		{"ReportIsChargedFromItsTime", reportIsChargedFromItsTime},
		{"SpentSessionIsNotProlonged", spentSessionIsNotProlonged},
		{"ReleaseReturnsTheRest", releaseReturnsTheRest},
		{"ExpiredOpensNextSession", expiredOpensNextSession},
		{"UnspentSessionUnknownToTheLedger", unspentSessionUnknownToTheLedger},
		{"SessionReopenedByALateCopy", sessionReopenedByALateCopy},
		{"LateDuplicates", lateDuplicates},
		{"ReportAboveTheGrant", reportAboveTheGrant},
		{"LeaseSizes", leaseSizes},
		{"LeaseSharesOfWhatIsLeft", leaseSharesOfWhatIsLeft},
		{"LeaseOverSeveralLimits", leaseOverSeveralLimits},
		{"RetryAfterWalksSessions", retryAfterWalksSessions},
		{"TakeAndWantTogether", takeAndWantTogether},
		{"QuotaChanges", quotaChanges},
		{"WindowChanges", windowChanges},
		{"WhatEndedIsNotBroughtBack", whatEndedIsNotBroughtBack},
		{"NewLimitStartsEmpty", newLimitStartsEmpty},
		{"ClockNeverRunsBackwards", clockNeverRunsBackwards},
		{"HolderAddedDuringASession", holderAddedDuringASession},
		{"WindowGrowsDuringASession", windowGrowsDuringASession},
		{"Stop", stop},
		{"ChangedKeyGivesBack", changedKeyGivesBack},
		{"StopOrder", stopOrder},
		{"StopIsForgotten", stopIsForgotten},
		{"StopOfOneKey", stopOfOneKey},
		{"StopMalformed", stopMalformed},
		{"QuotaIsChargedToThePeriodsEnd", quotaIsChargedToThePeriodsEnd},
		{"LeaseEndsWithThePeriod", leaseEndsWithThePeriod},
		{"TakeEndsWithThePeriod", takeEndsWithThePeriod},
		{"LedgerPicksThePeriod", ledgerPicksThePeriod},
		{"LateReportIsRefunded", lateReportIsRefunded},
		{"ManyLateReports", manyLateReports},
		{"QuotaBesideWindow", quotaBesideWindow},
		{"WindowBecomesQuota", windowBecomesQuota},
		{"QuotaChangesItsPeriod", quotaChangesItsPeriod},
		{"QuotaAddedDuringASession", quotaAddedDuringASession},
		{"SharedByKeys", sharedByKeys},
		{"Stale", stale},
		{"StaleAndStored", staleAndStored},
		{"LostHoldsWindows", lostHoldsWindows},
		{"LostTakesReportsIn", lostTakesReportsIn},
		{"LostSparesQuotasAndOpenPlans", lostSparesQuotasAndOpenPlans},
		{"SettleReturnsAndCharges", settleReturnsAndCharges},
		{"SettleRepeated", settleRepeated},
		{"SettleForgotten", settleForgotten},
		{"SettleOnlyWhatIsHeld", settleOnlyWhatIsHeld},
		{"SettleOfAQuota", settleOfAQuota},
		{"SettleSparesWhatIsNotReported", settleSparesWhatIsNotReported},
		{"SettleMalformed", settleMalformed},
		{"InFlight", inFlight},
		{"InFlightEndsWithItsReplica", inFlightEndsWithItsReplica},
		{"InFlightIsNoSpending", inFlightIsNoSpending},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&world{T: t, h: open(t), open: open})
		})
	}
}

// world is a ledger and what is asked of it. Everything is of organization org_a
// and of its key key_a unless a test says otherwise.
type world struct {
	*testing.T
	h    Harness
	open func(t *testing.T) Harness
}

// another is a world that knows nothing of this one.
func (w *world) another() *world { return &world{T: w.T, h: w.open(w.T), open: w.open} }

const d = ratelimit.CallTimeout

func key(name string, quota int64, per time.Duration) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Holder: "key_a", Quota: quota, Per: per}
}

func shared(name string, quota int64, per time.Duration) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Holder: "org_a", Quota: quota, Per: per}
}

// takeAsk is the exact path's ask for n requests of cost 1.
func takeAsk(n int64, limits ...ratelimit.Limit) ratelimit.Ask {
	return ratelimit.Ask{Organization: "org_a", Key: "key_a", Limits: limits, Take: n, Cost: 1}
}

// leaseAsk asks for want tokens on a session.
func leaseAsk(session, next string, spent, seen, want int64, limits ...ratelimit.Limit) ratelimit.Ask {
	return ratelimit.Ask{
		Organization: "org_a", Key: "key_a", Limits: limits, Cost: 1,
		Session: session, NextSession: next, Spent: spent, Seen: seen, Want: want,
	}
}

func (w *world) advance(d time.Duration) { w.h.Advance(d) }

func (w *world) ask(a ratelimit.Ask) ratelimit.Grant {
	w.Helper()
	grants := make([]ratelimit.Grant, 1)
	if err := w.h.Ledger.Lease(context.Background(), []ratelimit.Ask{a}, grants); err != nil {
		w.Fatalf("Lease: %v", err)
	}
	return grants[0]
}

func (w *world) peek(limits ...ratelimit.Limit) ratelimit.Grant {
	w.Helper()
	g, err := w.h.Ledger.Peek(context.Background(), takeAsk(0, limits...))
	if err != nil {
		w.Fatalf("Peek: %v", err)
	}
	return g
}

func (w *world) wantRemaining(want int64, limit ratelimit.Limit) {
	w.Helper()
	if got := w.peek(limit).Limits[0].Remaining; got != want {
		w.Fatalf("limit %q has %d left, want %d", limit.Name, got, want)
	}
}

// alive says whether the ledger goes on with a session that was granted so much.
func (w *world) alive(session string, leased int64, limits ...ratelimit.Limit) bool {
	w.Helper()
	return w.ask(leaseAsk(session, "", 0, leased, 0, limits...)).Status == ratelimit.Granted
}

func (w *world) stop(organization, key string, version int64) {
	w.Helper()
	if err := w.h.Ledger.Stop(context.Background(), organization, key, version); err != nil {
		w.Fatalf("Stop: %v", err)
	}
}
