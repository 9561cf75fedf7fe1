package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
)

// subject is a process that forwards requests, and how it is called.
type subject struct {
	name  string
	child *child
	target
}

// pair is two subjects that are measured against each other, side by side.
type pair struct {
	name      string
	reference subject
	subject   subject
	open      bool         // whether the open loop is measured too
	redis     *redisServer // the subject's; nil if it has none
	results   [modes][]result
}

// bed is everything that runs while measurements are made.
type bed struct {
	dir      string
	binary   string
	upstream string
	children []*child
	all      []pair
	versions []string
	redis    *redisServer
}

func newBed(ctx context.Context, o options) (_ *bed, err error) {
	b := &bed{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "keygate-bench-*"); err != nil {
		return nil, err
	}
	var peers []peer
	if o.peers { // first, because they may be missing
		if peers, err = findPeers(); err != nil {
			return nil, err
		}
	}
	if b.binary = o.binary; b.binary == "" {
		if b.binary, err = buildKeygate(ctx, b.dir); err != nil {
			return nil, err
		}
	}
	b.versions = []string{versionOf(ctx, b.binary, "version"), runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	if b.upstream, err = b.server(roleUpstream); err != nil {
		return nil, err
	}
	if o.redis {
		if b.redis, err = b.startRedis(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.startSubjects(ctx, o, peers); err != nil {
		return nil, err
	}
	return b, nil
}

// startSubjects starts and checks all that is measured, and says what is
// measured against what.
func (b *bed) startSubjects(ctx context.Context, o options, peers []peer) error {
	const json, quiet = "info", "warn"
	logged, err := b.gateway(ctx, "keygate", b.binary, nil, json, "one", "four", "none")
	if err != nil {
		return err
	}
	silent, err := b.gateway(ctx, "keygate", b.binary, nil, quiet, "one", "none")
	if err != nil {
		return err
	}
	gateways := []*gateway{logged, silent}
	var shared, other *gateway
	if b.redis != nil {
		if shared, err = b.gateway(ctx, "keygate on Redis", b.binary, b.redis, json, "none", "one", "two", "four"); err != nil {
			return err
		}
		gateways = append(gateways, shared)
	}
	if o.against != "" {
		if other, err = b.gateway(ctx, "other keygate", o.against, nil, json, "one"); err != nil {
			return err
		}
		gateways = append(gateways, other)
	}
	// At the same time: the management API makes only so many keys per second.
	if err := each(len(gateways), func(i int) error { return gateways[i].fill(ctx) }); err != nil {
		return err
	}
	keygate := logged.subject("keygate", "one")
	var references [2]subject
	for i := range references {
		addr, err := b.server(roleReference, b.upstream)
		if err != nil {
			return err
		}
		// The very requests that keygate gets.
		references[i] = subject{name: roleReference, child: b.last(), target: target{Addr: addr, Requests: keygate.Requests}}
		if err := checkForwards(ctx, references[i]); err != nil {
			return err
		}
	}
	reference := references[0]
	b.all = []pair{
		{name: "reference against itself", reference: reference, subject: references[1], open: true},
		{name: "keygate: one limit, access log", reference: reference, subject: keygate, open: true},
		{name: "keygate: one limit, no access log", reference: reference, subject: silent.subject("keygate", "one")},
		{name: "keygate: four limits, access log", reference: reference, subject: logged.subject("keygate", "four")},
		{name: "keygate: no limit, access log", reference: reference, subject: logged.subject("keygate", "none")},
		{name: "keygate: no limit, no access log", reference: reference, subject: silent.subject("keygate", "none")},
	}
	if shared != nil {
		b.addOnRedis(reference, shared)
	}
	for _, p := range peers {
		s, err := b.peer(ctx, p, silent.secret["one"])
		if err != nil {
			return err
		}
		b.all = append(b.all,
			pair{name: "keygate, no access log, against " + p.what, reference: s, subject: silent.subject("keygate", "one"), open: true})
	}
	if other != nil {
		b.all = append(b.all, pair{name: "keygate against the other binary", reference: other.subject("other keygate", "one"), subject: keygate, open: true})
	}
	return nil
}

// addOnRedis adds the rows of a gateway on the shared Redis.
func (b *bed) addOnRedis(reference subject, g *gateway) {
	for _, row := range []struct {
		what, plan string
		open       bool
	}{{"no limit", "none", false}, {"one limit", "one", true}, {"two limits", "two", false}, {"four limits", "four", false}} {
		s := g.subject("keygate on Redis", row.plan)
		s.MayBeLate = true
		b.all = append(b.all, pair{
			name: "keygate on Redis: " + row.what + ", access log", reference: reference, subject: s, open: row.open, redis: b.redis,
		})
	}
}

// startRedis starts the one that gateways share.
func (b *bed) startRedis(ctx context.Context) (*redisServer, error) {
	s, err := startRedis(ctx, b.dir)
	if s != nil {
		b.children = append(b.children, s.child)
		b.versions = append(b.versions, versionOf(ctx, s.child.cmd.Path, "--version"))
	}
	return s, err
}

// gateway starts a keygate; without a Redis, on a store of its own. It is of use
// once it is filled.
func (b *bed) gateway(ctx context.Context, name, binary string, redis *redisServer, logLevel string, plans ...string) (*gateway, error) {
	url := ""
	if redis != nil {
		url = redis.url
	}
	g, err := startKeygate(ctx, name, binary, b.dir, b.upstream, url, logLevel, plans...)
	if g != nil {
		b.children = append(b.children, g.child)
	}
	return g, err
}

// fill makes the keys of each plan and checks them.
func (g *gateway) fill(ctx context.Context) error {
	if err := g.makeKeys(ctx); err != nil {
		return fmt.Errorf("%s: %w", g.child.name, err)
	}
	for _, plan := range g.plans {
		if err := checkGateway(ctx, g, plan); err != nil {
			return fmt.Errorf("%s, plan %q: %w", g.child.name, plan, err)
		}
	}
	return nil
}

func (g *gateway) subject(name, plan string) subject {
	return subject{name: name, child: g.child, target: target{Addr: g.addr, Requests: requests(g.secret[plan])}}
}

// requests are what the load generator sends: one for each key.
func requests(secrets []string) []string {
	var all []string
	for _, secret := range secrets {
		all = append(all, "GET "+path+" HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer "+secret+"\r\n\r\n")
	}
	return all
}

// server starts this program in a role and returns its address.
func (b *bed) server(role string, args ...string) (string, error) {
	c, addr, err := startServer(role, args...)
	if err != nil {
		return "", err
	}
	b.children = append(b.children, c)
	return addr, nil
}

// last is the child that was started last.
func (b *bed) last() *child { return b.children[len(b.children)-1] }

// close ends all children, the last one first, and removes their files.
func (b *bed) close() error {
	var errs []error
	if b.redis != nil {
		errs = append(errs, b.redis.client.Close())
	}
	// A server that is asked to end waits for connections that were never used.
	http.DefaultClient.CloseIdleConnections()
	for _, c := range slices.Backward(b.children) {
		errs = append(errs, c.stop())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}
