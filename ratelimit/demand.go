package ratelimit

import (
	"math"
	"time"
)

// demand estimates how much a key spends within τ, as a count that decays by e
// in each τ: at a constant rate r it settles at r·τ, and a burst counts at once.
// steady is the same over a longer time, a fraction of the chance in it.
type demand struct {
	level, steady float64
	at            time.Time
	seen          int64 // of the lease's spending
}

// steadiness is over how many τ steady looks.
const steadiness = 4

func (d *demand) add(units int64, now time.Time, tau time.Duration) {
	if d.at.IsZero() {
		d.at = now
	}
	if dt := elapsed(d.at, now); dt > 0 {
		past := float64(dt) / float64(tau)
		d.level *= math.Exp(-past)
		d.steady *= math.Exp(-past / steadiness)
		d.at = now
	}
	d.level += float64(units)
	d.steady += float64(units) / steadiness
}

// want is how much to hold for it, 0 where requests had better be taken one by
// one: where a lease is so small, or so seldom used, that it costs more trips
// than it saves. A request that comes while another is under way is a sign of
// more to come.
func (d *demand) want(most int64, crowd bool) int64 {
	if most < 2 || d.steady < 2 && !crowd {
		return 0
	}
	return min(max(1, int64(math.Ceil(min(d.level, MaxQuota)))), most)
}
