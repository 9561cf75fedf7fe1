package proof

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// What docs/operations.md says, and what it is allowed on a machine that has
// other work: decisions are bounded by 50 ms, lookups by 100 ms; all is normal two
// seconds after a fault.
const (
	answerWithin = time.Second // 99 of 100 answers
	recovery     = 5 * time.Second
)

// leaseTime is the longest time for which a gateway may spend without asking.
func leaseTime(per time.Duration) time.Duration { return min(per/5, 2*time.Second) }

// checkLimits wants no window of any cell above its quota, and no request that
// came to the upstream twice.
func (w *world) checkLimits() {
	w.t.Helper()
	for _, c := range w.cells {
		atLeast, atMost := most(c.admissions(), c.per)
		w.t.Logf("%-8s %d per %v: %v; the fullest window held %d to %d", c.name, c.quota, c.per, c.statuses(), atLeast, atMost)
		if atLeast > c.quota {
			w.t.Errorf("%s: %d were admitted within %v, the quota is %d", c.name, atLeast, c.per, c.quota)
		}
	}
	if w.twice > 0 {
		w.t.Errorf("%d requests reached the upstream twice or unknown: the count of admissions cannot be trusted", w.twice)
	}
}

func (c *cell) statuses() map[int]int {
	n := make(map[int]int)
	for _, x := range c.calls {
		n[x.status]++
	}
	return n
}

// overlaps reports whether a call was under way while its gateway was away.
func (a absence) overlaps(x *call) bool {
	return x.gateway == a.gateway && x.sent <= a.to && x.answered >= a.from
}

// checkAnswers wants nothing worse than 429 and 503, both with Retry-After, and
// soon, of gateways that were there to answer.
func (w *world) checkAnswers() {
	w.t.Helper()
	var took []time.Duration
	wrong := make(map[string]int)
	for _, c := range w.cells {
		for _, x := range c.calls {
			away, dead := false, false
			for _, a := range w.away {
				if a.overlaps(x) {
					away, dead = true, dead || a.dead
				}
			}
			switch x.status {
			case http.StatusOK:
				if x.arrived == 0 {
					wrong["200 without having been forwarded"]++
				}
			case http.StatusTooManyRequests, http.StatusServiceUnavailable:
				if x.retryAfter < 1 {
					wrong[fmt.Sprint(x.status, " without Retry-After")]++
				}
			case 0:
				if !dead {
					wrong[x.failure]++
				}
			default:
				wrong[fmt.Sprint("status ", x.status)]++
			}
			if !away {
				took = append(took, x.answered-x.sent)
			}
		}
	}
	for what, n := range wrong {
		w.t.Errorf("%d answers: %s", n, what)
	}
	if len(took) == 0 {
		w.t.Fatal("no answer")
	}
	slices.Sort(took)
	at := func(p int) time.Duration { return took[(len(took)-1)*p/100].Round(100 * time.Microsecond) }
	w.t.Logf("answers of gateways that were there: n %d, p50 %v, p99 %v, max %v", len(took), at(50), at(99), at(100))
	if at(99) > answerWithin {
		w.t.Errorf("1 %% of the answers took %v or more", at(99))
	}
}

// normalAfter is how long after the fault had ended a key far below its limit was
// last refused, or not answered. That more than a fifth of half a second's requests
// are tells it from single decisions that were late on a busy machine.
func (w *world) normalAfter(healed time.Duration) (last time.Duration) {
	for _, c := range w.cells {
		if c.name != roomy {
			continue
		}
		all, refused, first := 0, 0, 0
		for _, x := range c.calls {
			all++
			if x.status != http.StatusOK {
				refused++
			}
			for ; c.calls[first].sent < x.sent-500*time.Millisecond; first++ {
				all--
				if c.calls[first].status != http.StatusOK {
					refused--
				}
			}
			if x.sent > healed && x.status != http.StatusOK && refused*5 > all {
				last = x.sent - healed
			}
		}
	}
	return last
}

// checkHold wants nothing admitted after a possible loss until the window and the
// longest lease are over, 503 meanwhile, and admission when Retry-After says so.
func (w *world) checkHold(healed time.Duration) {
	w.t.Helper()
	const around = time.Second // the ledger's decision is not seen from outside, and Retry-After is in whole seconds
	for _, c := range w.cells {
		hold := c.per + leaseTime(c.per)
		promised, first := time.Duration(0), time.Duration(0)
		for _, x := range c.calls {
			if x.sent <= healed+leaseTime(c.per) { // what was leased before may still be spent
				continue
			}
			switch {
			case x.arrived != 0 && x.arrived < healed+hold-around:
				w.t.Errorf("%s: admitted %v after the loss, which holds for %v", c.name, x.arrived-healed, hold)
			case x.arrived != 0 && first == 0:
				first = x.arrived
			case x.status == http.StatusServiceUnavailable && first == 0 && x.retryAfter > 1:
				promised = max(promised, x.answered+time.Duration(x.retryAfter)*time.Second)
			}
		}
		switch {
		case first == 0:
			w.t.Errorf("%s: nothing was admitted after the hold of %v", c.name, hold)
		case promised == 0 && hold > 2*around:
			w.t.Errorf("%s: no answer said how long the hold lasts", c.name)
		case promised > 0 && first > promised+around:
			w.t.Errorf("%s: Retry-After said %v after the loss, and the first request was admitted %v after it", c.name, promised-healed, first-healed)
		}
		said := "nothing was promised"
		if promised > 0 {
			said = fmt.Sprintf("promised %v after it", (promised - healed).Round(time.Millisecond))
		}
		w.t.Logf("%s: admitted again %v after the loss, which holds for %v; %s", c.name, (first - healed).Round(time.Millisecond), hold, said)
	}
}
