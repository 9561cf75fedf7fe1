package keys

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// maxGrants bounds the grants of one account that an actor sees: what an account holds
// elsewhere takes no room from those who do not see it. Each costs its keys' lookups.
const maxGrants = 100

// NewGrant is what a grant is made from: exactly one of Role and Permission.
type NewGrant struct {
	// Organization is an id or slug; empty: the account's own, and for an
	// operators' account the instance.
	Organization string
	// Space is an id or slug; empty: the whole organization.
	Space      string
	Role       string
	Permission string
}

// AddGrant gives an account a role or a permission.
func (s *Service) AddGrant(ctx context.Context, by Actor, account string, in NewGrant) (Grant, error) {
	var made Grant
	_, err := s.changeGrants(ctx, by, account, func(m Member) (Member, error) {
		now := s.instant()
		if in.Organization == "" {
			in.Organization = m.Account.Organization
		}
		if in.Organization != "" {
			o, err := s.organization(ctx, by, "organization", in.Organization)
			if err != nil {
				return m, err
			}
			in.Organization = o.ID
		}
		if err := by.require(in.Organization, "", PermissionMembers); err != nil {
			return m, err
		}
		var c check
		g, err := s.grant(ctx, by, &c, m.Account, in, now)
		if err != nil {
			return m, err
		}
		if err := c.err(); err != nil {
			return m, err
		}
		if slices.ContainsFunc(m.Grants, func(o Grant) bool {
			return o.Organization == g.Organization && o.Space == g.Space && o.Role == g.Role && o.Permission == g.Permission
		}) {
			return m, &ConflictError{fmt.Sprintf("the account holds %s%s there already", g.Role, g.Permission)}
		}
		if len(m.Grants) >= maxGrants {
			return m, &ConflictError{fmt.Sprintf("an account can have %d grants: a role can hold many permissions", maxGrants)}
		}
		made = g
		return m, s.applyGrants(ctx, by, m.Account, now, Mutation{
			Grants: []Grant{g},
			Audit:  []AuditEntry{s.audit(by, now, "grant.add", KindAccount, account, g.Organization, nil, grantView(g))},
		}, g)
	})
	return made, err
}

// RemoveGrant takes a grant away: from all of the account's keys at once.
func (s *Service) RemoveGrant(ctx context.Context, by Actor, account, grant string) error {
	_, err := s.changeGrants(ctx, by, account, func(m Member) (Member, error) {
		now := s.instant()
		i := slices.IndexFunc(m.Grants, func(g Grant) bool { return g.ID == grant })
		if i < 0 {
			return m, ErrNotFound
		}
		g := m.Grants[i]
		if err := s.mayMove(by, g, "the grant"); err != nil {
			return m, err
		}
		return m, s.applyGrants(ctx, by, m.Account, now, Mutation{
			DeleteGrants: []Grant{g},
			Audit:        []AuditEntry{s.audit(by, now, "grant.remove", KindAccount, account, g.Organization, grantView(g), nil)},
		}, nil)
	})
	return err
}

// changeGrants reads the account anew for each try. The account's version moves
// with its grants, so that two changes never pass each other unseen.
func (s *Service) changeGrants(ctx context.Context, by Actor, account string, change func(Member) (Member, error)) (Member, error) {
	return revise(by, string(KindAccount), func() (Member, string, int64, error) {
		m, err := s.Account(ctx, by, account)
		return m, account, m.Account.Version, err
	}, change)
}

func (s *Service) applyGrants(ctx context.Context, by Actor, a Account, now time.Time, m Mutation, result any) error {
	m.At = now
	a.UpdatedAt = now
	m.Accounts = []Account{a}
	return s.apply(ctx, by, m, result)
}

// grant makes a grant to an account; wrong fields go into c. in.Organization is
// an id by now, and one that the actor sees.
func (s *Service) grant(ctx context.Context, by Actor, c *check, a Account, in NewGrant, now time.Time) (Grant, error) {
	policy := s.policyOf(by)
	g := Grant{
		ID: newID(grantPrefix), Account: a.ID, Organization: in.Organization,
		Role: in.Role, Permission: in.Permission, CreatedAt: now,
	}
	if g.Organization == "" {
		if err := by.operator("grant anything at the instance"); err != nil {
			return g, err
		}
	}
	sp, err := s.space(ctx, by, c, "space", in.Organization, in.Space)
	if err != nil {
		return g, err
	}
	g.Space = sp.ID
	switch {
	case in.Role == "" && in.Permission == "":
		c.add("role", "", "is required, or a permission: the roles are %s", list(policy.Roles))
	case in.Role != "" && in.Permission != "":
		c.add("permission", in.Permission, "stands beside a role: a grant is one of both")
	case in.Role != "":
		if _, ok := policy.Roles[in.Role]; !ok {
			c.add("role", in.Role, "is not a role of the policy; there are %s", list(policy.Roles))
		}
	default:
		if err := policy.Catalogue.Check(in.Permission); err != nil {
			c.add("permission", in.Permission, "names %s%s", err, policy.Catalogue.likely(in.Permission))
		} else if in.Permission == PermissionOperator && g.Organization != "" {
			c.add("permission", in.Permission, "is granted at the instance only, to accounts that belong to no organization")
		}
	}
	if len(c.fields) > 0 {
		return g, nil
	}
	return g, s.mayMove(by, g, "the grant")
}

// mayMove wants the actor to hold what a grant gives, to give it or to take it.
func (s *Service) mayMove(by Actor, g Grant, what string) error {
	if err := by.require(g.Organization, "", PermissionMembers); err != nil {
		return err
	}
	if beyond := by.covers(s.policyOf(by).of(g), g.Space); len(beyond) > 0 {
		field := "permission"
		if g.Role != "" {
			field = "role"
		}
		return beyondError(field, what, beyond)
	}
	return nil
}

// of is what a grant gives, as it is written.
func (p *Policy) of(g Grant) []string {
	if g.Role != "" {
		return p.Roles[g.Role]
	}
	return []string{g.Permission}
}
