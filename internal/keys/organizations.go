package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// NewOrganization is what an organization is made from. Name defaults to the
// slug, Plan to the default plan.
type NewOrganization struct {
	Slug, Name, Plan string
	Overrides        Overrides
}

// OrganizationEdit says what to change; nil leaves a field as it is.
type OrganizationEdit struct {
	Slug, Name, Plan *string
	Overrides        *Overrides
}

// CreateOrganization makes an organization and its account "default", which
// holds the role owner and owns keys for which nobody else is named.
func (s *Service) CreateOrganization(ctx context.Context, by Actor, in NewOrganization) (Organization, error) {
	if err := by.operator("create organizations"); err != nil {
		return Organization{}, err
	}
	now, policy := s.instant(), s.policyOf(by)
	o := Organization{
		ID: newID(organizationPrefix), Slug: in.Slug, Name: in.Name, Plan: in.Plan, Overrides: in.Overrides.Encode(),
		CreatedAt: now, UpdatedAt: now,
	}
	if o.Name == "" {
		o.Name = o.Slug
	}
	if o.Plan == "" {
		o.Plan = policy.DefaultPlan
	}
	var c check
	c.merge(o.Validate())
	c.plan("plan", o.Plan, policy)
	c.overrides("overrides", in.Overrides, policy.Plans[o.Plan])
	if err := c.err(); err != nil {
		return Organization{}, err
	}
	m := Mutation{At: now, Organizations: []Organization{o}}
	m.addOwner(o)
	m.Audit = []AuditEntry{s.audit(by, now, "organization.create", KindOrganization, o.ID, o.ID, nil, organizationView(o))}
	made := o
	made.Version++
	return made, s.apply(ctx, by, m, made)
}

// addOwner adds the organization's account "default" with the role owner.
func (m *Mutation) addOwner(o Organization) {
	a := Account{ID: DefaultAccount(o.ID), Organization: o.ID, Name: "default", CreatedAt: o.CreatedAt, UpdatedAt: o.CreatedAt}
	m.Accounts = append(m.Accounts, a)
	m.Grants = append(m.Grants, Grant{ID: newID(grantPrefix), Account: a.ID, Organization: o.ID, Role: RoleOwner, CreatedAt: o.CreatedAt})
}

// DefaultAccount is the id of the account "default" of an organization. It is
// derived, so that finding it costs no read.
func DefaultAccount(organization string) string {
	return accountPrefix + strings.TrimPrefix(organization, organizationPrefix)
}

// Organization reads one, by id or slug. Members see their own.
func (s *Service) Organization(ctx context.Context, by Actor, ref string) (Organization, error) {
	o, err := s.store.Organization(ctx, ref)
	if err == nil && !by.Sees(o.ID) {
		return Organization{}, ErrNotFound
	}
	return o, err
}

// Organizations lists those that the actor sees, newest first.
func (s *Service) Organizations(ctx context.Context, by Actor, page Page) ([]Organization, error) {
	if by.Operator {
		return s.store.Organizations(ctx, page)
	}
	if by.Authority.Organization == "" || page.After != "" || page.Limit < 1 {
		return nil, nil
	}
	o, err := s.store.Organization(ctx, by.Authority.Organization)
	if err != nil {
		return nil, err
	}
	return []Organization{o}, nil
}

// EditOrganization changes an organization, by id or slug. Members may rename
// theirs; the rest is the operators'.
func (s *Service) EditOrganization(ctx context.Context, by Actor, ref string, edit OrganizationEdit) (Organization, error) {
	policy := s.policyOf(by)
	may := func(o Organization) error {
		if err := by.require(o.ID, "", PermissionMembers); err != nil {
			return err
		}
		if edit.Slug != nil || edit.Plan != nil || edit.Overrides != nil {
			return by.operator("change an organization's slug, plan and overrides")
		}
		return nil
	}
	return revise(by, string(KindOrganization), s.readOrganization(ctx, by, ref, may), func(o Organization) (Organization, error) {
		before, now := o, s.instant()
		set(&o.Slug, edit.Slug)
		set(&o.Name, edit.Name)
		set(&o.Plan, edit.Plan)
		if edit.Overrides != nil {
			o.Overrides = edit.Overrides.Encode()
		}
		var c check
		c.merge(o.Validate())
		if edit.Plan != nil {
			c.plan("plan", o.Plan, policy)
		}
		plan, _ := policy.PlanOf(o.Plan, "")
		if edit.Overrides != nil {
			c.overrides("overrides", *edit.Overrides, plan)
		} else if negotiated, err := ParseOverrides(o.Overrides); err == nil && edit.Plan != nil {
			c.overrides("plan", negotiated, plan)
		}
		if err := c.err(); err != nil || reflect.DeepEqual(o, before) {
			return before, err
		}
		if o.Slug != before.Slug {
			if err := keepsDefault(before, "given another slug"); err != nil {
				return before, err
			}
		}
		o.UpdatedAt = now
		m := Mutation{
			At: now, Organizations: []Organization{o},
			Audit: []AuditEntry{s.audit(by, now, "organization.edit", KindOrganization, o.ID, o.ID, organizationView(before), organizationView(o))},
		}
		o.Version++
		return o, s.apply(ctx, by, m, o)
	})
}

// DeleteOrganization removes an organization that has neither keys nor spaces
// nor accounts but its own "default".
func (s *Service) DeleteOrganization(ctx context.Context, by Actor, ref string) error {
	may := func(Organization) error { return by.operator("delete organizations") }
	_, err := revise(by, string(KindOrganization), s.readOrganization(ctx, by, ref, may), func(o Organization) (Organization, error) {
		if err := keepsDefault(o, "deleted"); err != nil {
			return o, err
		}
		now := s.instant()
		m := Mutation{
			At: now, DeleteOrganizations: []Organization{o},
			Audit: []AuditEntry{s.audit(by, now, "organization.delete", KindOrganization, o.ID, o.ID, organizationView(o), nil)},
		}
		owner, err := s.store.Account(ctx, DefaultAccount(o.ID))
		switch {
		case err == nil:
			m.DeleteAccounts = []Account{owner}
		case !errors.Is(err, ErrNotFound):
			return o, err
		}
		return o, inUseOf(s.apply(ctx, by, m, nil), KindOrganization, o.ID)
	})
	return err
}

// keepsDefault protects the organization to which keys belong for which no other
// is named.
func keepsDefault(o Organization, verb string) error {
	if o.Slug == DefaultOrganization {
		return &ConflictError{Detail: fmt.Sprintf("the organization %q cannot be %s: keys for which no organization is named belong to it", o.Slug, verb)}
	}
	return nil
}

// inUseOf names what was asked for, where something that goes with it is in use.
func inUseOf(err error, kind Kind, id string) error {
	if used, ok := errors.AsType[*InUseError](err); ok {
		return &InUseError{Kind: string(kind), ID: id, By: used.By}
	}
	return err
}

// readOrganization reads an organization that the actor may change: who may not is
// told so whatever version it names.
func (s *Service) readOrganization(ctx context.Context, by Actor, ref string, may func(Organization) error) func() (Organization, string, int64, error) {
	return func() (Organization, string, int64, error) {
		o, err := s.Organization(ctx, by, ref)
		if err == nil {
			err = may(o)
		}
		return o, o.ID, o.Version, err
	}
}

// organization resolves a reference in an input; a wrong one is the input's
// fault, not a missing resource, and what the actor does not see is not there.
func (s *Service) organization(ctx context.Context, by Actor, field, ref string) (Organization, error) {
	o, err := s.Organization(ctx, by, ref)
	if errors.Is(err, ErrNotFound) {
		var c check
		if ref == "" {
			c.add(field, "", "is required: an organization's id or slug")
		} else {
			c.add(field, ref, "no organization has this id or slug")
		}
		return o, c.err()
	}
	return o, err
}

func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

func sameJSON(a, b json.RawMessage) bool { return string(a) == string(b) }
