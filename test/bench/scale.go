package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keygate/internal/admin"
	"keygate/internal/keys"
	redisstore "keygate/internal/store/redis"
	"keygate/internal/store/sqlite"
)

// scaleOrganizations is how many customers the keys are spread over, and
// scaleUsed how many keys have a secret that is known here.
const (
	scaleOrganizations = 1000
	scaleUsed          = 20_000
	scaleChunk         = 1000
)

// scale measures how keygate bears many keys: on the embedded store and, if it
// is to be measured, on Redis.
func scale(ctx context.Context, o options, stdout io.Writer) (err error) {
	b := &bed{}
	defer func() { err = errors.Join(err, b.close()) }()
	if b.dir, err = os.MkdirTemp("", "keygate-bench-*"); err != nil {
		return err
	}
	if b.binary = o.binary; b.binary == "" {
		if b.binary, err = buildKeygate(ctx, b.dir); err != nil {
			return err
		}
	}
	if b.upstream, err = b.server(roleUpstream); err != nil {
		return err
	}
	if err := cachedKey(ctx, stdout); err != nil {
		return err
	}
	if err := b.scaleEmbedded(ctx, o.keys, stdout); err != nil || !o.redis {
		return err
	}
	return b.scaleRedis(ctx, o.keys, stdout)
}

func (b *bed) scaleEmbedded(ctx context.Context, n int, stdout io.Writer) error {
	dir := filepath.Join(b.dir, "data")
	store, err := sqlite.Open(ctx, sqlite.Options{Dir: dir})
	if err != nil {
		return err
	}
	secrets, err := fillStore(ctx, store, n)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(dir, "control.db"))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nembedded store, %d keys: %d bytes each on disk\n", n, info.Size()/int64(n))
	g, err := b.startStored(ctx, stdout, dir, "")
	if err != nil {
		return err
	}
	return g.measureScale(ctx, stdout, secrets, nil)
}

func (b *bed) scaleRedis(ctx context.Context, n int, stdout io.Writer) error {
	server, err := b.startRedis(ctx)
	if err != nil {
		return err
	}
	client, err := redisstore.NewClient(server.url)
	if err != nil {
		return err
	}
	store, err := redisstore.Open(ctx, redisstore.Options{Client: client})
	if err != nil {
		return err
	}
	before, err := server.memory(ctx)
	if err != nil {
		return err
	}
	secrets, err := fillStore(ctx, store, n)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	after, err := server.memory(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nRedis, %d keys: %d bytes each in Redis\n", n, (after-before)/int64(n))
	g, err := b.startStored(ctx, stdout, filepath.Join(b.dir, "none"), server.url)
	if err != nil {
		return err
	}
	return g.measureScale(ctx, stdout, secrets, server)
}

// memory is used_memory_dataset: without the log's buffers.
func (s *redisServer) memory(ctx context.Context) (int64, error) {
	info, err := s.client.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory_dataset:"); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, errors.New("redis-server: INFO says nothing of used_memory_dataset")
}

// fillStore stores n keys and returns the secrets of those that will be used.
func fillStore(ctx context.Context, store keys.Store, n int) ([]string, error) {
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	m := keys.Mutation{At: now}
	for i := range scaleOrganizations {
		o := keys.Organization{ID: fmt.Sprintf("org_%032x", i), Slug: fmt.Sprint("org-", i), Name: fmt.Sprint("Organization ", i), Plan: "none", CreatedAt: now, UpdatedAt: now}
		account := keys.DefaultAccount(o.ID)
		m.Organizations = append(m.Organizations, o)
		m.Accounts = append(m.Accounts, keys.Account{ID: account, Organization: o.ID, Name: "default", CreatedAt: now, UpdatedAt: now})
		m.Grants = append(m.Grants, keys.Grant{ID: fmt.Sprintf("grt_%032x", i), Account: account, Organization: o.ID, Role: keys.RoleOwner, CreatedAt: now})
	}
	var secrets []string
	for i := 0; i <= n; i++ {
		if len(m.Keys) == scaleChunk || i == n {
			if _, err := store.Apply(ctx, m); err != nil {
				return nil, err
			}
			m = keys.Mutation{At: now}
			if i%(n/10+1) < scaleChunk {
				fmt.Fprintf(os.Stderr, "bench: %d of %d keys stored\n", i, n)
			}
		}
		if i == n {
			break
		}
		k := scaleKey(i, now)
		if i < scaleUsed {
			secret := format.Generate()
			secrets = append(secrets, secret)
			k.Secrets = []keys.Secret{keys.NewSecret(format, secret, now)}
		}
		m.Keys = append(m.Keys, k)
	}
	return secrets, nil
}

// scaleKey is the i-th of many: some are paused, some end soon, some were used
// long ago.
func scaleKey(i int, now time.Time) keys.Key {
	organization := fmt.Sprintf("org_%032x", i%scaleOrganizations)
	created := now.Add(-time.Duration(i%400) * 24 * time.Hour)
	k := keys.Key{
		ID: fmt.Sprintf("key_%032x", i), Name: fmt.Sprintf("service %d of team %d", i%5000, i%37), Description: "made to measure",
		Organization: organization, Account: keys.DefaultAccount(organization), Permissions: []string{"items:read", "orders:*"},
		CreatedAt: created, UpdatedAt: created,
		Secrets: []keys.Secret{{Hash: sha256.Sum256([]byte(strconv.Itoa(i))), Prefix: keys.DefaultPrefix, LastFour: "abcd", CreatedAt: created}},
	}
	switch {
	case i < scaleUsed: // as they are
	case i%50 == 0:
		k.PausedAt = now
	case i%50 == 1:
		k.ExpiresAt = now.Add(time.Duration(i%90+1) * 24 * time.Hour)
	}
	return k
}

// startStored starts a gateway on a store that is there and says how long it
// took to be ready.
func (b *bed) startStored(ctx context.Context, stdout io.Writer, dir, redisURL string) (*gateway, error) {
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	operator := format.Generate()
	cmd := exec.Command(b.binary, "serve")
	cmd.Env = []string{
		"KEYGATE_ADDR=" + addrs[0], "KEYGATE_ADMIN_ADDR=" + addrs[1], "KEYGATE_BOOTSTRAP_KEY=" + operator, "LOG_LEVEL=warn",
		"KEYGATE_POLICY=" + strings.Replace(policy, "UPSTREAM", b.upstream, 1), "KEYGATE_DEFAULT_PLAN=none", "PATH=" + os.Getenv("PATH"),
	}
	if redisURL != "" {
		cmd.Env = append(cmd.Env, "REDIS_URL="+redisURL)
	} else {
		cmd.Env = append(cmd.Env, "KEYGATE_DATA_DIR="+dir)
	}
	start := time.Now()
	c, err := startChild("keygate", cmd, false)
	if err != nil {
		return nil, err
	}
	b.children = append(b.children, c)
	g := &gateway{child: c, addr: addrs[0], admin: &admin.Client{URL: &url.URL{Scheme: "http", Host: addrs[1]}, Key: operator}}
	if err := c.waitUntil(ctx, g.ready); err != nil {
		return nil, err
	}
	fmt.Fprintf(stdout, "  %-42s %v\n", "from start to ready", time.Since(start).Round(time.Millisecond))
	return g, nil
}

// measureScale times pages and first requests of keys, one at a time.
func (g *gateway) measureScale(ctx context.Context, stdout io.Writer, secrets []string, server *redisServer) error {
	some := fmt.Sprintf("org-%d", scaleOrganizations/2)
	for _, page := range []struct {
		name string
		o    admin.ListOptions
	}{
		{"all", admin.ListOptions{}},
		{"of an organization", admin.ListOptions{Organization: some}},
		{"by name", admin.ListOptions{Name: "service 4711 of team 12"}},
		{"name contains, in an organization", admin.ListOptions{Organization: some, Query: "TEAM 7"}},
		{"paused", admin.ListOptions{Status: "paused"}},
		{"unused for 90 days", admin.ListOptions{UnusedDays: 90}},
		{"expire within 30 days", admin.ListOptions{ExpiresDays: 30}},
	} {
		page.o.Limit = 50
		if err := timed(stdout, "page of 50 keys, "+page.name, 20, func(int) error {
			_, err := g.admin.ListKeys(ctx, page.o)
			return err
		}); err != nil {
			return err
		}
	}
	return g.measureMisses(ctx, stdout, secrets, server)
}

// measureMisses sends the first request of many keys, and then their second.
func (g *gateway) measureMisses(ctx context.Context, stdout io.Writer, secrets []string, server *redisServer) error {
	const requests = 2000
	rand.Shuffle(len(secrets), func(i, j int) { secrets[i], secrets[j] = secrets[j], secrets[i] })
	secrets = secrets[:min(requests, len(secrets))]
	for _, round := range []string{"request of a key not in memory", "request of a key in memory"} {
		var before redisUse
		if server != nil {
			var err error
			if before, err = server.use(ctx); err != nil {
				return err
			}
		}
		if err := timed(stdout, round, len(secrets), func(i int) error { return g.call(ctx, secrets[i]) }); err != nil {
			return err
		}
		if server != nil {
			after, err := server.use(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(stdout, "  %-42s %.3f\n", "  trips to Redis each, change feed included", float64(after.since(before).reads)/float64(len(secrets)))
		}
	}
	return nil
}

func (g *gateway) call(ctx context.Context, secret string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", r.Method, r.URL, res.Status)
	}
	return errors.Join(err, res.Body.Close())
}

// timed prints the mean of n calls. The management API allows 50 of them in a
// second, and its client waits when it must: few enough are made here.
func timed(stdout io.Writer, name string, n int, call func(i int) error) error {
	start := time.Now()
	for i := range n {
		if err := call(i); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Fprintf(stdout, "  %-42s %v\n", name, (time.Since(start) / time.Duration(n)).Round(time.Microsecond))
	return nil
}
