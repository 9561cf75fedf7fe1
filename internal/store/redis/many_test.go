package redis

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
	"time"

	"keygate/internal/keys"
	"keygate/internal/store/redis/redistest"
)

var (
	fillKeys  = flag.Int("fill", 500, "number of keys that TestManyKeys stores before it measures; 1000000 takes minutes")
	perTenant = flag.Int("per-organization", 10, "number of keys of each organization in TestManyKeys")
)

// crowd is a store with many keys, and what its Redis says of them.
type crowd struct {
	*testing.T
	server  *redistest.Server
	s       *Store
	n, each int
}

// TestManyKeys stores -fill keys and says what each takes of Redis's memory, and
// of its time. With -v and a million:
//
//	go test ./internal/store/redis -run ManyKeys -v -fill 1000000 -timeout 30m
func TestManyKeys(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := &crowd{t, server, openStore(t, Options{Client: client(t, server.URL())}), *fillKeys, *perTenant}
	empty := c.memory()
	fillTenants(t, c.s, c.n, c.each)
	tenants := c.memory()
	start := time.Now()
	fill(t, c.s, c.n, c.each)
	took := time.Since(start)
	server.Do("DEL", changesKey) // its length is bounded
	t.Logf("%d keys, %d of each organization, stored in %v; a key takes %d bytes, an organization with an account and its grant %d",
		c.n, c.each, took.Round(time.Millisecond), (c.memory()-tenants)/c.n, (tenants-empty)/(c.n/c.each+1))
	c.sets()
	c.calls()
	c.marked()
	c.pages()
	c.walks()
}

func (c *crowd) memory() int {
	c.server.Do("MEMORY", "PURGE")
	info := fmt.Sprint(c.server.Do("INFO", "memory"))
	bytes, err := strconv.Atoi(regexp.MustCompile(`used_memory:(\d+)`).FindStringSubmatch(info)[1])
	if err != nil {
		c.Fatal(err)
	}
	return bytes
}

// sets says what a key costs in each of the sets in which it stands.
func (c *crowd) sets() {
	k := numbered(c.n/2, c.each)
	for _, set := range []string{"keys", "names", "used", "keys:" + k.Organization, "names:" + k.Organization, "used:" + k.Organization, "live:" + k.Organization, "owned:" + k.Account} {
		bytes, _ := c.server.Do("MEMORY", "USAGE", tag+set, "SAMPLES", 1000).(int64)
		members, _ := c.server.Do("ZCARD", tag+set).(int64)
		c.Logf("%-45s %4d bytes for each of %d", set, bytes/max(members, 1), members)
	}
}

// cpu is how many µs Redis has worked: what else runs on the machine counts less
// than it would in times that pass.
func (c *crowd) cpu() int {
	total := 0
	for _, line := range regexp.MustCompile(`used_cpu_(?:user|sys)_main_thread:(\d+)\.(\d{6})`).FindAllStringSubmatch(fmt.Sprint(c.server.Do("INFO", "cpu")), -1) {
		seconds, _ := strconv.Atoi(line[1])
		micros, _ := strconv.Atoi(line[2])
		total += seconds*1_000_000 + micros
	}
	return total
}

// measure says how long Redis works for a call, and how long it takes with the trip
// over loopback and this side's work.
func (c *crowd) measure(what string, times int, do func(i int) error) {
	c.Helper()
	before, start := c.cpu(), time.Now()
	for i := range times {
		if err := do(i); err != nil {
			c.Fatalf("%s: %v", what, err)
		}
	}
	whole := time.Since(start) / time.Duration(times)
	c.Logf("%-45s %7.1fµs of Redis, %v in all", what, float64(c.cpu()-before)/float64(times), whole.Round(time.Microsecond))
}

func (c *crowd) some() keys.Key { return numbered(rand.IntN(c.n), c.each) }

func (c *crowd) calls() {
	one := numbered(c.n/2, c.each)
	c.measure("Lookup", 2000, func(int) error {
		_, err := c.s.Lookup(c.Context(), c.some().Secrets[0].Hash)
		return err
	})
	c.measure("create, bounded, with an audit entry", 500, func(i int) error {
		m := creation(c.n+i, c.each)
		m.Keys[0].Organization, m.Keys[0].Account = one.Organization, one.Account
		m.MaxKeys.Organization = one.Organization
		_, err := c.s.Apply(c.Context(), m)
		return err
	})
	c.measure(fmt.Sprint("note ", maxUses, " uses"), 20, func(int) error {
		uses := make([]keys.Use, maxUses)
		for i := range uses {
			uses[i] = keys.Use{Key: c.some().ID, At: time.Now()}
		}
		return c.s.Used(c.Context(), uses)
	})
	c.measure("register a replica", 200, func(i int) error {
		return c.s.RegisterReplica(c.Context(), keys.Replica{ID: "rep_1", Confirmed: int64(i)})
	})
}

// marked pauses some keys, revokes others and lets others end.
func (c *crowd) marked() {
	now := time.Now()
	change := func(mark func(i int, k *keys.Key)) func(i int) error {
		return func(i int) error {
			k := numbered(i, c.each)
			k.Version = 1
			mark(i, &k)
			_, err := c.s.Apply(c.Context(), keys.Mutation{At: now, Keys: []keys.Key{k}, Audit: []keys.AuditEntry{{ID: fmt.Sprint("aud_", k.ID, "_", k.Version), Organization: k.Organization}}})
			return err
		}
	}
	most := c.n / 8
	c.measure("pause", most, change(func(_ int, k *keys.Key) { k.PausedAt = now }))
	c.measure("revoke", most, func(i int) error { return change(func(_ int, k *keys.Key) { k.RevokedAt = now })(i + most) })
	c.measure("give an end", most, func(i int) error {
		return change(func(i int, k *keys.Key) { k.ExpiresAt = now.Add(time.Duration(i) * time.Second) })(i + 2*most)
	})
}

// pages reads one page by each filter.
func (c *crowd) pages() {
	k := numbered(3*c.n/8-1, c.each) // one that ends
	now := time.Now()
	for _, tt := range []struct {
		name   string
		filter keys.KeyFilter
	}{
		{"all", keys.KeyFilter{}},
		{"an organization", keys.KeyFilter{Organization: k.Organization}},
		{"an account", keys.KeyFilter{Account: k.Account}},
		{"a name", keys.KeyFilter{Name: "service 7"}},
		{"a name and an organization", keys.KeyFilter{Name: k.Name, Organization: k.Organization}},
		{"a part of a name", keys.KeyFilter{Query: "VICE 1"}},
		{"paused", keys.KeyFilter{Status: keys.Paused, At: now}},
		{"revoked", keys.KeyFilter{Status: keys.Revoked, At: now}},
		{"active", keys.KeyFilter{Status: keys.Active, At: now}},
		{"unused", keys.KeyFilter{UnusedSince: now}},
		{"unused, an organization", keys.KeyFilter{UnusedSince: now, Organization: k.Organization}},
		{"ending", keys.KeyFilter{ExpiresBefore: now.Add(1e6 * time.Hour), At: now}},
		{"ending, an organization", keys.KeyFilter{ExpiresBefore: now.Add(1e6 * time.Hour), At: now, Organization: k.Organization}},
	} {
		next := ""
		c.measure("page of 50, "+tt.name, 100, func(int) error {
			got, err := c.s.Keys(c.Context(), tt.filter, keys.Page{After: next, Limit: 50})
			if err == nil && len(got.Keys) == 0 && next == "" {
				err = fmt.Errorf("an empty page")
			}
			next = got.Next
			return err
		})
	}
	c.measure("page of 50 in the middle, all", 200, func(int) error {
		_, err := c.s.Keys(c.Context(), keys.KeyFilter{}, keys.Page{After: cursor(byID, c.some().ID), Limit: 50})
		return err
	})
	c.measure("page of 50 in the middle, unused", 200, func(int) error {
		k := c.some()
		_, err := c.s.Keys(c.Context(), keys.KeyFilter{UnusedSince: now}, keys.Page{After: cursor(byUse, fmt.Sprint(micros(k.CreatedAt), " ", k.ID)), Limit: 50})
		return err
	})
}

// walks looks for what is not there: each call looks at as much as one may.
func (c *crowd) walks() {
	now := time.Now()
	for _, tt := range []struct {
		name   string
		filter keys.KeyFilter
	}{
		{fmt.Sprint(maxNames, " names that do not match"), keys.KeyFilter{Query: "nobody's"}},
		{fmt.Sprint(maxRecords, " names whose records do not pass"), keys.KeyFilter{Query: "service", Status: "none", At: now}},
		{fmt.Sprint(maxRecords, " records that do not pass"), keys.KeyFilter{Status: "none", At: now}},
		{fmt.Sprint(maxRecords, " unused ones that do not pass"), keys.KeyFilter{UnusedSince: now, Status: "none", At: now}},
	} {
		next := ""
		c.measure(tt.name, 20, func(int) error {
			got, err := c.s.Keys(c.Context(), tt.filter, keys.Page{After: next, Limit: 50})
			if err == nil && len(got.Keys) > 0 {
				err = fmt.Errorf("found %+v", got.Keys[0])
			}
			next = got.Next
			return err
		})
	}
	empty := c.memory()
	var entries []keys.AuditEntry
	for i := range 5 * maxEntries {
		k := c.some()
		entries = append(entries, keys.AuditEntry{
			ID: fmt.Sprintf("aud_%032x", i), At: now, Action: "key.update", Actor: k.ID, ActorAccount: k.Account, Address: "192.0.2.1", RequestID: "req_" + k.ID[4:],
			Kind: keys.KindKey, Target: k.ID, Organization: k.Organization, Before: fmt.Appendf(nil, "{%q:%q}", "text", make([]byte, 60)), After: fmt.Appendf(nil, "{%q:%q}", "text", make([]byte, 60)),
		})
		if len(entries) == 500 {
			apply(c, c.s, keys.Mutation{Audit: entries})
			entries = nil
		}
	}
	c.server.Do("DEL", changesKey)
	entry, _ := c.server.Do("HSTRLEN", entriesKey, "aud_"+fmt.Sprintf("%032x", 0)).(int64)
	c.Logf("an audit entry of %d bytes takes %d", entry, (c.memory()-empty)/(5*maxEntries))
	next := ""
	c.measure(fmt.Sprint(maxEntries, " audit entries that do not pass"), 5, func(int) error {
		got, err := c.s.AuditLog(c.Context(), keys.AuditFilter{Actor: "nobody"}, keys.Page{After: next, Limit: 50})
		next = got.Next
		return err
	})
}
