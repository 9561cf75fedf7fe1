package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
)

// read runs a call that answers with goredis.Nil, or nothing, where there is no
// record. what names it in ErrNotFound's text.
func read[T any](ctx context.Context, s *Store, what string, call func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := s.ended(ctx); err != nil {
		return none, err
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := call(bounded)
	switch {
	case errors.Is(err, goredis.Nil):
		return none, fmt.Errorf("%s: %w", what, keys.ErrNotFound)
	case err != nil:
		return none, s.failed(ctx, err)
	}
	return answer, nil
}

// Lookup implements keys.Store with one script, which is one snapshot.
func (s *Store) Lookup(ctx context.Context, h keys.Hash) (f keys.Found, err error) {
	answer, err := read(ctx, s, "key", func(ctx context.Context) ([]string, error) {
		return lookupScript.Run(ctx, s.client, []string{secretKey + hashText(h)}).StringSlice()
	})
	if err != nil {
		return f, err
	}
	if len(answer) != 5 {
		return f, fmt.Errorf("a look-up was answered with %d values", len(answer))
	}
	if f.Key, err = decodeKey(answer[0], answer[1]); err != nil {
		return f, err
	}
	f.Secret = slices.IndexFunc(f.Key.Secrets, func(s keys.Secret) bool { return s.Hash == h })
	if f.Secret < 0 {
		return f, fmt.Errorf("key %s does not have the secret under which it was found", f.Key.ID)
	}
	if answer[2] != "" {
		if f.Organization, err = decodeOrganization(f.Key.Organization, answer[2]); err != nil {
			return f, err
		}
	}
	if answer[3] != "" {
		if f.Space, err = decodeSpace(f.Key.Space, answer[3]); err != nil {
			return f, err
		}
	}
	f.Grants, err = decodeGrants(answer[4])
	return f, err
}

// Organization implements keys.Store.
func (s *Store) Organization(ctx context.Context, ref string) (keys.Organization, error) {
	return find(ctx, s, "organization", ref, decodeOrganization, []string{organizationKey + ref, slugKey + ref}, organizationKey)
}

// Space implements keys.Store.
func (s *Store) Space(ctx context.Context, organization, ref string) (keys.Space, error) {
	return find(ctx, s, "space", ref, decodeSpace, []string{spaceKey + ref, slugKey + organization + ":" + ref}, spaceKey, organization)
}

// find reads a record by id or slug.
func find[T any](ctx context.Context, s *Store, kind, ref string, decode func(id, text string) (T, error), places []string, args ...any) (T, error) {
	answer, err := read(ctx, s, kind+" "+ref, func(ctx context.Context) ([]string, error) {
		return findScript.Run(ctx, s.client, places, args...).StringSlice()
	})
	if err != nil {
		var none T
		return none, err
	}
	id := ref
	if answer[1] != "" {
		id = answer[1]
	}
	return decode(id, answer[0])
}

// Account implements keys.Store.
func (s *Store) Account(ctx context.Context, id string) (keys.Account, error) {
	return get(ctx, s, "account", accountKey, id, decodeAccount)
}

// Key implements keys.Store.
func (s *Store) Key(ctx context.Context, id string) (keys.Key, error) {
	return get(ctx, s, "key", keyKey, id, decodeKey)
}

// Setting implements keys.Store.
func (s *Store) Setting(ctx context.Context, name string) (keys.Setting, error) {
	return get(ctx, s, "setting", settingKey, name, func(name, text string) (keys.Setting, error) {
		r, err := decode[settingRecord]("setting", name, text)
		return keys.Setting{Name: name, Value: r.Value, Version: r.Version}, err
	})
}

func get[T any](ctx context.Context, s *Store, kind, prefix, id string, decode func(id, text string) (T, error)) (T, error) {
	text, err := read(ctx, s, kind+" "+id, func(ctx context.Context) (string, error) { return s.client.Get(ctx, prefix+id).Result() })
	if err != nil {
		var none T
		return none, err
	}
	return decode(id, text)
}

// Grants implements keys.Store.
func (s *Store) Grants(ctx context.Context, accounts ...string) ([]keys.Grant, error) {
	var all []keys.Grant
	for _, account := range accounts {
		text, err := read(ctx, s, "grants", func(ctx context.Context) (string, error) { return s.client.Get(ctx, grantsKey+account).Result() })
		if errors.Is(err, keys.ErrNotFound) { // none is no error
			continue
		}
		if err != nil {
			return nil, err
		}
		grants, err := decodeGrants(text)
		if err != nil {
			return nil, err
		}
		all = append(all, grants...)
	}
	return all, nil
}

// Used implements keys.Store.
func (s *Store) Used(context.Context, []keys.Use) error { return errors.ErrUnsupported }

// Remembered implements keys.Store.
func (s *Store) Remembered(context.Context, string) (keys.Remembered, error) {
	return keys.Remembered{}, keys.ErrNotFound
}

// Organizations implements keys.Store.
func (s *Store) Organizations(ctx context.Context, p keys.Page) ([]keys.Organization, error) {
	return list(ctx, s, organizationsKey, organizationKey, "", p, decodeOrganization)
}

// Spaces implements keys.Store.
func (s *Store) Spaces(ctx context.Context, organization string, p keys.Page) ([]keys.Space, error) {
	return list(ctx, s, spacesKey+organization, spaceKey, "", p, decodeSpace)
}

// Accounts implements keys.Store.
func (s *Store) Accounts(ctx context.Context, organization string, p keys.Page) ([]keys.Account, error) {
	return list(ctx, s, accountsKey+organization, accountKey, "", p, decodeAccount)
}

// Keys implements keys.Store. Each of the four forms of the filter has a set.
func (s *Store) Keys(ctx context.Context, f keys.KeyFilter, p keys.Page) (keys.KeyPage, error) {
	set, prefix := keysKey, ""
	if f.Name != "" {
		set, prefix = namesKey, f.Name+"\x00"
	}
	if f.Organization != "" {
		set += ":" + f.Organization
	}
	found, err := list(ctx, s, set, keyKey, prefix, p, decodeKey)
	page := keys.KeyPage{Keys: found}
	if len(found) == p.Limit && p.Limit > 0 {
		page.Next = found[len(found)-1].ID
	}
	return page, err
}

// list reads a page of a set whose members are prefix and id.
func list[T any](ctx context.Context, s *Store, set, records, prefix string, p keys.Page, decode func(id, text string) (T, error)) ([]T, error) {
	answer, err := read(ctx, s, "list", func(ctx context.Context) ([]string, error) {
		return listScript.Run(ctx, s.client, []string{set}, records, prefix, p.After, max(p.Limit, 0)).StringSlice()
	})
	if err != nil {
		return nil, err
	}
	var out []T
	for pair := range slices.Chunk(answer, 2) {
		record, err := decode(pair[0], pair[1])
		if err != nil {
			return nil, err
		}
		out = append(out, record)
	}
	return out, nil
}

// AuditLog implements keys.Store. The set's members are id, NUL and entry.
func (s *Store) AuditLog(ctx context.Context, _ keys.AuditFilter, p keys.Page) (keys.AuditPage, error) {
	end := "+"
	if p.After != "" {
		end = "(" + p.After
	}
	members, err := read(ctx, s, "audit log", func(ctx context.Context) ([]string, error) {
		if p.Limit <= 0 {
			return nil, nil // Redis would take 0 for no limit
		}
		return s.client.ZRevRangeByLex(ctx, auditKey, &goredis.ZRangeBy{Min: "-", Max: end, Count: int64(p.Limit)}).Result()
	})
	if err != nil {
		return keys.AuditPage{}, err
	}
	var out []keys.AuditEntry
	for _, member := range members {
		id, text, _ := strings.Cut(member, "\x00")
		entry, err := decodeAudit(id, text)
		if err != nil {
			return keys.AuditPage{}, err
		}
		out = append(out, entry)
	}
	page := keys.AuditPage{Entries: out}
	if len(out) == p.Limit && p.Limit > 0 {
		page.Next = out[len(out)-1].ID
	}
	return page, nil
}
