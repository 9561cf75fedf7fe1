package ratelimit

import (
	"slices"
	"time"
)

// leaseFraction bounds a lease: this many make up a quota.
const leaseFraction = 20

// terms are what the requests of a key are decided by. They never change; a key
// or a policy that does brings others.
type terms struct {
	organization, key string
	version, rules    int64
	open              bool
	limits            []Limit
	// tau is how long a lease lives, most how much of it there may be unspent;
	// below 2 leases are not worth their trips.
	tau  time.Duration
	most int64
	// least is the least quota: no lease holds more.
	least int64
}

// newTerms returns what the ask is about, or why no ledger can answer it. Asks of
// many keys share a call, so that one that is malformed must not get there.
func newTerms(a *Ask) (*terms, error) {
	single := request(a)
	single.Take = single.Cost
	if err := single.Validate(); err != nil {
		return nil, err
	}
	t := &terms{
		organization: a.Organization, key: a.Key, version: a.Version, rules: a.Rules, open: a.Open, limits: a.Limits,
		tau: maxLease, most: MaxQuota / leaseFraction, least: MaxQuota,
	}
	for i := range a.Limits {
		t.most = min(t.most, a.Limits[i].Quota/leaseFraction)
		t.tau, t.least = min(t.tau, a.Limits[i].LeaseTime()), min(t.least, a.Limits[i].Quota)
	}
	return t, nil
}

// hold reports whether an ask is about the same.
func (t *terms) hold(a *Ask) bool {
	return t.organization == a.Organization && t.version == a.Version && t.rules == a.Rules && t.open == a.Open && sameLimits(t.limits, a.Limits)
}

// same reports whether a lease of these terms serves the ask's: what it is charged
// to is the same, whatever the version.
func (t *terms) same(a *Ask) bool {
	return t.organization == a.Organization && sameLimits(t.limits, a.Limits)
}

// sameLimits compares first where the limits lie: those of one key and policy
// are computed once.
func sameLimits(a, b []Limit) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// older reports whether an ask is of a policy from before these terms.
func (t *terms) older(a *Ask) bool { return a.Rules < t.rules }

// ask is an ask about these terms.
func (t *terms) ask(cost int64) Ask {
	return Ask{
		Organization: t.organization, Key: t.key, Version: t.version, Rules: t.rules,
		Open: t.open, Limits: t.limits, Cost: cost,
	}
}

// steady reports whether what a denial says stays true until it ends: some limit has
// nothing that anybody could spend before, so that no request of this key passes, and
// so has every limit that other keys spend of. Where a limit has two units left and
// three are asked for, another takes the two, and the third comes free in vain.
func (t *terms) steady(g *Grant) bool {
	wait, blocked := retryAfter(g.Limits), false
	for i := range g.Limits {
		s := &g.Limits[i]
		blocks := s.Violated && s.Remaining == 0 && s.NextUnit >= wait
		if !blocks && (i >= len(t.limits) || t.limits[i].Holder != t.key) {
			return false
		}
		blocked = blocked || blocks
	}
	return blocked
}

// brief is how long a denial may be remembered that may become untrue: because others
// hold units that they may give back, or can spend some. A hundredth of the shortest
// window.
func (t *terms) brief() time.Duration {
	per := maxLease * 5
	for i := range t.limits {
		if t.limits[i].Per > 0 {
			per = min(per, t.limits[i].Per)
		}
	}
	return per / 100
}
