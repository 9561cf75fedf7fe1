package memory

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keygate/ratelimit"
)

// A mark stops the asks for a key that were made with an older version of it.
type mark struct {
	version int64
	end     int64 // when it is forgotten
}

// markKey is a key and the organization (or key) that places it.
type markKey struct{ place, key string }

var _ ratelimit.Stopper = (*Ledger)(nil)

// Stop implements [ratelimit.Stopper].
func (l *Ledger) Stop(ctx context.Context, organization, key string, version int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := ratelimit.ValidateStop(key, version); err != nil {
		return fmt.Errorf("memory ledger: %w", err)
	}
	place := ratelimit.Place(organization, key)
	l.shardOf(place).stop(l.clock(), markKey{strings.Clone(place), strings.Clone(key)}, version)
	return nil
}

func (sh *shard) stop(clock int64, key markKey, version int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.marks == nil {
		sh.marks = make(map[markKey]mark)
	}
	if held := sh.marks[key]; held.version <= version || held.end <= clock {
		sh.marks[key] = mark{version, clock + ratelimit.StopLife.Microseconds()}
	}
	// Map order is random enough to find those that have ended: two are looked
	// at for each one added, as with holders.
	n := 2
	for k, m := range sh.marks {
		if m.end <= clock {
			delete(sh.marks, k)
		}
		if n--; n == 0 {
			break
		}
	}
}

// stopped answers an ask for a key that has changed.
func (sh *shard) stopped(clock int64, a *ratelimit.Ask, g *ratelimit.Grant) bool {
	if len(sh.marks) == 0 {
		return false
	}
	m := sh.marks[markKey{placeOf(a), a.Key}]
	if m.version <= a.Version || m.end <= clock {
		return false
	}
	*g = ratelimit.Grant{
		Status:  ratelimit.Stopped,
		Now:     time.UnixMicro(clock),
		Version: m.version,
		Limits:  g.Limits[:0],
	}
	return true
}
