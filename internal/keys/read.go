package keys

import (
	"context"
)

// Key reads a key. A key sees itself whatever it holds.
func (s *Service) Key(ctx context.Context, by Actor, id string) (Key, error) {
	k, err := s.store.Key(ctx, id)
	if err != nil {
		return Key{}, err
	}
	if id == by.Key {
		return k, nil
	}
	if err := by.require(k.Organization, k.Space, PermissionKeysRead, PermissionKeysWrite); err != nil {
		return Key{}, err
	}
	return k, nil
}

// Keys lists the keys that pass the filter, whose organization and space are
// ids or slugs here. What is left out means all that the actor may see.
func (s *Service) Keys(ctx context.Context, by Actor, f KeyFilter, page Page) (KeyPage, error) {
	f.At = s.instant()
	if f.Organization = by.ownUnless(f.Organization); f.Organization != "" {
		o, err := s.Organization(ctx, by, f.Organization)
		if err != nil {
			return KeyPage{}, err
		}
		f.Organization = o.ID
	}
	if f.Space == "" {
		f.Space = by.Authority.Space
	}
	if f.Space != "" {
		sp, err := s.Space(ctx, by, f.Organization, f.Space)
		if err != nil {
			return KeyPage{}, err
		}
		f.Space = sp.ID
	}
	if err := by.requireIn(f.Organization, f.Space, "list the keys of all organizations", PermissionKeysRead, PermissionKeysWrite); err != nil {
		return KeyPage{}, err
	}
	return s.store.Keys(ctx, f, page)
}

// AuditLog lists entries, newest first; f.Organization is an id or slug here.
func (s *Service) AuditLog(ctx context.Context, by Actor, f AuditFilter, page Page) (AuditPage, error) {
	if f.Organization = by.ownUnless(f.Organization); f.Organization != "" {
		o, err := s.Organization(ctx, by, f.Organization)
		if err != nil {
			return AuditPage{}, err
		}
		f.Organization = o.ID
	}
	if err := by.requireIn(f.Organization, "", "read the audit log of all organizations", PermissionAudit); err != nil {
		return AuditPage{}, err
	}
	return s.store.AuditLog(ctx, f, page)
}

// Remembered returns the answer to a change that the actor made before.
func (s *Service) Remembered(ctx context.Context, id string) (Remembered, error) {
	return s.store.Remembered(ctx, id)
}

// Find returns the hash of a key's present secret, for questions about it.
func (s *Service) Find(ctx context.Context, by Actor, id string) (Key, Hash, error) {
	k, err := s.Key(ctx, by, id)
	if err != nil {
		return k, Hash{}, err
	}
	return k, k.Secrets[0].Hash, nil
}

// FindSecret finds the key of a presented secret among those that the actor may
// see.
func (s *Service) FindSecret(ctx context.Context, by Actor, secret string) (Key, Hash, error) {
	h := HashSecret(secret)
	found, err := s.store.Lookup(ctx, h)
	if err != nil {
		return Key{}, h, err
	}
	k, err := s.Key(ctx, by, found.Key.ID)
	return k, h, err
}

// MayOperate wants an operator for what the service itself has no part in, such
// as "list the replicas".
func (s *Service) MayOperate(by Actor, what string) error { return by.operator(what) }

// MayAsk wants an actor who may ask what the gate would do.
func (s *Service) MayAsk(by Actor) error {
	return by.require(by.Authority.Organization, by.Authority.Space, PermissionKeysRead, PermissionKeysWrite)
}
