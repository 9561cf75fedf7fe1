package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"keygate/proxy/route"
)

// Upstream is one API behind the gate. Start begins its checks, Close ends them;
// requests that are under way then finish.
type Upstream struct {
	options Options
	targets []*target
	clients map[route.Timeouts]*Client
	next    atomic.Uint64 // for RoundRobin
	budget  budget
	breaker *breaker // nil: none
	now     func() time.Time
	origin  time.Time

	inFlight atomic.Int64
	crowded  atomic.Uint64 // refused for MaxConcurrent
	retried  atomic.Uint64
	spent    atomic.Uint64 // retries that the budget did not allow

	ejecting sync.Mutex // one at a time, so that a share stays

	closed atomic.Bool
	stop   context.CancelFunc
	checks sync.WaitGroup
}

// Client is an upstream under the time-outs of some of its routes.
type Client struct {
	*Upstream
	timeouts    route.Timeouts
	connections []*connections // by target
}

// New makes an upstream that routes with these time-outs go to. It does nothing
// by itself before Start.
func New(o Options, timeouts []route.Timeouts) (*Upstream, error) {
	if len(o.Targets) == 0 || len(o.Targets) > MaxTargets {
		return nil, fmt.Errorf("upstream %q has %d targets; allowed are 1 to %d", o.Name, len(o.Targets), MaxTargets)
	}
	config, err := o.TLS.config()
	if err != nil {
		return nil, fmt.Errorf("upstream %q: tls: %w", o.Name, err)
	}
	u := &Upstream{options: o, clients: make(map[route.Timeouts]*Client), now: time.Now, origin: time.Now()}
	u.budget.init(o.RetryBudget)
	if o.Breaker != nil {
		u.breaker = newBreaker(*o.Breaker, u.clock)
	}
	for i, at := range o.Targets {
		u.targets = append(u.targets, newTarget(i, at))
	}
	for _, t := range append(timeouts, o.Timeouts) {
		if u.clients[t] != nil {
			continue
		}
		c := &Client{Upstream: u, timeouts: t}
		for _, target := range u.targets {
			c.connections = append(c.connections, newConnections(target, t, config, o.Instead))
		}
		u.clients[t] = c
	}
	return u, nil
}

// clock counts nanoseconds from when the upstream was made. It follows the monotonic
// clock: a wall clock that is set back would have targets left alone, and clients
// told to stay away, until it has caught up.
func (u *Upstream) clock() int64 { return int64(u.now().Sub(u.origin)) }

// Client returns the upstream under time-outs that New was told of.
func (u *Upstream) Client(t route.Timeouts) *Client { return u.clients[t] }

// Same reports whether another upstream would do the same, so that a reload can
// keep this one with its connections and all it has learnt.
func (u *Upstream) Same(other *Upstream) bool {
	if len(u.clients) != len(other.clients) {
		return false
	}
	for t := range u.clients {
		if other.clients[t] == nil {
			return false
		}
	}
	return reflect.DeepEqual(u.options, other.options)
}

// Start begins to look at the targets: their health, and where their names lead. The
// log is told what becomes of them and of the breaker.
func (u *Upstream) Start(log *zap.Logger) {
	log = log.With(zap.String("upstream", u.options.Name))
	if u.breaker != nil {
		u.breaker.notices.begin(log)
	}
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	for i, t := range u.targets {
		t.notices.begin(log.With(zap.String("target", t.label)))
		if u.options.Health != nil {
			probe := newProbe(*u.options.Health, t, u.clients[u.options.Timeouts].connections[i])
			u.checks.Go(func() { t.watch(ctx, u.options.Health.Every, probe) })
		}
		if t.name != "" {
			u.checks.Go(func() { t.follow(ctx, lookUp, u.renew(i)) })
		}
	}
}

// renew has new requests to a target make connections of their own.
func (u *Upstream) renew(i int) func() {
	return func() {
		for _, c := range u.clients {
			c.connections[i].renew()
		}
	}
}

// Close ends the checks and all connections that are idle; the others end with
// the requests on them.
func (u *Upstream) Close() {
	if u.closed.Swap(true) {
		return
	}
	if u.stop != nil {
		u.stop()
		u.checks.Wait()
	}
	for _, t := range u.targets {
		t.notices.end()
	}
	if u.breaker != nil {
		u.breaker.notices.end()
	}
	for _, c := range u.clients {
		for _, to := range c.connections {
			to.closeIdle()
		}
	}
}

// pick chooses a target for a request that has tried some already: one that is
// well and was not tried, else one that is well. If none is well, what is known
// of them is worth less than a try, and all are taken for well.
func (u *Upstream) pick(tried uint64) *target {
	if len(u.targets) == 1 {
		return u.targets[0]
	}
	var space [MaxTargets]*target
	fit := space[:0]
	now := u.clock()
	well := func(t *target) bool { return t.well(now) }
	fresh := func(t *target) bool { return tried&(1<<t.index) == 0 }
	for _, rule := range [...]func(*target) bool{
		func(t *target) bool { return well(t) && fresh(t) }, well, fresh, func(*target) bool { return true },
	} {
		for _, t := range u.targets {
			if rule(t) {
				fit = append(fit, t)
			}
		}
		if len(fit) > 0 {
			break
		}
	}
	if len(fit) == 1 || u.options.Balance == RoundRobin {
		return fit[u.next.Add(1)%uint64(len(fit))]
	}
	a := rand.IntN(len(fit))
	b := rand.IntN(len(fit) - 1)
	if b >= a {
		b++
	}
	if fit[b].inFlight.Load() < fit[a].inFlight.Load() {
		return fit[b]
	}
	return fit[a]
}

// Outlook is what a request would meet at an upstream.
type Outlook struct {
	// Targets there are, of which so many are well.
	Targets, Well int
	// Busy says that it would not be sent; nil: it would.
	Busy *BusyError
}

// Outlook is what a request would meet at the moment. It counts for none.
func (u *Upstream) Outlook() Outlook {
	out, now := Outlook{Targets: len(u.targets)}, u.clock()
	for _, t := range u.targets {
		if t.well(now) {
			out.Well++
		}
	}
	switch most := u.options.MaxConcurrent; {
	case most > 0 && u.inFlight.Load() >= int64(most):
		out.Busy = &BusyError{}
	case u.breaker != nil && u.breaker.holdsBack():
		out.Busy = u.breaker.busy()
	}
	return out
}
