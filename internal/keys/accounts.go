package keys

import (
	"context"
	"errors"
	"slices"
)

// NewAccount is what an account and its first grant are made from. Without an
// organization it is the actor's own; an account with keygate:operator belongs
// to none.
type NewAccount struct {
	Name, Email, Organization string
	NewGrant
}

// AccountEdit says what to change; nil leaves a field as it is.
type AccountEdit struct{ Name, Email *string }

// Member is an account with those of its grants that the actor sees.
type Member struct {
	Account Account
	Grants  []Grant
}

// CreateAccount makes an account with one grant.
func (s *Service) CreateAccount(ctx context.Context, by Actor, in NewAccount) (Member, error) {
	now := s.instant()
	var o Organization
	if instance := by.Operator && in.Organization == "" && in.Permission == PermissionOperator; !instance {
		var err error
		if o, err = s.organization(ctx, by, "organization", by.ownUnless(in.Organization)); err != nil {
			return Member{}, err
		}
	}
	if err := by.require(o.ID, "", PermissionMembers); err != nil {
		return Member{}, err
	}
	a := Account{ID: newID(accountPrefix), Organization: o.ID, Name: in.Name, Email: in.Email, CreatedAt: now, UpdatedAt: now}
	var c check
	c.merge(a.Validate())
	in.NewGrant.Organization = o.ID
	g, err := s.grant(ctx, by, &c, a, in.NewGrant, now)
	if err != nil {
		return Member{}, err
	}
	if err := c.err(); err != nil {
		return Member{}, err
	}
	m := Mutation{
		At: now, Accounts: []Account{a}, Grants: []Grant{g},
		Audit: []AuditEntry{s.audit(by, now, "account.create", KindAccount, a.ID, o.ID, nil, accountView(a, g))},
	}
	a.Version++
	made := Member{a, []Grant{g}}
	return made, s.apply(ctx, by, m, made)
}

// Account reads an account with its grants. An organization's members see the
// accounts that it manages and those that hold something there.
func (s *Service) Account(ctx context.Context, by Actor, id string) (Member, error) {
	a, err := s.store.Account(ctx, id)
	if err != nil {
		return Member{}, err
	}
	grants, err := s.store.Grants(ctx, id)
	if err != nil {
		return Member{}, err
	}
	seen := slices.DeleteFunc(grants, func(g Grant) bool { return !by.Sees(g.Organization) })
	if id != by.Account && !by.Sees(a.Organization) && len(seen) == 0 {
		return Member{}, ErrNotFound
	}
	at := a.Organization
	if !by.Sees(at) { // a guest from elsewhere
		at = by.Authority.Organization
	}
	if id != by.Account {
		if err := by.require(at, "", PermissionMembers, PermissionKeysRead, PermissionKeysWrite); err != nil {
			return Member{}, err
		}
	}
	return Member{a, seen}, nil
}

// Accounts lists the accounts that an organization manages, newest first, with
// their grants. An operator who names none lists the instance's operators.
func (s *Service) Accounts(ctx context.Context, by Actor, organization string, page Page) ([]Member, error) {
	id := ""
	if ref := by.ownUnless(organization); ref != "" || !by.Operator {
		o, err := s.Organization(ctx, by, ref)
		if err != nil {
			return nil, err
		}
		id = o.ID
	}
	if err := by.require(id, "", PermissionMembers, PermissionKeysRead, PermissionKeysWrite); err != nil {
		return nil, err
	}
	accounts, err := s.store.Accounts(ctx, id, page)
	if err != nil || len(accounts) == 0 {
		return nil, err
	}
	ids := make([]string, len(accounts))
	for i, a := range accounts {
		ids[i] = a.ID
	}
	grants, err := s.store.Grants(ctx, ids...)
	if err != nil {
		return nil, err
	}
	of := make(map[string][]Grant, len(accounts))
	for _, g := range grants {
		if by.Sees(g.Organization) {
			of[g.Account] = append(of[g.Account], g)
		}
	}
	members := make([]Member, len(accounts))
	for i, a := range accounts {
		members[i] = Member{a, of[a.ID]}
	}
	return members, nil
}

// EditAccount changes an account.
func (s *Service) EditAccount(ctx context.Context, by Actor, id string, edit AccountEdit) (Member, error) {
	return s.changeAccount(ctx, by, id, func(m Member) (Member, error) {
		before, now := m.Account, s.instant()
		a := &m.Account
		set(&a.Name, edit.Name)
		set(&a.Email, edit.Email)
		if err := a.Validate(); err != nil || *a == before {
			m.Account = before
			return m, err
		}
		a.UpdatedAt = now
		mutation := Mutation{
			At: now, Accounts: []Account{*a},
			Audit: []AuditEntry{s.audit(by, now, "account.edit", KindAccount, id, a.Organization, accountView(before), accountView(*a))},
		}
		a.Version++
		return m, s.apply(ctx, by, mutation, m)
	})
}

// DeleteAccount removes an account that owns no keys, with its grants. What it
// holds at another organization is that one's, where the audit log tells of it:
// only an operator takes it away in passing.
func (s *Service) DeleteAccount(ctx context.Context, by Actor, id string) error {
	_, err := s.changeAccount(ctx, by, id, func(m Member) (Member, error) {
		a, now := m.Account, s.instant()
		if a.Organization != "" && id == DefaultAccount(a.Organization) {
			return m, &ConflictError{"the account default goes with its organization: keys for which nobody else is named are its"}
		}
		for _, g := range m.Grants {
			if err := s.mayMove(by, g, "the account holds what"); err != nil {
				return m, err
			}
		}
		all, err := s.store.Grants(ctx, id) // of the version that is deleted: grants move it
		if err != nil {
			return m, err
		}
		change := Mutation{At: now, DeleteAccounts: []Account{a}}
		var own []Grant
		for _, g := range all {
			if g.Organization == a.Organization {
				own = append(own, g)
				continue
			}
			if !by.Sees(g.Organization) {
				return m, &ConflictError{"the account holds something elsewhere, which is not yours to take: take its grants here away, or ask an operator to delete it"}
			}
			change.Audit = append(change.Audit, s.audit(by, now, "grant.remove", KindAccount, id, g.Organization, grantView(g), nil))
		}
		change.Audit = append(change.Audit, s.audit(by, now, "account.delete", KindAccount, id, a.Organization, accountView(a, own...), nil))
		return m, s.apply(ctx, by, change, nil)
	})
	return err
}

// changeAccount changes an account that is managed where the actor may manage.
func (s *Service) changeAccount(ctx context.Context, by Actor, id string, change func(Member) (Member, error)) (Member, error) {
	return revise(by, string(KindAccount), func() (Member, string, int64, error) {
		m, err := s.Account(ctx, by, id)
		if err == nil {
			err = by.require(m.Account.Organization, "", PermissionMembers)
		}
		if errors.Is(err, ErrNotFound) && m.Account.ID != "" { // a guest from elsewhere
			err = &ForbiddenError{Required: []string{PermissionOperator}, Detail: "the account is managed by another organization"}
		}
		return m, id, m.Account.Version, err
	}, change)
}
