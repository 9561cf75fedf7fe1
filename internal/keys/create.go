package keys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// NewKey is what a key is made from.
type NewKey struct {
	Name, Description string
	// Organization is an id or slug; empty: the account's or the actor's own, and
	// for operators "default".
	Organization string
	// Space is an id or slug; empty: not restricted.
	Space string
	// Account is an id; empty: the actor's own, and for operators the
	// organization's account "default".
	Account      string
	Permissions  []string
	AllowedCIDRs []string
	Plan         string
	Overrides    Overrides
	// Expires is in the form of ParseExpiry.
	Expires string
}

// CreateKey makes a key and returns its secret, which cannot be read again.
func (s *Service) CreateKey(ctx context.Context, by Actor, in NewKey) (Key, string, error) {
	now := s.instant()
	var c check
	k, owner, err := s.draft(ctx, by, &c, in, now)
	if err != nil {
		return Key{}, "", err
	}
	if k.ExpiresAt, err = ParseExpiry(in.Expires, now); err != nil {
		c.add("expires", in.Expires, "%s", err)
	}
	k.Lifetime = lifetime(k.ExpiresAt, now)
	if err := c.err(); err != nil {
		return Key{}, "", err
	}
	secret := s.format.Generate()
	k.Secrets = []Secret{NewSecret(s.format, secret, now)}
	m := Mutation{At: now, Keys: []Key{k}, Audit: []AuditEntry{s.audit(by, now, "key.create", KindKey, k.ID, k.Organization, nil, keyView(k))}}
	if m.MaxKeys, err = maxKeys(s.policyOf(by), owner.organization); err != nil {
		return Key{}, "", err
	}
	k.Version++
	if err := s.apply(ctx, by, m, k); err != nil {
		return Key{}, "", err
	}
	return k, secret, nil
}

// draft is a key as the input describes it, but for its secret and its expiry.
// Wrong fields go into c; an error is another failure, or a refusal.
func (s *Service) draft(ctx context.Context, by Actor, c *check, in NewKey, now time.Time) (Key, owner, error) {
	policy := s.policyOf(by)
	owner, err := s.owner(ctx, by, c, in)
	if err != nil {
		return Key{}, owner, err
	}
	k := Key{
		ID: newID(keyPrefix), Name: in.Name, Description: in.Description,
		Organization: owner.organization.ID, Account: owner.account.ID, Space: owner.space.ID,
		Permissions: slices.Clone(in.Permissions), Plan: in.Plan, Overrides: in.Overrides.Encode(),
		CreatedAt: now, UpdatedAt: now,
	}
	k.AllowedCIDRs = c.cidrs("allowed_cidrs", in.AllowedCIDRs)
	c.merge(k.Validate())
	if !owner.known {
		return k, owner, nil
	}
	if err := by.require(k.Organization, k.Space, PermissionKeysWrite); err != nil {
		return k, owner, err
	}
	var negotiated *Overrides
	if !in.Overrides.IsZero() {
		negotiated = &in.Overrides
	}
	if err := s.terms(by, c, &k, owner.organization, in.Plan != "", negotiated); err != nil {
		return k, owner, err
	}
	c.permissions("permissions", k, owner.grants, policy)
	if len(c.fields) > 0 {
		return k, owner, nil
	}
	if err := by.mayBe(k.Account, k.Space); err != nil {
		return k, owner, err
	}
	return k, owner, within(by, k, nil)
}

// terms checks what operators alone set: a key's own plan and overrides.
func (s *Service) terms(by Actor, c *check, k *Key, o Organization, plan bool, overrides *Overrides) error {
	if !plan && overrides == nil {
		return nil
	}
	if err := by.operator("set a key's plan and overrides"); err != nil {
		return err
	}
	policy, field := s.policyOf(by), "overrides"
	if plan && k.Plan != "" {
		c.plan("plan", k.Plan, policy)
	}
	if k.Organization == "" && (k.Plan != "" || len(k.Overrides) > 0) {
		c.add("plan", k.Plan, "a key of the instance's operators belongs to no organization and has no plan")
		return nil
	}
	if overrides != nil {
		wrong := len(c.fields)
		c.ownOverrides("overrides.", *overrides)
		if overrides.MaxKeys != nil {
			c.add("overrides.max_keys", "", "belongs to organizations; a key has none")
		}
		if len(c.fields) > wrong {
			return nil
		}
	} else {
		field = "plan" // does not go with what was negotiated before
	}
	if _, _, err := policy.Terms(o, *k); err != nil {
		c.add(field, "", "%s", err)
	}
	return nil
}

// within refuses permissions that the actor itself does not hold where the key
// will, but for those that the key had before: nobody hands on what they lack.
func within(by Actor, k Key, before []string) error {
	for i, name := range k.Permissions {
		if slices.Contains(before, name) {
			continue
		}
		if beyond := by.covers([]string{name}, k.Space); len(beyond) > 0 {
			return beyondError(fmt.Sprintf("permissions[%d]", i), fmt.Sprintf("%q", name), beyond)
		}
	}
	return nil
}

// lifetime is how long an expiry was set for; 0 for none.
func lifetime(expires, now time.Time) time.Duration {
	if expires.IsZero() {
		return 0
	}
	return expires.Sub(now)
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

func (s *Service) owner(ctx context.Context, by Actor, c *check, in NewKey) (owner, error) {
	var o owner
	var err error
	if in.Account == "" && !by.Operator {
		own, err := s.isOwn(ctx, by, in.Organization)
		if err != nil {
			return o, err
		}
		if own {
			in.Account = by.Account
		}
	}
	if in.Account != "" {
		o.account, o.grants, err = s.ownerAccount(ctx, by, in.Account)
		if errors.Is(err, ErrNotFound) {
			c.add("account", in.Account, "no account has this id")
			return o, nil
		}
		if err != nil {
			return o, err
		}
	}
	ref := in.Organization
	switch {
	case ref == "" && in.Account != "" && by.Sees(o.account.Organization):
		ref = o.account.Organization
	case ref == "" && in.Account != "": // a guest from elsewhere, or the instance's
		ref = by.Authority.Organization
	case ref == "" && by.Operator:
		ref = DefaultOrganization
	case ref == "":
		ref = by.Authority.Organization
	}
	if ref != "" { // empty: an operator's account
		if o.organization, err = s.organization(ctx, by, "organization", ref); err != nil {
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
		if o.grants, err = s.store.Grants(ctx, o.account.ID); err != nil {
			return o, err
		}
	}
	wrong := len(c.fields)
	if in.Space == "" {
		in.Space = by.Authority.Space // all that there is for it
	}
	if o.space, err = s.space(ctx, by, c, "space", o.organization.ID, in.Space); err != nil || len(c.fields) > wrong {
		return o, err
	}
	o.known = true
	if in.Account != "" && o.organization.ID != "" && !slices.ContainsFunc(o.grants, func(g Grant) bool { return g.Organization == o.organization.ID }) {
		c.add("account", in.Account, "the account holds no role at this organization")
	}
	return o, nil
}

// ownerAccount reads the account that is to own a key, if the actor sees it.
func (s *Service) ownerAccount(ctx context.Context, by Actor, id string) (Account, []Grant, error) {
	a, err := s.store.Account(ctx, id)
	if err != nil {
		return a, nil, err
	}
	grants, err := s.store.Grants(ctx, id)
	if err != nil {
		return a, nil, err
	}
	if !by.Sees(a.Organization) && !slices.ContainsFunc(grants, func(g Grant) bool { return by.Sees(g.Organization) }) {
		return a, nil, ErrNotFound
	}
	return a, grants, nil
}

// isOwn reports whether a reference means the actor's own organization; none does.
func (s *Service) isOwn(ctx context.Context, by Actor, ref string) (bool, error) {
	if ref == "" {
		return true, nil
	}
	o, err := s.Organization(ctx, by, ref)
	if errors.Is(err, ErrNotFound) { // is said where it is looked for again
		return false, nil
	}
	return o.ID == by.Authority.Organization, err
}

// maxKeys is the bound that an organization's plan and overrides set, nil for none.
func maxKeys(p *Policy, o Organization) (*MaxKeys, error) {
	if o.ID == "" {
		return nil, nil
	}
	plan, _, err := p.Terms(o, Key{})
	if err != nil || plan.MaxKeys == Unlimited {
		return nil, err
	}
	return &MaxKeys{Organization: o.ID, Max: plan.MaxKeys}, nil
}

// permissions wants each permission of a key to exist and to lie within what
// its owner holds: at the organization and, for a key restricted to a space,
// there; for any other key, at any space.
func (c *check) permissions(field string, k Key, grants []Grant, p *Policy) {
	if len(k.Permissions) > maxPermissions {
		return // as Validate says; each by itself would take long
	}
	ceiling := p.Granted(grants, k.Organization, "")
	for _, g := range grants {
		if g.Space != "" && (k.Space == "" || g.Space == k.Space) {
			ceiling = ceiling.Or(p.Granted(grants, k.Organization, g.Space))
		}
	}
	for i, name := range k.Permissions {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := p.Catalogue.Check(name); err != nil {
			c.add(at, name, "names %s%s", err, p.Catalogue.likely(name))
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
	seen := make(map[netip.Prefix]bool) // of any number: they are counted later
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
		if prefix = prefix.Masked(); !seen[prefix] {
			seen[prefix] = true
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
