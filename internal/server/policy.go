package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"keygate/config"
	"keygate/internal/keys"
	"keygate/proxy"
)

// policyLoader puts the configured policy in force, at the start and whenever
// it is asked to again. A policy that cannot be loaded changes nothing.
type policyLoader struct {
	config config.Config
	store  keys.Store
	proxy  *proxy.Proxy
	demo   *url.URL // where the demonstration upstream listens
	log    *zap.Logger
	now    func() time.Time

	loaded chan struct{} // a policy was installed, see checkPlans

	results *prometheus.CounterVec
	healthy prometheus.Gauge

	mu   sync.Mutex
	last policyStatus
	// seen is the fingerprint of what was loaded or refused last; empty if it
	// must be tried again.
	seen string
	// files are those that it named.
	files []config.File
	// inForce is the digest of the policy in force.
	inForce string
}

// policyStatus is the policy's part of /readyz.
type policyStatus struct {
	// Rules is the number of the policy in force.
	Rules    int64     `json:"policy"`
	LoadedAt time.Time `json:"loaded_at"`
	// Error is why the last reload was refused; the policy in force is the
	// one before it.
	Error    string    `json:"error,omitempty"`
	FailedAt time.Time `json:"failed_at,omitzero"`
}

func newPolicyLoader(c config.Config, store keys.Store, p *proxy.Proxy, log *zap.Logger, r prometheus.Registerer, now func() time.Time) *policyLoader {
	l := &policyLoader{
		config: c, store: store, proxy: p, log: log, now: now, loaded: make(chan struct{}, 1),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_policy_loads_total", Help: "Loads of the policy, by result.",
		}, []string{"result"}),
		healthy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keygate_policy_last_load_successful", Help: "1 if the last load of the policy succeeded, 0 if the former policy is still in force.",
		}),
	}
	r.MustRegister(l.results, l.healthy)
	return l
}

// use puts a policy in force that has no number yet: the store that gives it one
// may be away.
func (l *policyLoader) use(loaded *config.Policy) error {
	upstreams := maps.Clone(loaded.Upstreams)
	for name, u := range upstreams {
		if len(u.Targets) == 0 {
			u.Targets = []*url.URL{l.demo}
			upstreams[name] = u
		}
	}
	compiled, err := proxy.NewPolicy(loaded.Keys, loaded.Table, loaded.Rules, upstreams)
	if err != nil {
		return err
	}
	l.proxy.SetPolicy(compiled)
	return nil
}

// source is where the policy comes from, for the audit log.
func (l *policyLoader) source() string {
	switch {
	case l.config.PolicyFile != "":
		return l.config.PolicyFile
	case l.config.Policy != "":
		return "KEYGATE_POLICY"
	}
	return "built in"
}

var errNotRegistered = errors.New("the policy could not be registered")

// install has the store number a policy and puts it in force.
func (l *policyLoader) install(ctx context.Context, loaded *config.Policy) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	rules, err := l.store.RegisterPolicy(ctx, loaded.Digest, keys.SystemEntry(keys.ActionPolicyLoad, l.now(), map[string]string{"digest": loaded.Digest, "source": l.source()}))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotRegistered, err)
	}
	return l.putInForce(loaded, rules)
}

// putInForce is what a policy with a number needs.
func (l *policyLoader) putInForce(loaded *config.Policy, rules int64) error {
	numbered, numberedKeys := *loaded, *loaded.Keys
	numberedKeys.Rules = rules
	numbered.Keys = &numberedKeys
	if err := l.use(&numbered); err != nil {
		return err
	}
	l.results.WithLabelValues("success").Inc()
	l.healthy.Set(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.seen, l.files, l.inForce = policyStatus{Rules: rules, LoadedAt: l.now().UTC()}, loaded.Digest, loaded.Files, loaded.Digest
	select {
	case l.loaded <- struct{}{}:
	default: // a check is due already
	}
	return nil
}

// reload reads the policy anew. The environment stays as it was at the start.
func (l *policyLoader) reload(ctx context.Context) { l.load(ctx, l.install) }

func (l *policyLoader) load(ctx context.Context, install func(context.Context, *config.Policy) error) {
	seen := l.fingerprint() // before it is read: what is written in between is a change
	loaded, err := config.LoadPolicy(l.config)
	var files []config.File
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		files = wrong.Files
	}
	if err == nil {
		files, err = loaded.Files, install(ctx, loaded)
	}
	if err == nil {
		l.log.Info("policy reloaded", zap.Int64("policy", l.status().Rules), zap.Int("routes", len(loaded.Rules)))
		return
	}
	l.results.WithLabelValues("failure").Inc()
	l.healthy.Set(0)
	l.log.Error("policy not reloaded: the former one stays in force", zap.Error(err))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last.Error, l.last.FailedAt, l.files = err.Error(), l.now().UTC(), files
	if l.seen = seen; errors.Is(err, errNotRegistered) {
		l.seen = "" // the store was away: the same policy may be good later
	}
}

// reloadChanged reads the policy anew unless that was done already.
func (l *policyLoader) reloadChanged(ctx context.Context) {
	if l.changed() {
		l.load(ctx, l.renew)
	}
}

// renew installs a policy. One that only the files it names tell from the one in
// force keeps its number: another replica's may be newer, and shall stay so.
func (l *policyLoader) renew(ctx context.Context, loaded *config.Policy) error {
	l.mu.Lock()
	same, rules := loaded.Digest == l.inForce && loaded.Digest == l.seen, l.last.Rules
	l.mu.Unlock()
	if same {
		return l.putInForce(loaded, rules)
	}
	return l.install(ctx, loaded)
}

// changed reports whether the policy, or a file that it names, is another than that
// loaded or refused last.
func (l *policyLoader) changed() bool {
	now := l.fingerprint()
	l.mu.Lock()
	seen, files := l.seen, l.files
	l.mu.Unlock()
	return now != seen || slices.ContainsFunc(files, config.File.Changed)
}

// fingerprint is the policy's digest, or why it cannot be read.
func (l *policyLoader) fingerprint() string {
	digest, err := config.PolicyDigest(l.config)
	if err != nil {
		return err.Error()
	}
	return digest
}

// watch has the policy read anew when its file or one that it names changes, until
// ctx ends.
func (l *policyLoader) watch(ctx context.Context, tell chan<- struct{}) {
	if !l.config.PolicyWatch {
		return
	}
	w := &policyWatch{file: l.config.PolicyFile, changed: l.changed, tell: tell, log: l.log, lookEvery: lookEvery}
	w.run(ctx)
}

func (l *policyLoader) status() policyStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
