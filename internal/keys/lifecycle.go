package keys

import (
	"context"
	"time"
)

// PauseKey stops a key until it is resumed. Pausing a paused key changes nothing.
func (s *Service) PauseKey(ctx context.Context, by Actor, id string) (Key, error) {
	return s.changeKey(ctx, by, id, "key.pause", func(k *Key, now time.Time) (bool, error) {
		switch status := k.Status(now); status {
		case Paused:
			return false, nil
		case Active:
			k.PausedAt = now
			return true, nil
		default:
			return false, &StateError{Operation: "paused", Status: string(status), Remedy: "it does not work any more, nothing needs to be done"}
		}
	})
}

// ResumeKey lets a paused key work again, if the organization's plan still has
// room for it. Resuming an active key changes nothing.
func (s *Service) ResumeKey(ctx context.Context, by Actor, id string) (Key, error) {
	return s.changeKey(ctx, by, id, "key.resume", func(k *Key, now time.Time) (bool, error) {
		switch status := k.Status(now); status {
		case Active:
			return false, nil
		case Paused:
			k.PausedAt = time.Time{}
			return true, nil
		default:
			remedy := "create a new one"
			if status == Expired {
				remedy = "rotate it, which brings it back to life with a new secret"
			}
			return false, &StateError{Operation: "resumed", Status: string(status), Remedy: remedy}
		}
	})
}

// RevokeKey ends a key for good; its record and history stay. Revoking a
// revoked key changes nothing.
func (s *Service) RevokeKey(ctx context.Context, by Actor, id string) (Key, error) {
	return s.changeKey(ctx, by, id, "key.revoke", func(k *Key, now time.Time) (bool, error) {
		if k.Status(now) == Revoked {
			return false, nil
		}
		k.RevokedAt = now
		return true, nil
	})
}

// ReportExposed writes to the audit log that a key was sent where others can read
// it, such as "plain_http" or "url"; by has the address that it came from. Nothing
// about the key changes.
func (s *Service) ReportExposed(ctx context.Context, by Actor, id, where string) error {
	k, err := s.store.Key(ctx, id)
	if err != nil {
		return err
	}
	now := s.instant()
	entry := s.audit(by, now, "key.exposed", KindKey, k.ID, k.Organization, nil, exposureView{Name: k.Name, Where: where})
	return s.apply(ctx, by, Mutation{At: now, Audit: []AuditEntry{entry}}, nil)
}

// changeKey applies an intention to the record as it stands, again if someone
// else changed it in between.
func (s *Service) changeKey(ctx context.Context, by Actor, id, action string, change func(k *Key, now time.Time) (bool, error)) (Key, error) {
	return revise(by, string(KindKey), s.readKey(ctx, by, id), func(k Key) (Key, error) {
		now, before := s.instant(), k
		changed, err := change(&k, now)
		if err != nil {
			return before, err
		}
		if !changed {
			return before, s.remember(ctx, by, now, before)
		}
		k.UpdatedAt = now
		m := Mutation{At: now, Keys: []Key{k}, Audit: []AuditEntry{s.audit(by, now, action, KindKey, k.ID, k.Organization, keyView(before), keyView(k))}}
		if was, is := before.Status(now), k.Status(now); was == Expired && is == Paused || was != Active && is == Active {
			if m.MaxKeys, err = s.maxKeysOf(ctx, by, k); err != nil {
				return before, err
			}
		}
		k.Version++
		return k, s.apply(ctx, by, m, k)
	})
}

// readKey reads a key that the actor may change.
func (s *Service) readKey(ctx context.Context, by Actor, id string) func() (Key, string, int64, error) {
	return func() (Key, string, int64, error) {
		k, err := s.store.Key(ctx, id)
		if err == nil {
			err = by.require(k.Organization, k.Space, PermissionKeysWrite)
		}
		return k, id, k.Version, err
	}
}

func (s *Service) maxKeysOf(ctx context.Context, by Actor, k Key) (*MaxKeys, error) {
	if k.Organization == "" {
		return nil, nil
	}
	o, err := s.store.Organization(ctx, k.Organization)
	if err != nil {
		return nil, err
	}
	return maxKeys(s.policyOf(by), o)
}

// DeleteKey removes a key for good: its secret is unknown from then on.
func (s *Service) DeleteKey(ctx context.Context, by Actor, id string) error {
	_, err := revise(by, string(KindKey), s.readKey(ctx, by, id), func(k Key) (Key, error) {
		now := s.instant()
		return k, s.apply(ctx, by, Mutation{
			At: now, DeleteKeys: []Key{k},
			Audit: []AuditEntry{s.audit(by, now, "key.delete", KindKey, k.ID, k.Organization, keyView(k), nil)},
		}, nil)
	})
	return err
}
