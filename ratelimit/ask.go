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

// ErrUnsupported marks an ask with a limit that no ledger can count yet. The
// policy loader refuses such limits, so that a client never meets it.
var ErrUnsupported = errors.New("kind of limit not supported")

// Validate reports what no ledger can answer. Every ledger calls it before it
// changes anything: a wrong ask must end in an error, not in a wrong grant.
func (a *Ask) Validate() error {
	if a.Organization == "" && a.Key == "" {
		return errors.New("ask names neither organization nor key")
	}
	if len(a.Limits) == 0 {
		return errors.New("ask has no limits")
	}
	if a.Version < 0 || a.Version > MaxVersion {
		return fmt.Errorf("ask for version %d of the key; allowed are 0 to %d", a.Version, int64(MaxVersion))
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
	for i := range a.Limits {
		if err := a.Limits[i].countable(); err != nil {
			return err
		}
		for j := range i {
			if a.Limits[j].Name == a.Limits[i].Name {
				return fmt.Errorf("limit %q: asked twice", a.Limits[i].Name)
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
	if l.Concurrent {
		return fmt.Errorf("limit %q: concurrent requests: %w", l.Name, ErrUnsupported)
	}
	if l.Per == 0 {
		return fmt.Errorf("limit %q: calendar period: %w", l.Name, ErrUnsupported)
	}
	if l.Per < MinWindow || l.Per > MaxWindow || l.Quota < 1 || l.Quota > MaxQuota || l.Name == "" || len(l.Name) > MaxName || l.Holder == "" {
		return fmt.Errorf("limit %q of %q: %d per %s", l.Name, l.Holder, l.Quota, l.Per)
	}
	return nil
}
