package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ExportedKey is a key as another instance can import it: what it belongs to is
// named as it would be there.
type ExportedKey struct {
	Key
	// OrganizationSlug and SpaceSlug are what the key belongs to.
	OrganizationSlug, SpaceSlug string
	// Owner is empty for the organization's account default, else the account's
	// name, or its id where the name alone would not find it.
	Owner string
}

// KeyExport is a page of an export.
type KeyExport struct {
	Keys []ExportedKey
	Next string
	// LeftOut is how many keys of the instance's operators were passed over: they
	// belong to no organization, and another instance has its own.
	LeftOut int
}

// ExportKeys lists keys with the hashes of their present secrets, for a backup
// or another instance: operators only, for a weak key that was imported could
// be found from its hash.
func (s *Service) ExportKeys(ctx context.Context, by Actor, f KeyFilter, page Page) (KeyExport, error) {
	if err := by.operator("export keys"); err != nil {
		return KeyExport{}, err
	}
	found, err := s.Keys(ctx, by, f, page)
	if err != nil {
		return KeyExport{}, err
	}
	out, names := KeyExport{Next: found.Next}, exportNames{s, map[string]string{}, accountNames{}}
	for _, k := range found.Keys {
		if k.Organization == "" {
			out.LeftOut++
			continue
		}
		e, err := names.export(ctx, k)
		if err != nil {
			return KeyExport{}, err
		}
		out.Keys = append(out.Keys, e)
	}
	return out, nil
}

// exportNames finds what the keys of one page belong to, each thing once.
type exportNames struct {
	*Service
	slugs    map[string]string // by id, of organizations and spaces
	accounts accountNames
}

func (n *exportNames) export(ctx context.Context, k Key) (e ExportedKey, err error) {
	e.Key = k
	e.OrganizationSlug, err = n.slug(k.Organization, func() (string, error) {
		o, err := n.store.Organization(ctx, k.Organization)
		return o.Slug, err
	})
	if err != nil {
		return e, err
	}
	if k.Space != "" {
		e.SpaceSlug, err = n.slug(k.Space, func() (string, error) {
			sp, err := n.store.Space(ctx, k.Organization, k.Space)
			return sp.Slug, err
		})
	}
	if err != nil || k.Account == DefaultAccount(k.Organization) {
		return e, err
	}
	all, err := n.accounts.of(ctx, n.store, k.Organization)
	e.Owner = k.Account
	for name, ids := range all {
		if len(ids) == 1 && ids[0] == k.Account && !strings.HasPrefix(name, accountPrefix) {
			e.Owner = name
		}
	}
	return e, err
}

// slug remembers one; what was deleted meanwhile keeps its id.
func (n *exportNames) slug(id string, find func() (string, error)) (string, error) {
	if slug, ok := n.slugs[id]; ok {
		return slug, nil
	}
	slug, err := find()
	if errors.Is(err, ErrNotFound) {
		slug, err = id, nil
	}
	n.slugs[id] = slug
	return slug, err
}

// maxNamedAccounts is of how many accounts an organization may have for them to
// be called by name in an export and an import.
const maxNamedAccounts = 1000

// accountNames are the ids of the accounts that organizations manage, by
// organization and name.
type accountNames map[string]map[string][]string

func (n accountNames) of(ctx context.Context, store Store, organization string) (map[string][]string, error) {
	if known, ok := n[organization]; ok {
		return known, nil
	}
	accounts, err := store.Accounts(ctx, organization, Page{Limit: maxNamedAccounts + 1})
	if err != nil {
		return nil, err
	}
	names := make(map[string][]string, len(accounts))
	if len(accounts) <= maxNamedAccounts { // a name could stand twice beyond them
		for _, a := range accounts {
			names[a.Name] = append(names[a.Name], a.ID)
		}
	}
	n[organization] = names
	return names, nil
}

// namedAccount turns the name of an account that is to own an imported key into
// its id; one that does not exist is left for the check of the id.
func (s *Service) namedAccount(ctx context.Context, by Actor, known accountNames, in *NewKey) error {
	if in.Account == "" || strings.HasPrefix(in.Account, accountPrefix) {
		return nil
	}
	ref := in.Organization
	if ref == "" {
		ref = DefaultOrganization
	}
	o, err := s.Organization(ctx, by, ref)
	if errors.Is(err, ErrNotFound) {
		return nil // is said of the organization
	}
	if err != nil {
		return err
	}
	names, err := known.of(ctx, s.store, o.ID)
	if err != nil {
		return err
	}
	switch ids := names[in.Account]; len(ids) {
	case 1:
		in.Account, in.Organization = ids[0], o.ID
		return nil
	case 0:
		return &InvalidError{Fields: []FieldError{{Field: "account", Value: in.Account, Problem: "no account of the organization has this name or id"}}}
	default:
		return &InvalidError{Fields: []FieldError{{Field: "account", Value: in.Account, Problem: "several accounts of the organization have this name: give an id"}}}
	}
}

// HashText is how an export writes a hash.
func HashText(h Hash) string { return fmt.Sprintf("%x", h[:]) }
