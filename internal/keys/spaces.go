package keys

import (
	"context"
	"errors"
)

// NewSpace is what a space is made from. Organization is an id or slug, by
// default the actor's own; Name defaults to the slug.
type NewSpace struct{ Organization, Slug, Name string }

// SpaceEdit says what to change; nil leaves a field as it is.
type SpaceEdit struct{ Slug, Name *string }

// CreateSpace makes a space of an organization.
func (s *Service) CreateSpace(ctx context.Context, by Actor, in NewSpace) (Space, error) {
	now := s.instant()
	o, err := s.organization(ctx, by, "organization", by.ownUnless(in.Organization))
	if err != nil {
		return Space{}, err
	}
	if err := by.require(o.ID, "", PermissionMembers); err != nil {
		return Space{}, err
	}
	sp := Space{ID: newID(spacePrefix), Organization: o.ID, Slug: in.Slug, Name: in.Name, CreatedAt: now, UpdatedAt: now}
	if sp.Name == "" {
		sp.Name = sp.Slug
	}
	if err := sp.Validate(); err != nil {
		return Space{}, err
	}
	m := Mutation{
		At: now, Spaces: []Space{sp},
		Audit: []AuditEntry{s.audit(by, now, "space.create", KindSpace, sp.ID, o.ID, nil, spaceView(sp))},
	}
	sp.Version++
	return sp, s.apply(ctx, by, m, sp)
}

// ownUnless is the organization that an actor means who names none.
func (a *Authority) ownUnless(ref string) string {
	if ref == "" {
		return a.Organization
	}
	return ref
}

// Space reads a space of an organization, both by id or slug; without an
// organization it is the actor's own. Members see all of their organization's,
// an actor restricted to a space its own.
func (s *Service) Space(ctx context.Context, by Actor, organization, ref string) (Space, error) {
	o, err := s.Organization(ctx, by, by.ownUnless(organization))
	if err != nil {
		return Space{}, err
	}
	sp, err := s.store.Space(ctx, o.ID, ref)
	if err == nil && by.Authority.Space != "" && sp.ID != by.Authority.Space {
		return Space{}, ErrNotFound
	}
	return sp, err
}

// Spaces lists the spaces of an organization, newest first.
func (s *Service) Spaces(ctx context.Context, by Actor, organization string, page Page) ([]Space, error) {
	o, err := s.Organization(ctx, by, by.ownUnless(organization))
	if err != nil {
		return nil, err
	}
	if by.Authority.Space == "" {
		return s.store.Spaces(ctx, o.ID, page)
	}
	if page.After != "" || page.Limit < 1 {
		return nil, nil
	}
	sp, err := s.store.Space(ctx, o.ID, by.Authority.Space)
	if err != nil {
		return nil, err
	}
	return []Space{sp}, nil
}

// EditSpace changes a space.
func (s *Service) EditSpace(ctx context.Context, by Actor, organization, ref string, edit SpaceEdit) (Space, error) {
	return revise(by, string(KindSpace), s.readSpace(ctx, by, organization, ref), func(sp Space) (Space, error) {
		before, now := sp, s.instant()
		set(&sp.Slug, edit.Slug)
		set(&sp.Name, edit.Name)
		if err := sp.Validate(); err != nil || sp == before {
			return before, err
		}
		sp.UpdatedAt = now
		m := Mutation{
			At: now, Spaces: []Space{sp},
			Audit: []AuditEntry{s.audit(by, now, "space.edit", KindSpace, sp.ID, sp.Organization, spaceView(before), spaceView(sp))},
		}
		sp.Version++
		return sp, s.apply(ctx, by, m, sp)
	})
}

// DeleteSpace removes a space to which neither keys nor grants are restricted.
func (s *Service) DeleteSpace(ctx context.Context, by Actor, organization, ref string) error {
	_, err := revise(by, string(KindSpace), s.readSpace(ctx, by, organization, ref), func(sp Space) (Space, error) {
		now := s.instant()
		return sp, s.apply(ctx, by, Mutation{
			At: now, DeleteSpaces: []Space{sp},
			Audit: []AuditEntry{s.audit(by, now, "space.delete", KindSpace, sp.ID, sp.Organization, spaceView(sp), nil)},
		}, nil)
	})
	return err
}

// readSpace reads a space that the actor may change.
func (s *Service) readSpace(ctx context.Context, by Actor, organization, ref string) func() (Space, string, int64, error) {
	return func() (Space, string, int64, error) {
		sp, err := s.Space(ctx, by, organization, ref)
		if err == nil {
			err = by.require(sp.Organization, "", PermissionMembers)
		}
		return sp, sp.ID, sp.Version, err
	}
}

// space resolves a reference in an input.
func (s *Service) space(ctx context.Context, by Actor, c *check, field, organization, ref string) (Space, error) {
	if ref == "" {
		return Space{}, nil
	}
	sp, err := s.store.Space(ctx, organization, ref)
	if errors.Is(err, ErrNotFound) || err == nil && by.Authority.Space != "" && sp.ID != by.Authority.Space {
		c.add(field, ref, "the organization has no space with this id or slug")
		return Space{}, nil
	}
	return sp, err
}
