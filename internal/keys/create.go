package keys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// NewKey is what a key is made from.
type NewKey struct {
	Name, Description string
	// Organization is an id or slug; empty: the account's, or "default".
	Organization string
	// Space is an id or slug; empty: not restricted.
	Space string
	// Account is an id; empty: the organization's account "default".
	Account      string
	Permissions  []string
	AllowedCIDRs []string
	Plan         string
	// Expires is in the form of ParseExpiry.
	Expires string
}

// CreateKey makes a key and returns its secret, which cannot be read again.
func (s *Service) CreateKey(ctx context.Context, by Actor, in NewKey) (Key, string, error) {
	now, policy := s.instant(), s.policy()
	var c check
	owner, err := s.owner(ctx, &c, in)
	if err != nil {
		return Key{}, "", err
	}
	secret := s.format.Generate()
	k := Key{
		ID: newID(keyPrefix), Name: in.Name, Description: in.Description,
		Organization: owner.organization.ID, Account: owner.account.ID, Space: owner.space.ID,
		Permissions: slices.Clone(in.Permissions), Plan: in.Plan,
		Secrets:   []Secret{NewSecret(s.format, secret, now)},
		CreatedAt: now, UpdatedAt: now,
	}
	k.AllowedCIDRs = c.cidrs("allowed_cidrs", in.AllowedCIDRs)
	if k.ExpiresAt, err = ParseExpiry(in.Expires, now); err != nil {
		c.add("expires", in.Expires, "%s", err)
	}
	if in.Plan != "" {
		c.plan("plan", in.Plan, policy)
	}
	if in.Plan != "" && k.Organization == "" {
		c.add("plan", in.Plan, "a key of the instance's operators belongs to no organization and has no plan")
	}
	c.merge(k.Validate())
	if owner.known {
		c.permissions("permissions", k, owner.grants, policy)
	}
	if err := c.err(); err != nil {
		return Key{}, "", err
	}
	m := Mutation{At: now, Keys: []Key{k}, Audit: []AuditEntry{s.audit(by, now, "key.create", KindKey, k.ID, k.Organization, nil, keyView(k))}}
	m.MaxKeys = maxKeys(policy, owner.organization)
	if err := s.apply(ctx, by, m); err != nil {
		return Key{}, "", err
	}
	k.Version++
	return k, secret, nil
}

// owner is who a new key belongs to; known unless the input names someone
// who does not exist.
type owner struct {
	organization Organization
	account      Account
	space        Space
	grants       []Grant
	known        bool
}

func (s *Service) owner(ctx context.Context, c *check, in NewKey) (owner, error) {
	var o owner
	var err error
	if in.Account != "" {
		o.account, err = s.store.Account(ctx, in.Account)
		if errors.Is(err, ErrNotFound) {
			c.add("account", in.Account, "no account has this id")
			return o, nil
		}
		if err != nil {
			return o, err
		}
	}
	ref := in.Organization
	if ref == "" && in.Account != "" {
		ref = o.account.Organization
	} else if ref == "" {
		ref = DefaultOrganization
	}
	if ref != "" { // empty: an operator's account
		if o.organization, err = s.organization(ctx, "organization", ref); err != nil {
			var invalid *InvalidError
			if errors.As(err, &invalid) {
				c.merge(err)
				return o, nil
			}
			return o, err
		}
	}
	if in.Account == "" {
		o.account.ID = DefaultAccount(o.organization.ID)
	}
	if in.Space != "" {
		o.space, err = s.store.Space(ctx, o.organization.ID, in.Space)
		if errors.Is(err, ErrNotFound) {
			c.add("space", in.Space, "the organization has no space with this id or slug")
			return o, nil
		}
		if err != nil {
			return o, err
		}
	}
	o.grants, err = s.store.Grants(ctx, o.account.ID)
	if err != nil {
		return o, err
	}
	o.known = true
	if in.Account != "" && o.organization.ID != "" && !slices.ContainsFunc(o.grants, func(g Grant) bool { return g.Organization == o.organization.ID }) {
		c.add("account", in.Account, "the account holds no role at this organization")
	}
	return o, nil
}

// maxKeys is the bound that an organization's plan sets, nil for none.
func maxKeys(p *Policy, o Organization) *MaxKeys {
	if o.ID == "" {
		return nil
	}
	plan, _ := p.PlanOf(o.Plan, "")
	if plan.MaxKeys == Unlimited {
		return nil
	}
	return &MaxKeys{Organization: o.ID, Max: plan.MaxKeys}
}

// permissions wants each permission of a key to exist and to lie within what
// its owner holds: at the organization and, for a key restricted to a space,
// there; for any other key, at any space.
func (c *check) permissions(field string, k Key, grants []Grant, p *Policy) {
	ceiling := p.Granted(grants, k.Organization, "")
	for _, g := range grants {
		if g.Space != "" && (k.Space == "" || g.Space == k.Space) {
			ceiling = ceiling.Or(p.Granted(grants, k.Organization, g.Space))
		}
	}
	for i, name := range k.Permissions {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := p.Catalogue.Check(name); err != nil {
			c.add(at, name, "names %s", err)
			continue
		}
		if slices.Contains(k.Permissions[:i], name) {
			c.add(at, name, "stands twice in the list")
			continue
		}
		var beyond []string
		for _, n := range p.Catalogue.Names(p.Catalogue.Expand([]string{name})) {
			if j, _ := p.Catalogue.Index(n); !ceiling.Has(j) {
				beyond = append(beyond, n)
			}
		}
		if len(beyond) > 0 {
			c.add(at, name, "goes beyond what the key's owner holds, who lacks %s", shorten(beyond, 5))
		}
	}
}

func shorten(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (c *check) plan(field, name string, p *Policy) {
	if _, ok := p.Plans[name]; !ok {
		c.add(field, name, "is not a plan of the policy; there are %s", list(p.Plans))
	}
}

// cidrs reads addresses and networks; bits beyond a network's length are
// dropped, an address stands for itself alone.
func (c *check) cidrs(field string, in []string) []netip.Prefix {
	var out []netip.Prefix
	for i, s := range in {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, addrErr := netip.ParseAddr(s)
			if addrErr != nil || addr.Zone() != "" {
				c.add(fmt.Sprintf("%s[%d]", field, i), s, `must be an address such as "192.0.2.7" or a network such as "192.0.2.0/24" or "2001:db8::/32"`)
				continue
			}
			addr = addr.Unmap()
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix.Addr().Is4In6() {
			c.add(fmt.Sprintf("%s[%d]", field, i), s, "is an IPv4 network written as IPv6: write it as IPv4")
			continue
		}
		if prefix = prefix.Masked(); !slices.Contains(out, prefix) {
			out = append(out, prefix)
		}
	}
	return out
}

// merge takes over what a Validate found.
func (c *check) merge(err error) {
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		c.fields = append(c.fields, invalid.Fields...)
	}
}
