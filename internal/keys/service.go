package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Service changes the control plane. Every change is validated, applied as one
// mutation with its audit entry, and told to Changed before it is acknowledged.
type Service struct {
	store   Store
	format  Format
	policy  func() *Policy
	changed func(Change)
	made    func(Change)
	now     func() time.Time
}

// ServiceOptions of a Service; all but Made are required.
type ServiceOptions struct {
	Store  Store
	Format Format
	// Policy returns the one in force.
	Policy func() *Policy
	// Changed is told of each change before it is acknowledged, so that this
	// replica acts on it at once. It may be told of one that failed.
	Changed func(Change)
	// Made is told of each change that is known to have been made, after Changed.
	Made func(Change)
	Now  func() time.Time
}

// NewService returns a Service.
func NewService(o ServiceOptions) *Service {
	return &Service{store: o.Store, format: o.Format, policy: o.Policy, changed: o.Changed, made: o.Made, now: o.Now}
}

// Actor is who asks for something: it stands in the audit log, and what it may
// do bounds what is done.
type Actor struct {
	Key, Account, Address, RequestID string
	Authority
	// If is the version that a change must be based on; 0: any.
	If int64
	// Applied, if not nil, is told what a change that was made came to.
	Applied func(Applied)
	// Remember, if not nil, turns the result of a change into what is kept with
	// it for a client that repeats the request. It is called before the change
	// is made; the result has no secret.
	Remember func(result any) (*Remembered, error)
}

// System is the Actor of what keygate does by itself.
var System = Actor{Key: "system", Authority: Authority{Operator: true}}

// DefaultOrganization is the slug of the organization that exists from the start.
const DefaultOrganization = "default"

// maxTries bounds how often a change is based anew on a record that someone
// else keeps changing.
const maxTries = 8

// Read gives access to the records.
func (s *Service) Read() Reader { return s.store }

// instant is now as the store keeps it.
func (s *Service) instant() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// apply makes the change and tells of it. A change whose answer was lost may
// have happened, so Changed is told in any case.
func (s *Service) apply(ctx context.Context, by Actor, m Mutation) error {
	applied, err := s.store.Apply(ctx, m)
	if err == nil && by.Applied != nil {
		by.Applied(applied)
	}
	for _, c := range m.changes() {
		s.changed(c)
		if err == nil && s.made != nil {
			s.made(c)
		}
	}
	return err
}

// changes is what the mutation adds to the feed, without the numbers that the
// store gives.
func (m *Mutation) changes() []Change {
	var cs []Change
	for _, o := range m.Organizations {
		cs = append(cs, Change{Kind: KindOrganization, ID: o.ID, Organization: o.ID, Version: o.Version + 1})
	}
	for _, sp := range m.Spaces {
		cs = append(cs, Change{Kind: KindSpace, ID: sp.ID, Organization: sp.Organization, Version: sp.Version + 1})
	}
	for _, g := range m.Grants {
		cs = append(cs, Change{Kind: KindAccount, ID: g.Account, Organization: g.Organization})
	}
	for _, k := range m.Keys {
		cs = append(cs, Change{Kind: KindKey, ID: k.ID, Organization: k.Organization, Version: k.Version + 1})
	}
	for _, k := range m.DeleteKeys {
		cs = append(cs, Change{Kind: KindKey, ID: k.ID, Organization: k.Organization})
	}
	return cs
}

func (s *Service) audit(by Actor, at time.Time, action string, kind Kind, target, organization string, before, after any) AuditEntry {
	return AuditEntry{
		ID: newID(auditPrefix), At: at, Action: action,
		Actor: by.Key, ActorAccount: by.Account, Address: by.Address, RequestID: by.RequestID,
		Kind: kind, Target: target, Organization: organization,
		Before: auditJSON(before), After: auditJSON(after),
	}
}

func auditJSON(v any) []byte {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("keys: %T cannot be written to the audit log: %v", v, err)) // only our own types get here
	}
	return b
}

// NewOrganization is what an organization is made from. Name defaults to the
// slug, Plan to the default plan.
type NewOrganization struct{ Slug, Name, Plan string }

// CreateOrganization makes an organization and its account "default", which
// holds the role owner and owns keys for which nobody else is named.
func (s *Service) CreateOrganization(ctx context.Context, by Actor, in NewOrganization) (Organization, error) {
	now, policy := s.instant(), s.policy()
	o := Organization{ID: newID(organizationPrefix), Slug: in.Slug, Name: in.Name, Plan: in.Plan, CreatedAt: now, UpdatedAt: now}
	if o.Name == "" {
		o.Name = o.Slug
	}
	if o.Plan == "" {
		o.Plan = policy.DefaultPlan
	}
	var c check
	c.merge(o.Validate())
	c.plan("plan", o.Plan, policy)
	if err := c.err(); err != nil {
		return Organization{}, err
	}
	m := Mutation{At: now, Organizations: []Organization{o}}
	m.addOwner(o)
	m.Audit = []AuditEntry{s.audit(by, now, "organization.create", KindOrganization, o.ID, o.ID, nil, organizationView(o))}
	if err := s.apply(ctx, by, m); err != nil {
		return Organization{}, err
	}
	o.Version++
	return o, nil
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

// NewSpace is what a space is made from. Name defaults to the slug.
type NewSpace struct{ Organization, Slug, Name string }

// CreateSpace makes a space of an organization, given by id or slug.
func (s *Service) CreateSpace(ctx context.Context, by Actor, in NewSpace) (Space, error) {
	now := s.instant()
	o, err := s.organization(ctx, "organization", in.Organization)
	if err != nil {
		return Space{}, err
	}
	sp := Space{ID: newID(spacePrefix), Organization: o.ID, Slug: in.Slug, Name: in.Name, CreatedAt: now, UpdatedAt: now}
	if sp.Name == "" {
		sp.Name = sp.Slug
	}
	if err := sp.Validate(); err != nil {
		return Space{}, err
	}
	err = s.apply(ctx, by, Mutation{
		At: now, Spaces: []Space{sp},
		Audit: []AuditEntry{s.audit(by, now, "space.create", KindSpace, sp.ID, o.ID, nil, spaceView(sp))},
	})
	if err != nil {
		return Space{}, err
	}
	sp.Version++
	return sp, nil
}

// NewAccount is what an account and its first grant are made from.
type NewAccount struct{ Name, Email, Organization, Space, Role string }

// CreateAccount makes an account with one grant: a role at an organization or,
// with Space, at one of its spaces.
func (s *Service) CreateAccount(ctx context.Context, by Actor, in NewAccount) (Account, Grant, error) {
	now, policy := s.instant(), s.policy()
	o, err := s.organization(ctx, "organization", in.Organization)
	if err != nil {
		return Account{}, Grant{}, err
	}
	a := Account{ID: newID(accountPrefix), Organization: o.ID, Name: in.Name, Email: in.Email, CreatedAt: now, UpdatedAt: now}
	g := Grant{ID: newID(grantPrefix), Account: a.ID, Organization: o.ID, Role: in.Role, CreatedAt: now}
	var c check
	c.merge(a.Validate())
	if _, ok := policy.Roles[in.Role]; !ok {
		c.add("role", in.Role, "is not a role of the policy; there are %s", list(policy.Roles))
	}
	if in.Space != "" {
		sp, err := s.store.Space(ctx, o.ID, in.Space)
		if errors.Is(err, ErrNotFound) {
			c.add("space", in.Space, "the organization has no space with this id or slug")
		} else if err != nil {
			return Account{}, Grant{}, err
		}
		g.Space = sp.ID
	}
	if err := c.err(); err != nil {
		return Account{}, Grant{}, err
	}
	err = s.apply(ctx, by, Mutation{
		At: now, Accounts: []Account{a}, Grants: []Grant{g},
		Audit: []AuditEntry{s.audit(by, now, "account.create", KindAccount, a.ID, o.ID, nil, accountView(a, g))},
	})
	if err != nil {
		return Account{}, Grant{}, err
	}
	a.Version++
	return a, g, nil
}

// organization resolves a reference in an input; a wrong one is the input's
// fault, not a missing resource.
func (s *Service) organization(ctx context.Context, field, ref string) (Organization, error) {
	o, err := s.store.Organization(ctx, ref)
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

// SystemEntry is the audit entry of something that keygate did by itself to the
// whole instance.
func SystemEntry(action string, at time.Time, after any) AuditEntry {
	at = at.UTC().Truncate(time.Microsecond)
	return AuditEntry{ID: newID(auditPrefix), At: at, Action: action, Actor: System.Key, Kind: KindSetting, Target: action, After: auditJSON(after)}
}
