package memory

import (
	"fmt"
	"testing"
	"time"

	"keygate/ratelimit"
)

// Above 64 charges neighbours are merged into the later one: the sum stays, no
// charge ends before its time, and little is delayed.
func TestMergeKeepsTheBound(t *testing.T) {
	l, c := newLedger()
	minute := key("minute", 1000, time.Minute)
	var log admissions
	for i := range 3000 {
		c.advance(47 * time.Millisecond)
		g := ask(t, l, takeAsk(1, minute))
		if g.Taken == 1 {
			log.add(l.clock()+callTimeout, 1)
		}
		h := l.shard(&ratelimit.Ask{Organization: "org_a"}).holders[holderKey{"org_a", "key_a", false}]
		b := &h.budgets[0]
		if len(b.entries) > maxEntries || cap(b.entries) > maxEntries+1 {
			t.Fatalf("%d entries in an array of %d", len(b.entries), cap(b.entries))
		}
		if i%50 != 0 {
			continue
		}
		// At the end of each charge, no more has been let go than has passed.
		held, sum := b.spent, int64(0)
		for i := len(b.entries) - 1; i >= 0; i-- {
			sum += b.entries[i].count
			exact := int64(0)
			for _, e := range log {
				if i == 0 || e.until+60_000_000 > b.entries[i-1].until {
					exact += e.count
				}
			}
			if i > 0 && sum < exact {
				t.Fatalf("%d held after %d, %d should be", sum, b.entries[i-1].until, exact)
			}
		}
		if sum != held {
			t.Fatalf("sum %d, entries hold %d", held, sum)
		}
	}
	if most := log.most(60_000_000); most > 1000 || most < 980 {
		t.Fatalf("%d admitted in a minute, want 1000 less the error of merging", most)
	}
}

// Memory follows the holders in use, not those that ever were.
func TestIdleHoldersAreForgotten(t *testing.T) {
	l, c := newLedger()
	for i := range 20_000 {
		c.advance(10 * time.Millisecond) // 100 a second, in use for 1.05 s each
		limit := ratelimit.Limit{Name: "second", Holder: fmt.Sprintf("key_%d", i), Quota: 5, Per: time.Second}
		a := ratelimit.Ask{Organization: fmt.Sprintf("org_%d", i%200), Limits: []ratelimit.Limit{limit}, Take: 1, Cost: 1}
		ask(t, l, a)
		// Each of the 64 shards may be late by a few holders of its own.
		if n := l.Holders(); n > 2*105+6*shards {
			t.Fatalf("%d holders after %d, about 105 are in use", n, i+1)
		}
	}
	// Asks that add nothing sweep as well.
	c.advance(time.Minute)
	for i := range 64 * 1000 {
		ask(t, l, ratelimit.Ask{Organization: fmt.Sprintf("org_%d", i%200), Limits: []ratelimit.Limit{key("s", 1, time.Second)}, Take: 1, Cost: 1})
	}
	if n := l.Holders(); n > 200 {
		t.Fatalf("%d holders, 200 are in use", n)
	}
}

// A limit that policies stopped naming is forgotten, though its holder is busy.
func TestOldLimitsAreForgotten(t *testing.T) {
	l, c := newLedger()
	for i := range 2000 {
		ask(t, l, takeAsk(1, key("s", 1000, time.Second), key(fmt.Sprintf("old%d", i/10), 1000, time.Second)))
		c.advance(100 * time.Millisecond)
	}
	h := l.shard(&ratelimit.Ask{Organization: "org_a"}).holders[holderKey{"org_a", "key_a", false}]
	if len(h.budgets) > 8 {
		t.Fatalf("%d budgets kept", len(h.budgets))
	}
}
