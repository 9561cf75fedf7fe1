// Package server puts the parts together and runs them: listeners, policy,
// store, telemetry, start and end.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"keygate/auth"
	"keygate/config"
	"keygate/internal/admin"
	"keygate/internal/keys"
	"keygate/proxy"
	"keygate/proxy/route"
	"keygate/ratelimit"
)

// Options of Run.
type Options struct {
	Config  config.Config
	Version string
	// Stderr gets the logs and what the first start has to say; Terminal says
	// that a person reads it.
	Stderr   io.Writer
	Terminal bool
	// Reload asks for the policy to be read anew.
	Reload <-chan os.Signal
}

// SetupError means that the instance cannot start as it is configured: the
// operator must change something.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

const (
	// The management API's own limit, for each key.
	adminRequests = 50
	adminPer      = time.Second
	maxAdminKeys  = 10_000
)

// Run serves until ctx ends, then lets the requests under way finish. It
// returns nil after an orderly end; a *config.Error or *SetupError if the
// instance cannot start as configured.
func Run(ctx context.Context, o Options) (err error) {
	var cleanUp cleanUps
	defer func() { err = errors.Join(err, cleanUp.run()) }()
	defer raiseHeap()()

	loaded, err := config.LoadPolicy(o.Config)
	if err != nil {
		return err
	}
	format, err := keys.NewFormat(o.Config.KeyPrefix)
	if err != nil {
		return &SetupError{err}
	}
	level, err := zapcore.ParseLevel(o.Config.LogLevel)
	if err != nil {
		return &SetupError{err}
	}
	logs := newLoggers(o.Stderr, level, logFormat(o))
	cleanUp.add(logs.close)
	log := logs.app

	registry := newRegistry(o.Version)
	back, err := open(ctx, o, newGuards(registry, log), &cleanUp)
	if err != nil {
		return err
	}
	failures, err := failureBudget(o.Config.FailedPerAddr)
	if err != nil {
		return err
	}
	replica := newReplica(o.Version, back, log)
	authenticator := auth.New(auth.Options{
		Store: back.lookups, Format: format, CacheKeys: o.Config.CacheKeys,
		FreshFor: back.freshFor, LookupTimeout: back.lookupTimeout, Acted: replica.actedOn, Failures: failures, Now: time.Now,
	})
	back.ledger.Alarm = lossAlarm(log, back.suspect)
	outdated := make(chan struct{}, 1)
	back.ledger.Stale = func() {
		select {
		case outdated <- struct{}{}:
		default: // it is known already
		}
	}
	limiter := ratelimit.NewLimiter(back.ledger)
	cleanUp.add(inBackground(limiter.Run)) // gives back what it holds after the listeners have ended
	settling := ratelimit.NewSettling(back.settler, replica.self.ID, time.Now)
	cleanUp.add(inBackground(settling.Run))
	inFlight := ratelimit.NewInFlight(back.ledger.Ledger, back.ledger.Timeout, replica.self.ID, time.Now)
	cleanUp.add(inBackground(inFlight.Run))
	exposed := newExposures(o.Config.PauseExposed, log, registry, time.Now)
	gate := proxy.New(proxy.Options{
		Auth: authenticator, Limiter: limiter, Settling: settling, InFlight: inFlight, Format: format, Realm: o.Config.Realm,
		TrustedProxies: o.Config.TrustedProxies, Me: o.Config.Me, MaxURL: o.Config.MaxURL, Sends: sends(o.Config), Takes: takes(o.Config), MaxPerKey: o.Config.MaxPerKey, RequireHTTPS: o.Config.RequireHTTPS, HSTS: o.Config.HSTS, Exposed: exposed.note,
		AccessLog: logs.access, Log: log, Metrics: registry, Now: time.Now,
	})
	cleanUp.add(func() error { gate.Close(); return nil })
	cleanUp.add(inBackground(gate.WatchStreams))
	registerParts(registry, authenticator, limiter, gate)
	registerCosts(registry, settling, inFlight)

	policy := newPolicyLoader(o.Config, back.store, gate, log, registry, time.Now)
	if usesDemo(loaded) {
		demo, err := listen(ctx, "demonstration upstream", "127.0.0.1:0", demoUpstream(), nil, log)
		if err != nil {
			return err
		}
		policy.demo = &url.URL{Scheme: "http", Host: demo.Addr().String()}
		cleanUp.add(func() error { return demo.server.Close() })
		go func() { _ = demo.serve() }() // ends with its Close, which is the only error it can have
	}
	if err := policy.use(loaded); err != nil {
		return err
	}
	cleanUp.add(inBackground(policy.checkPlans))
	service := keys.NewService(keys.ServiceOptions{
		Store: back.store, Format: format, Policy: gate.PolicyKeys, Now: time.Now,
		Changed: authenticator.Changed, Made: marks(back, log, registry, &cleanUp),
	})
	exposed.service = service
	cleanUp.add(inBackground(exposed.run))
	started := follow(authenticator, back.store, &cleanUp)
	// Ends after the listeners and before the store.
	cleanUp.add(inBackground(func(ctx context.Context) { authenticator.RecordUses(ctx, back.store) }))
	replica.limits = limiter.Stats()
	replica.rules = func() int64 { return gate.PolicyKeys().Rules }

	outages := newOutages(back.redis, back.store.Ping, authenticator.FeedAge, service.Emptied, log, registry)
	health := &health{
		emptied: outages.emptied.Load, ping: back.store.Ping, policy: policy, unknownPlans: gate.UnknownPlans,
		feedAge: authenticator.FeedAge, limits: limiter.Stats(),
	}
	budget, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: adminRequests, Per: adminPer, Max: maxAdminKeys})
	if err != nil {
		return err
	}
	management := managementMux(health, registry, admin.New(admin.Options{
		Auth: authenticator, Service: service, Policy: gate.PolicyKeys, Format: format, Realm: o.Config.Realm,
		Allow: budget.Allow, Replicas: replica.all, Confirmed: replica.whoActed, Explain: gate.Explain, Version: o.Version, Log: log, Now: time.Now,
	}), o.Config.HSTS)
	served, err := listenAll(ctx, o.Config, gate, management, registry, log, &cleanUp)
	if err != nil {
		return err
	}
	failed, changed := make(chan error, 1+len(served.all())), make(chan struct{})
	for _, l := range served.all() {
		go func() { failed <- l.serve() }()
	}
	// Only a start that has its ports makes the first keys: they are shown once,
	// and one that fails after that would take them with it.
	begun := make(chan struct{})
	begin := &beginning{Options: o, back: back, policy: policy, service: service, feed: started, log: log}
	cleanUp.add(inBackground(func(ctx context.Context) {
		first, err := begin.run(ctx, loaded)
		switch {
		case err != nil && ctx.Err() == nil:
			failed <- err
		case err == nil:
			health.started.Store(true)
			announce(o, back, log, first, served, loaded)
			close(begun)
			var following sync.WaitGroup
			following.Go(func() { policy.watch(ctx, changed) })
			if back.shared {
				following.Go(func() { outages.watch(ctx) })
			}
			replica.report(ctx)
			following.Wait()
		}
	}))

	var looked time.Time
	// Nothing is reloaded before the start is over, which would undo it.
	var reload <-chan os.Signal
	var newer <-chan struct{}
	for {
		select {
		case err := <-failed:
			return errors.Join(err, served.close())
		case <-begun:
			reload, newer, begun = o.Reload, outdated, nil
		case <-reload:
			policy.reload(ctx)
		case <-changed:
			policy.reloadChanged(ctx)
		case <-newer: // another replica has a newer policy; this one may have it without knowing
			if now := time.Now(); now.Sub(looked) >= outdatedEvery {
				looked = now
				policy.reloadChanged(ctx)
			}
		case <-ctx.Done():
			health.draining.Store(true)
			gate.Leave()
			log.Info("stopping: requests under way may finish", zap.Duration("drain_timeout", o.Config.DrainTimeout))
			return stop(context.WithoutCancel(ctx), o.Config, gate, log, served)
		}
	}
}

func logFormat(o Options) string {
	switch {
	case o.Config.LogFormat != "":
		return o.Config.LogFormat
	case o.Terminal:
		return "console"
	}
	return "json"
}

// failureBudget is nil where addresses have none.
func failureBudget(b route.Budget) (*ratelimit.Buckets, error) {
	if b.Requests == 0 {
		return nil, nil
	}
	return ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: b.Requests, Per: b.Per})
}

// usesDemo reports whether some rule goes to the demonstration upstream.
func usesDemo(p *config.Policy) bool {
	for _, u := range p.Upstreams {
		if len(u.Targets) == 0 {
			return true
		}
	}
	return false
}

// managementMux serves health and metrics without a key and leaves the rest to
// the API. http.ServeMux would answer for the API where a path is not clean.
func managementMux(h *health, registry *prometheus.Registry, api http.Handler, hsts time.Duration) http.Handler {
	own := http.NewServeMux()
	own.HandleFunc("GET /livez", h.livez)
	own.HandleFunc("GET /readyz", h.readyz)
	own.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hsts > 0 && r.TLS != nil {
			w.Header().Set("Strict-Transport-Security", fmt.Sprintf("max-age=%d", int64(hsts/time.Second)))
		}
		switch r.URL.Path {
		case "/livez", "/readyz", "/metrics":
			own.ServeHTTP(w, r)
		default:
			api.ServeHTTP(w, r)
		}
	})
}

func announce(o Options, back *backing, log *zap.Logger, first keys.Bootstrapped, served *listeners, loaded *config.Policy) {
	upstream := make([]string, 0, len(loaded.Upstreams))
	for _, u := range loaded.Upstreams {
		if len(u.Targets) == 0 {
			upstream = append(upstream, demoName)
		}
		for _, target := range u.Targets {
			upstream = append(upstream, target.Redacted())
		}
	}
	log.Info("keygate is ready",
		zap.String("version", o.Version), zap.String("proxy", served.plain.url()), served.secureField(), zap.String("management", served.management.url()),
		zap.Strings("upstreams", upstream), zap.Int("routes", len(loaded.Rules)), zap.String("data_dir", o.Config.DataDir),
		zap.String("mode", back.mode))
	if first.AdminSecret == "" {
		return
	}
	dir := o.Config.DataDir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if err := welcome(o.Stderr, first, dir, served.plain.url(), served.management.url(), o.Terminal); err != nil {
		log.Warn("the first start's instructions could not be shown", zap.Error(err))
	}
}

// outdatedEvery is how often a policy is looked at again because a newer one is
// in use elsewhere.
const outdatedEvery = time.Second

// inBackground runs f with a context that ends when stop is called, which then
// waits for f.
func inBackground(f func(ctx context.Context)) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f(ctx)
	}()
	return func() error { cancel(); <-ended; return nil }
}

// cleanUps run in the reverse order of their addition.
type cleanUps []func() error

func (c *cleanUps) add(f func() error) { *c = append(*c, f) }

func (c *cleanUps) run() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	return errors.Join(errs...)
}
