package auth

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keygate/internal/keys"
)

// Key is what decisions need to know of a key. Replicas remember very many, so
// that it is small; what keys have in common is shared between them.
type Key struct {
	ID, Name string
	// Account owns the key.
	Account string
	// Plan overrides the organization's, if it is not empty.
	Plan    string
	Version int64
	// AllowedCIDRs are the client addresses that may use the key; empty: all.
	AllowedCIDRs []netip.Prefix

	overrides                json.RawMessage
	permissions              *[]string
	expires, paused, revoked moment
}

// ExpiresAt is when the key ends; the zero time: never.
func (k *Key) ExpiresAt() time.Time { return k.expires.time() }

// PausedAt is when the key was paused; the zero time: it is not.
func (k *Key) PausedAt() time.Time { return k.paused.time() }

// RevokedAt is when the key was revoked; the zero time: it is not.
func (k *Key) RevokedAt() time.Time { return k.revoked.time() }

// Secret is the one of a key's secrets that was presented.
type Secret struct {
	// Prefix and LastFour are what may be shown of it.
	Prefix, LastFour string
	// Imported secrets were made elsewhere and may have any form.
	Imported bool
	several  bool // the key has another
	ends     moment
}

// EndsAt is when a rotation's overlap ends; zero for a key's present secret.
func (s *Secret) EndsAt() time.Time { return s.ends.time() }

// moment is an instant as stores keep it, in microseconds of Unix time, in a third
// of a time.Time's memory; 0 is the zero time.
type moment int64

func momentOf(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return moment(t.UnixMicro())
}

func (m moment) time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(m)).UTC()
}

// record is a key as it is remembered.
type record struct {
	key    Key
	secret Secret
	// organization is nil for keys of the instance's operators, space for keys
	// without one. Both and the owner's grants are shared.
	organization *keys.Organization
	space        *keys.Space
	grants       *[]keys.Grant
}

// shared is what remembered keys have in common.
type shared struct {
	organizations *interned[keys.Organization]
	spaces        *interned[keys.Space]
	owners        *interned[[]keys.Grant]
	permissions   *interned[[]string]
	access        *interned[Access]
	limits        *interned[[1]string]
}

func newShared() *shared {
	return &shared{
		organizations: newInterned(func(a, b *keys.Organization) bool {
			return a.Version == b.Version && a.Slug == b.Slug && a.Name == b.Name && a.Plan == b.Plan && string(a.Overrides) == string(b.Overrides)
		}),
		spaces:      newInterned(func(a, b *keys.Space) bool { return *a == *b }),
		owners:      newInterned(func(a, b *[]keys.Grant) bool { return slices.Equal(*a, *b) }),
		permissions: newInterned(func(a, b *[]string) bool { return slices.Equal(*a, *b) }),
		access:      newInterned(func(a, b *Access) bool { return slices.Equal(a.set, b.set) && a.Scopes[0] == b.Scopes[0] }),
		limits:      newInterned(func(a, b *[1]string) bool { return *a == *b }),
	}
}

// record reduces what a store has found to what is remembered of it. format's
// prefix is most secrets' too.
func (s *shared) record(f *keys.Found, prefix string) record {
	k, secret := &f.Key, &f.Key.Secrets[f.Secret]
	names := k.ID + k.Name // a copy of its own: a store may have cut them from something larger
	r := record{
		key: Key{
			ID: names[:len(k.ID)], Name: names[len(k.ID):], Account: k.Account, Plan: strings.Clone(k.Plan), Version: k.Version,
			AllowedCIDRs: slices.Clone(k.AllowedCIDRs), overrides: slices.Clone(k.Overrides),
			expires: momentOf(k.ExpiresAt), paused: momentOf(k.PausedAt), revoked: momentOf(k.RevokedAt),
		},
		secret: Secret{
			Prefix: prefix, LastFour: strings.Clone(secret.LastFour), Imported: secret.Imported,
			several: len(k.Secrets) > 1, ends: momentOf(secret.EndsAt),
		},
	}
	if secret.Prefix != prefix {
		r.secret.Prefix = strings.Clone(secret.Prefix)
	}
	if f.Organization.ID != "" {
		o := f.Organization
		r.organization = s.organizations.of(o.ID, &o)
	}
	if f.Space.ID != "" {
		sp := f.Space
		r.space = s.spaces.of(sp.ID, &sp)
	}
	grants := slices.Clone(f.Grants)
	r.grants = s.owners.of(k.Account, &grants)
	if len(*r.grants) > 0 {
		r.key.Account = (*r.grants)[0].Account
	}
	permissions := slices.Clone(k.Permissions)
	r.key.permissions = s.permissions.of(strings.Join(permissions, " "), &permissions)
	return r
}
