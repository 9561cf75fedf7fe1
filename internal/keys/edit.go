package keys

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// KeyEdit says what to change of a key; nil leaves a field as it is.
type KeyEdit struct {
	Name, Description *string
	Permissions       *[]string
	AllowedCIDRs      *[]string
	// Expires is in the form of ParseExpiry.
	Expires *string
	// Plan "" gives the organization's back.
	Plan      *string
	Overrides *Overrides
}

// EditKey changes a key that is not revoked.
func (s *Service) EditKey(ctx context.Context, by Actor, id string, edit KeyEdit) (Key, error) {
	return s.changeKey(ctx, by, id, "key.edit", func(k *Key, now time.Time) (bool, error) {
		status := k.Status(now)
		switch {
		case status == Revoked:
			return false, &StateError{Operation: "edited", Status: string(status), Remedy: "it is kept for its history only"}
		case status == Expired && edit.Expires != nil:
			return false, &StateError{Operation: "given another expiry", Status: string(status), Remedy: "rotate it, which brings it back to life with a new secret"}
		}
		before := *k
		set(&k.Name, edit.Name)
		set(&k.Description, edit.Description)
		set(&k.Plan, edit.Plan)
		var c check
		if edit.AllowedCIDRs != nil {
			k.AllowedCIDRs = c.cidrs("allowed_cidrs", *edit.AllowedCIDRs)
		}
		if edit.Expires != nil {
			c.expiry(k, *edit.Expires, now)
		}
		if edit.Permissions != nil {
			k.Permissions = slices.Clone(*edit.Permissions)
		}
		if edit.Overrides != nil {
			k.Overrides = edit.Overrides.Encode()
		}
		c.merge(k.Validate())
		if err := s.checkEdit(ctx, by, &c, before, k, edit); err != nil {
			return false, err
		}
		if err := c.err(); err != nil {
			return false, err
		}
		return !sameKey(before, *k), staysWithin(by, before, *k)
	})
}

// staysWithin keeps a key from undoing what bounds it: who took it from its owner
// would else go on using it for ever, and from anywhere. Another key of the
// organization can, and an operator.
func staysWithin(by Actor, before, k Key) error {
	if by.Operator || by.Key != k.ID {
		return nil
	}
	var fields []FieldError
	if !before.ExpiresAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(before.ExpiresAt)) {
		fields = append(fields, FieldError{Field: "expires", Problem: "an API key cannot put off its own end: let another key of the organization do it"})
	}
	narrower := func(n netip.Prefix) bool {
		return slices.ContainsFunc(before.AllowedCIDRs, func(o netip.Prefix) bool { return o.Bits() <= n.Bits() && o.Overlaps(n) })
	}
	wider := len(k.AllowedCIDRs) == 0 || !allOf(k.AllowedCIDRs, narrower)
	if len(before.AllowedCIDRs) > 0 && wider {
		fields = append(fields, FieldError{Field: "allowed_cidrs", Problem: "an API key cannot be used from more addresses by its own doing: let another key of the organization allow them"})
	}
	if fields == nil {
		return nil
	}
	return &ForbiddenError{Fields: fields, Detail: fields[0].Problem}
}

func allOf[T any](list []T, is func(T) bool) bool {
	return !slices.ContainsFunc(list, func(x T) bool { return !is(x) })
}

func (s *Service) checkEdit(ctx context.Context, by Actor, c *check, before Key, k *Key, edit KeyEdit) error {
	var o Organization
	if (edit.Plan != nil || edit.Overrides != nil) && k.Organization != "" {
		var err error
		if o, err = s.store.Organization(ctx, k.Organization); err != nil {
			return err
		}
	}
	if err := s.terms(by, c, k, o, edit.Plan != nil, edit.Overrides); err != nil || edit.Permissions == nil {
		return err
	}
	grants, err := s.store.Grants(ctx, k.Account)
	if err != nil {
		return err
	}
	c.permissions("permissions", *k, grants, s.policyOf(by))
	if len(c.fields) > 0 {
		return nil
	}
	return within(by, *k, before.Permissions)
}

// expiry sets when a key ends.
func (c *check) expiry(k *Key, expires string, now time.Time) {
	if expires == "" { // as from a variable that is not set
		c.add("expires", "", `is empty: leave it out, or say "never"`)
		return
	}
	at, err := ParseExpiry(expires, now)
	if err != nil {
		c.add("expires", expires, "%s", err)
		return
	}
	k.ExpiresAt, k.Lifetime = at, lifetime(at, now)
}

// sameKey compares what an edit can change.
func sameKey(a, b Key) bool {
	return a.Name == b.Name && a.Description == b.Description && a.Plan == b.Plan && sameJSON(a.Overrides, b.Overrides) &&
		a.ExpiresAt.Equal(b.ExpiresAt) && slices.Equal(a.Permissions, b.Permissions) &&
		slices.EqualFunc(a.AllowedCIDRs, b.AllowedCIDRs, func(x, y netip.Prefix) bool { return x == y })
}
