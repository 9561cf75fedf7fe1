package ratelimit

import (
	"errors"
	"fmt"
)

// MaxVersion bounds versions, MaxSession the bytes of a session's name.
const (
	MaxVersion = 1 << 53
	MaxSession = 64
)

// Validate reports what no ledger can answer. Every ledger calls it before it
// changes anything: a wrong ask must end in an error, not in a wrong grant.
func (a *Ask) Validate() error {
	if a.Organization == "" && a.Key == "" {
		return errors.New("ask names neither organization nor key")
	}
	if len(a.Limits) == 0 {
		return errors.New("ask has no limits")
	}
	if a.Version < 0 || a.Version > MaxVersion || a.Rules < 0 || a.Rules > MaxVersion {
		return fmt.Errorf("ask for version %d of the key and %d of the policy; allowed are 0 to %d", a.Version, a.Rules, int64(MaxVersion))
	}
	if a.Cost < 1 || a.Cost > MaxQuota || a.Take < 0 || a.Take > MaxQuota || a.Want < 0 {
		return fmt.Errorf("ask for cost %d, take %d, want %d: cost is at least 1, the others at least 0", a.Cost, a.Take, a.Want)
	}
	if a.Take > 0 && a.Take < a.Cost {
		return fmt.Errorf("ask takes %d, less than one request of cost %d", a.Take, a.Cost)
	}
	if err := a.validateSession(); err != nil {
		return err
	}
	if a.Limits[0].Concurrent && a.Take > 0 {
		return fmt.Errorf("limit %q: a request in flight needs a session", a.Limits[0].Name)
	}
	return countable(a.Limits)
}

// Validate reports what no [Settler] can settle.
func (r *Reservation) Validate() error {
	if r.Organization == "" && r.Key == "" || len(r.Limits) == 0 {
		return errors.New("reservation names nobody or no limits")
	}
	if r.Session == "" || len(r.Session) > MaxSession {
		return fmt.Errorf("reservation %.20q: its name has 1 to %d bytes", r.Session, MaxSession)
	}
	if r.Reserved < 1 || r.Reserved > MaxQuota || r.Seen < 0 || r.Seen > r.Reserved || r.Actual < 0 || r.Actual > MaxQuota || r.At.UnixMicro() <= 0 {
		return fmt.Errorf("reservation %q: %d reserved at %s, %d seen, %d spent", r.Session, r.Reserved, r.At, r.Seen, r.Actual)
	}
	if r.Limits[0].Concurrent {
		return fmt.Errorf("limit %q: requests in flight are not settled", r.Limits[0].Name)
	}
	return countable(r.Limits)
}

// Ask is the question that finds the budgets of a reservation.
func (r *Reservation) Ask() Ask {
	return Ask{Organization: r.Organization, Key: r.Key, Limits: r.Limits, Cost: 1}
}

func countable(limits []Limit) error {
	for i := range limits {
		if err := limits[i].countable(); err != nil {
			return err
		}
		if limits[i].Concurrent != limits[0].Concurrent {
			return fmt.Errorf("limit %q: requests in flight are asked about by themselves", limits[i].Name)
		}
		for j := range i {
			if limits[j].Name == limits[i].Name {
				return fmt.Errorf("limit %q: asked twice", limits[i].Name)
			}
		}
	}
	return nil
}

// ValidateStop reports what no [Stopper] can mark.
func ValidateStop(key string, version int64) error {
	if key == "" {
		return errors.New("stop without a key")
	}
	if version < 1 || version > MaxVersion {
		return fmt.Errorf("stop of key %s at version %d; allowed are 1 to %d", key, version, int64(MaxVersion))
	}
	return nil
}

// Place is what the budgets of an ask are kept together by.
func Place(organization, key string) string {
	if organization == "" {
		return key
	}
	return organization
}

func (a *Ask) validateSession() error {
	if a.Session == "" {
		if a.NextSession != "" || a.Spent != 0 || a.Seen != 0 || a.Want != 0 || a.Release {
			return errors.New("ask without a session has session fields")
		}
		return nil
	}
	if len(a.Session) > MaxSession || len(a.NextSession) > MaxSession {
		return fmt.Errorf("session %.20q…: its name or the next one's is longer than %d bytes", a.Session, MaxSession)
	}
	if a.Session == a.NextSession {
		// It would bring an ended session back to life under its own name.
		return fmt.Errorf("session %q: next session has the same name", a.Session)
	}
	if a.Spent < 0 || a.Seen < 0 || a.Spent > MaxQuota || a.Seen > MaxQuota {
		return fmt.Errorf("session %q: spent %d of %d seen; allowed are 0 to %d", a.Session, a.Spent, a.Seen, int64(MaxQuota))
	}
	if a.Release && (a.Take != 0 || a.Want != 0) {
		return fmt.Errorf("session %q: released and asked for at once", a.Session)
	}
	return nil
}

// countable is the part of Validate that a ledger's arithmetic rests on; it is
// run for every request, so that it leaves the name alone.
func (l *Limit) countable() error {
	if l.Quota < 1 || l.Quota > MaxQuota || l.Name == "" || len(l.Name) > MaxName || l.Holder == "" ||
		l.Concurrent && (l.Per != 0 || l.Quota > MaxConcurrent) {
		return fmt.Errorf("limit %q of %q: %d per %s", l.Name, l.Holder, l.Quota, l.Per)
	}
	if l.Concurrent {
		return nil
	}
	if l.Per == 0 {
		return l.checkPeriod()
	}
	if l.Per < MinWindow || l.Per > MaxWindow {
		return fmt.Errorf("limit %q of %q: %d per %s", l.Name, l.Holder, l.Quota, l.Per)
	}
	return nil
}
