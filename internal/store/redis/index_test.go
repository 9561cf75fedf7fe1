package redis

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

// index is every sorted set and hash of keys and grants: set -> member -> score or
// value.
type index map[string]map[string]string

func (i index) put(set, member, value string) {
	if i[set] == nil {
		i[set] = map[string]string{}
	}
	i[set][member] = value
}

// stored reads the sets that Redis has.
func stored(server *redistest.Server) index {
	all := index{}
	for _, name := range server.Do("KEYS", tag+"*").([]any) {
		set := strings.TrimPrefix(name.(string), tag)
		var pairs []any
		switch family, _, _ := strings.Cut(set, ":"); family {
		case "keys", "names", "used", "paused", "revoked", "live", "expiring", "owned", "within", "organizations", "spaces", "accounts":
			pairs = server.Do("ZRANGE", name, 0, -1, "WITHSCORES").([]any)
		case "uses", "granted":
			pairs = server.Do("HGETALL", name).([]any)
		}
		for pair := range slices.Chunk(pairs, 2) {
			all.put(set, pair[0].(string), pair[1].(string))
		}
	}
	return all
}

// expected derives the sets from what the store answers about its records.
func expected(t *testing.T, s *Store, organizations []string) index {
	t.Helper()
	all, everything := index{}, keys.Page{Limit: 10_000}
	for _, o := range organizations {
		if _, err := s.Organization(t.Context(), o); err == nil {
			all.put("organizations", o, "0")
		}
	}
	for _, o := range append(organizations, "") {
		spaces, err := s.Spaces(t.Context(), o, everything)
		if err != nil {
			t.Fatal(err)
		}
		for _, sp := range spaces {
			all.put("spaces:"+o, sp.ID, "0")
		}
		accounts, err := s.Accounts(t.Context(), o, everything)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range accounts {
			all.put("accounts:"+o, a.ID, "0")
			grants, err := s.Grants(t.Context(), a.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range grants {
				all.grant(g)
			}
		}
	}
	page, err := s.Keys(t.Context(), keys.KeyFilter{}, everything)
	if err != nil || page.Next != "" {
		t.Fatalf("Keys: %v, next %q", err, page.Next)
	}
	for _, k := range page.Keys {
		all.key(k)
	}
	return all
}

func (i index) grant(g keys.Grant) {
	for _, id := range []string{g.Organization, g.Space} {
		if id != "" {
			n, _ := strconv.Atoi(i["granted"][id])
			i.put("granted", id, strconv.Itoa(n+1))
		}
	}
}

func (i index) key(k keys.Key) {
	both := func(set, member, score string) {
		i.put(set, member, score)
		if k.Organization != "" {
			i.put(set+":"+k.Organization, member, score)
		}
	}
	both("keys", k.ID, "0")
	both("names", namePrefix(k.Name)+k.ID, "0")
	active, end := k.LastUsedAt, "inf"
	if active.IsZero() {
		active = k.CreatedAt
	}
	both("used", k.ID, fmt.Sprint(micros(active)))
	if !k.ExpiresAt.IsZero() && k.RevokedAt.IsZero() {
		end = fmt.Sprint(micros(k.ExpiresAt))
		i.put("expiring", k.ID, end)
	}
	switch {
	case !k.RevokedAt.IsZero():
		both("revoked", k.ID, "0")
	case !k.PausedAt.IsZero():
		both("paused", k.ID, "0")
	}
	if k.Organization != "" && k.RevokedAt.IsZero() {
		i.put("live:"+k.Organization, k.ID, end)
	}
	i.put("owned:"+k.Account, k.ID, "0")
	if k.Space != "" {
		i.put("within:"+k.Space, k.ID, "0")
	}
}

// life makes random changes, most of which succeed.
type life struct {
	*testing.T
	s             *Store
	random        *rand.Rand
	now           time.Time
	last          int
	organizations []string
	spaces        []keys.Space
	accounts      []keys.Account
	keys          map[string]keys.Key
}

func (l *life) id(prefix string) string {
	l.last++
	return fmt.Sprintf("%s%06d", prefix, l.last)
}

func pick[T any](l *life, from ...T) T { return from[l.random.IntN(len(from))] }

// try makes a change and reports whether it was made: it may be refused for what
// is in use, and for nothing else.
func (l *life) try(m keys.Mutation) bool {
	l.Helper()
	m.At = l.now
	_, err := l.s.Apply(l.Context(), m)
	var used *keys.InUseError
	if err != nil && !errors.As(err, &used) {
		l.Fatalf("%+v: %v", m, err)
	}
	return err == nil
}

// edit gives a key new values of all that decides where it stands.
func (l *life) edit(k keys.Key) keys.Key {
	some := func() time.Time {
		return pick(l, time.Time{}, l.now, l.now.Add(time.Duration(l.random.IntN(1000))*time.Hour))
	}
	k.Name = pick(l, "deploy", "Deploy", "ÄRGER", "ärger", "İ", "reporting")
	k.ExpiresAt, k.PausedAt, k.RevokedAt = some(), pick(l, time.Time{}, l.now), pick(l, time.Time{}, time.Time{}, l.now)
	k.LastUsedAt = pick(l, time.Time{}, l.now, k.LastUsedAt)
	a := pick(l, l.accounts...)
	k.Account, k.Organization, k.Space = a.ID, a.Organization, ""
	if own := slices.DeleteFunc(slices.Clone(l.spaces), func(s keys.Space) bool { return s.Organization != k.Organization }); len(own) > 0 && l.random.IntN(2) == 0 {
		k.Space = pick(l, own...).ID
	}
	k.Secrets = slices.Clone(k.Secrets)
	if len(k.Secrets) == 0 || l.random.IntN(4) == 0 {
		k.Secrets = append([]keys.Secret{{Hash: keys.HashSecret(l.id("secret"))}}, k.Secrets...)
	}
	k.Secrets = k.Secrets[:min(len(k.Secrets), 1+l.random.IntN(3))]
	return k
}

func (l *life) write(k keys.Key) {
	if l.try(keys.Mutation{Keys: []keys.Key{k}}) {
		k.Version++
		l.keys[k.ID] = k
	}
}

func (l *life) use() {
	var uses []keys.Use
	for _, k := range l.keys {
		u := keys.Use{Key: k.ID, At: l.now.Add(time.Duration(l.random.IntN(200)) * time.Second)}
		if l.random.IntN(2) == 0 {
			u.Secret = pick(l, k.Secrets...).Hash
		}
		if uses = append(uses, u); len(uses) == 10 {
			break
		}
	}
	if err := l.s.Used(l.Context(), uses); err != nil {
		l.Fatal(err)
	}
}

// tenants deletes an account, a space or a grant, and makes new ones.
func (l *life) tenants() {
	o := pick(l, l.organizations...)
	a, s := keys.Account{ID: l.id("acc_"), Organization: pick(l, o, "")}, keys.Space{ID: l.id("spc_"), Organization: o, Slug: l.id("s")}
	g := keys.Grant{ID: l.id("grt_"), Account: a.ID, Organization: o, Space: pick(l, s.ID, ""), Role: "owner"}
	l.try(keys.Mutation{Accounts: []keys.Account{a}, Spaces: []keys.Space{s}, Grants: []keys.Grant{g, {ID: l.id("grt_"), Account: a.ID, Organization: o}}})
	a.Version, s.Version = 1, 1
	l.accounts, l.spaces = append(l.accounts, a), append(l.spaces, s)
	if l.random.IntN(2) == 0 {
		l.try(keys.Mutation{DeleteGrants: []keys.Grant{{ID: g.ID}}})
	}
	if i := l.random.IntN(len(l.accounts)); len(l.accounts) > 3 && l.try(keys.Mutation{DeleteAccounts: l.accounts[i : i+1]}) {
		l.accounts = slices.Delete(l.accounts, i, i+1)
	}
	if i := l.random.IntN(len(l.spaces)); l.try(keys.Mutation{DeleteSpaces: l.spaces[i : i+1]}) {
		l.spaces = slices.Delete(l.spaces, i, i+1)
	}
}

func (l *life) step() {
	l.now = l.now.Add(time.Duration(l.random.IntN(90)) * time.Second)
	switch n := l.random.IntN(20); {
	case n < 6 || len(l.keys) == 0:
		l.write(l.edit(keys.Key{ID: l.id("key_"), CreatedAt: l.now}))
	case n < 13:
		l.write(l.edit(l.keys[pick(l, slices.Sorted(maps.Keys(l.keys))...)]))
	case n < 16:
		l.use()
	case n < 18:
		l.tenants()
	default:
		id := pick(l, slices.Sorted(maps.Keys(l.keys))...)
		if !l.try(keys.Mutation{DeleteKeys: []keys.Key{l.keys[id]}}) {
			l.Errorf("key %s cannot be deleted", id)
		}
		delete(l.keys, id)
	}
}

// TestIndex: whatever happens to keys and tenants, the sets agree with the
// records; and when all is deleted nothing is left.
func TestIndex(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	for seed := range uint64(3) {
		server.Flush()
		s := openStore(t, Options{Client: client(t, server.URL())})
		l := &life{T: t, s: s, random: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC), keys: map[string]keys.Key{}, organizations: []string{"org_1", "org_2"}}
		for _, o := range l.organizations {
			apply(t, s, keys.Mutation{Organizations: []keys.Organization{{ID: o, Slug: "slug" + o}}})
		}
		l.tenants()
		l.tenants()
		for range 400 {
			l.step()
		}
		got := stored(server)
		uses := got["uses"]
		delete(got, "uses")
		if diff := cmp.Diff(expected(t, s, l.organizations), got); diff != "" {
			t.Errorf("seed %d: the sets (-of the records +stored):\n%s", seed, diff)
		}
		for id := range uses {
			if _, known := l.keys[id]; !known {
				t.Errorf("seed %d: uses of key %s, which is deleted", seed, id)
			}
		}
		if len(l.keys) < 20 || len(uses) == 0 {
			t.Errorf("seed %d: %d keys, of %d of which single uses are known", seed, len(l.keys), len(uses))
		}
		l.end(server)
	}
}

// end deletes all in one change.
func (l *life) end(server *redistest.Server) {
	l.Helper()
	m := keys.Mutation{DeleteKeys: slices.Collect(maps.Values(l.keys)), DeleteAccounts: l.accounts, DeleteSpaces: l.spaces}
	for _, o := range l.organizations {
		m.DeleteOrganizations = append(m.DeleteOrganizations, keys.Organization{ID: o, Version: 1})
	}
	if !l.try(m) {
		l.Fatal("what is left is in use")
	}
	for _, name := range server.Do("KEYS", tag+"*").([]any) {
		switch family, _, _ := strings.Cut(strings.TrimPrefix(name.(string), tag), ":"); family {
		case "schema", "seq", "changes", "done":
		default:
			l.Errorf("%s is left", name)
		}
	}
}
