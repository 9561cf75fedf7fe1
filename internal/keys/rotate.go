package keys

import (
	"context"
	"fmt"
	"time"
)

const (
	// MaxOverlap is the longest that a former secret goes on working.
	MaxOverlap = 30 * 24 * time.Hour
	// maxSecrets is how many secrets of a key are remembered: the present one,
	// one in its overlap, and the last that ended, which are known as such: a
	// client that kept one is told that it was revoked, not that it is invalid.
	maxSecrets = 12
)

// Rotation says how a key gets another secret.
type Rotation struct {
	// Overlap is how long the present secret goes on working; 0: not at all.
	Overlap time.Duration
	// Expires is the key's new expiry in the form of ParseExpiry. Empty: as it
	// is, and for an expired key the lifetime that it had.
	Expires string
}

// RotateKey gives a key another secret: same id, one budget and one history for
// both. At most two work at once: rotating again ends the older one. An expired
// key comes back to life, without its former secrets.
func (s *Service) RotateKey(ctx context.Context, by Actor, id string, r Rotation) (Key, string, error) {
	secret := s.format.Generate()
	k, err := s.changeKey(ctx, by, id, "key.rotate", func(k *Key, now time.Time) (bool, error) {
		status, before := k.Status(now), *k
		if status == Revoked {
			return false, &StateError{Operation: "rotated", Status: string(status), Remedy: "create a new one"}
		}
		if err := mayRotate(by, *k, s.policyOf(by).Catalogue); err != nil {
			return false, err
		}
		var c check
		if r.Overlap < 0 || r.Overlap > MaxOverlap || r.Overlap%time.Second != 0 {
			c.add("overlap", r.Overlap.String(), "must be whole seconds, from 0 to %d days", MaxOverlap/(24*time.Hour))
		} else if r.Overlap > 0 && status == Expired {
			c.add("overlap", r.Overlap.String(), "the key has expired and its former secret stays dead: leave the overlap out")
		}
		switch {
		case r.Expires != "":
			c.expiry(k, r.Expires, now)
		case status == Expired:
			if k.Lifetime <= 0 { // stored before lifetimes were
				k.Lifetime = k.ExpiresAt.Sub(k.CreatedAt)
			}
			if k.Lifetime <= 0 { // imported after its end, without its beginning
				c.add("expires", "", "is required: how long the key was to live is not known")
			}
			k.ExpiresAt = now.Add(k.Lifetime)
		}
		if err := c.err(); err != nil {
			return false, err
		}
		if err := staysWithin(by, before, *k); err != nil {
			return false, err
		}
		k.Secrets = rotated(*k, NewSecret(s.format, secret, now), now, r.Overlap)
		k.RotatedAt = now
		return true, nil
	})
	return k, secret, err
}

// mayRotate keeps the secret of a key from an actor who could do more with it
// than without, now or once the policy has again what it does not have at present.
func mayRotate(by Actor, k Key, catalogue *Catalogue) error {
	if k.ID == by.Key {
		return nil
	}
	if err := by.mayBe(k.Account, k.Space); err != nil {
		return err
	}
	beyond := by.covers(k.Permissions, k.Space)
	for _, name := range k.Permissions {
		if !by.Operator && catalogue.Check(name) != nil {
			beyond = append(beyond, name)
		}
	}
	if len(beyond) > 0 {
		return &ForbiddenError{Required: beyond, Detail: fmt.Sprintf(
			"the new secret would do more than the API key that asks for it, which lacks %s: let somebody rotate it who holds that", shorten(beyond, 5))}
	}
	return nil
}

// rotated puts the new secret first, lets the present one end after overlap and
// those before it now.
func rotated(k Key, present Secret, now time.Time, overlap time.Duration) []Secret {
	out := []Secret{present}
	for i, old := range k.Secrets {
		ends := now
		if i == 0 {
			ends = now.Add(overlap)
			old.LastUsedAt = latest(old.LastUsedAt, k.LastUsedAt)
		}
		if old.EndsAt.IsZero() || ends.Before(old.EndsAt) {
			old.EndsAt = ends
		}
		if out = append(out, old); len(out) == maxSecrets {
			break
		}
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
