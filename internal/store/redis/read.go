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
	if len(answer) != 7 {
		return f, fmt.Errorf("a look-up was answered with %d values", len(answer))
	}
	if f.Key, err = decodeKey(answer[0], answer[1], answer[5], answer[6]); err != nil {
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

// find reads a record by id or slug. Neither holds a colon, which parts the slug of
// a space from its organization in the names of Redis's keys.
func find[T any](ctx context.Context, s *Store, kind, ref string, decode func(id, text string) (T, error), places []string, args ...any) (T, error) {
	var none T
	if strings.Contains(ref, ":") {
		return none, fmt.Errorf("%s %s: %w", kind, ref, keys.ErrNotFound)
	}
	answer, err := read(ctx, s, kind+" "+ref, func(ctx context.Context) ([]string, error) {
		return findScript.Run(ctx, s.client, places, args...).StringSlice()
	})
	if err != nil {
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
	answer, err := read(ctx, s, "key "+id, func(ctx context.Context) ([]string, error) {
		return keyScript.Run(ctx, s.client, []string{keyKey + id}, id).StringSlice()
	})
	if err != nil {
		return keys.Key{}, err
	}
	return decodeKey(id, answer[0], answer[1], answer[2])
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
	if len(accounts) == 0 {
		return nil, s.ended(ctx)
	}
	names := make([]string, len(accounts))
	for i, id := range accounts {
		names[i] = grantsKey + id
	}
	lines, err := read(ctx, s, "grants", func(ctx context.Context) ([]any, error) { return s.client.MGet(ctx, names...).Result() })
	if err != nil {
		return nil, err
	}
	var all []keys.Grant
	for _, of := range lines {
		text, _ := of.(string) // nil where there is no such account
		grants, err := decodeGrants(text)
		if err != nil {
			return nil, err
		}
		all = append(all, grants...)
	}
	return all, nil
}

// Remembered implements keys.Store. Redis forgets by itself what is over.
func (s *Store) Remembered(ctx context.Context, id string) (keys.Remembered, error) {
	return get(ctx, s, "request", rememberedKey, id, func(id, text string) (keys.Remembered, error) {
		r, err := decode[rememberedRecord]("request", id, text)
		return keys.Remembered{ID: id, Digest: r.Digest, Answer: r.Answer, Until: instant(r.Until)}, err
	})
}

// Organizations implements keys.Store.
func (s *Store) Organizations(ctx context.Context, p keys.Page) ([]keys.Organization, error) {
	return list(ctx, s, organizationsKey, organizationKey, p, decodeOrganization)
}

// Spaces implements keys.Store.
func (s *Store) Spaces(ctx context.Context, organization string, p keys.Page) ([]keys.Space, error) {
	return list(ctx, s, spacesKey+organization, spaceKey, p, decodeSpace)
}

// Accounts implements keys.Store.
func (s *Store) Accounts(ctx context.Context, organization string, p keys.Page) ([]keys.Account, error) {
	return list(ctx, s, accountsKey+organization, accountKey, p, decodeAccount)
}

// list reads a page of a set whose members are ids.
func list[T any](ctx context.Context, s *Store, set, records string, p keys.Page, decode func(id, text string) (T, error)) ([]T, error) {
	answer, err := read(ctx, s, "list", func(ctx context.Context) ([]string, error) {
		return listScript.Run(ctx, s.client, []string{set}, records, p.After, max(p.Limit, 0)).StringSlice()
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
