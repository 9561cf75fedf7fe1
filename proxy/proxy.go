// Package proxy is the data plane: for every request one decision, then one
// forwarded call or one refusal that explains itself.
package proxy

import (
	"fmt"
	"net/http/httputil"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/internal/pace"
	"keygate/ratelimit"
)

// Options of a Proxy; required are Auth, Limiter, Format, AccessLog, Metrics and Now.
type Options struct {
	Auth    *auth.Authenticator
	Limiter *ratelimit.Limiter
	// Settling corrects what requests were charged once their cost is known; nil:
	// what was reserved stays.
	Settling *ratelimit.Settling
	// InFlight bounds the requests of a key that are under way where its plan does;
	// nil: it does not.
	InFlight *ratelimit.InFlight
	Format   keys.Format
	// Realm stands in WWW-Authenticate.
	Realm string
	// TrustedProxies are believed about the client's address, host and scheme.
	TrustedProxies []netip.Prefix
	// Me reserves the paths under /.keygate/, of which /.keygate/me tells a key
	// about itself.
	Me bool
	// MaxURL bounds the target of a request in bytes; 0: no bound.
	MaxURL int
	// Sends is how a client must send a request's body before there is an answer.
	Sends pace.Pace
	// Takes is how a client must take its answer. It is what HTTP/2 needs, where one
	// can stand still while its connection does not; over HTTP/1.1 the connection's
	// writes are bounded elsewhere.
	Takes pace.Pace
	// MaxPerKey bounds the requests of one key that are under way in this process;
	// 0: no bound.
	MaxPerKey int
	// RequireHTTPS refuses what came over plain HTTP.
	RequireHTTPS bool
	// HSTS is how long clients shall use HTTPS only; 0: nothing is said of it.
	HSTS time.Duration
	// Exposed, if not nil, is told of each key that came where others can read it, by
	// its id: in the "url", or over "plain_http" where HTTPS is required; client is who
	// sent it. It must not block.
	Exposed func(key, where string, client netip.Addr)
	// AccessLog gets one line for each request.
	AccessLog *zap.Logger
	// Log, if not nil, is told what becomes of upstreams.
	Log     *zap.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
}

// Proxy is the handler in front of the upstreams. SetPolicy must be called
// before the first request.
type Proxy struct {
	auth      *auth.Authenticator
	limiter   *ratelimit.Limiter
	settling  *ratelimit.Settling
	inFlight  *ratelimit.InFlight
	format    keys.Format
	realm     string
	trusted   []netip.Prefix
	maxURL    int // 0: no bound
	sends     pace.Pace
	takes     pace.Pace
	https     bool                                       // required
	hsts      []string                                   // value of Strict-Transport-Security; nil: none
	exposed   func(key, where string, client netip.Addr) // nil: nobody wants to know
	accessLog *zap.Logger
	log       *zap.Logger
	metrics   *metrics
	now       func() time.Time
	policy    atomic.Pointer[Policy]
	// preflights that are forwarded, per client address.
	preflights *ratelimit.Buckets
	streams    *streams
	crowd      *crowd
	slow       slowClients
	// resetFloods counts connections that were closed for what their clients reset.
	resetFloods prometheus.Counter
	me          *me // nil: the paths under /.keygate/ are like others
	exchanges   sync.Pool
	leaving     atomic.Bool  // no connection is kept for a further request
	tunnels     atomic.Int64 // WebSocket connections that are open
	dismissed   atomic.Int64 // requests that were under way at the end, and are not in the log yet
}

// New returns a Proxy without a policy.
func New(o Options) *Proxy {
	p := &Proxy{
		auth:      o.Auth,
		limiter:   o.Limiter,
		settling:  o.Settling,
		inFlight:  o.InFlight,
		format:    o.Format,
		realm:     o.Realm,
		trusted:   o.TrustedProxies,
		maxURL:    o.MaxURL,
		sends:     o.Sends,
		takes:     o.Takes,
		crowd:     newCrowd(o.MaxPerKey, o.Metrics),
		https:     o.RequireHTTPS,
		exposed:   o.Exposed,
		accessLog: o.AccessLog,
		metrics:   newMetrics(o.Metrics),
		now:       o.Now,
		streams:   newStreams(o.Metrics),
		slow:      newSlowClients(o.Metrics),

		resetFloods: newResetFloods(o.Metrics),
		preflights:  newPreflights(o.Now),
	}
	if p.log = o.Log; p.log == nil {
		p.log = zap.NewNop()
	}
	if o.HSTS > 0 {
		p.hsts = []string{fmt.Sprintf("max-age=%d", int64(o.HSTS/time.Second))}
	}
	if o.Me {
		p.me = newMe(o.Now)
	}
	o.Metrics.MustRegister(upstreamMetrics{p})
	p.exchanges.New = func() any {
		x := &exchange{proxy: p, shard: p.streams.next.Add(1) % streamShards}
		x.reverse = httputil.ReverseProxy{
			Rewrite:        x.rewrite,
			ModifyResponse: x.modifyResponse,
			ErrorHandler:   x.upstreamFailed,
			Transport:      x,
			BufferPool:     buffers,
			ErrorLog:       discardLog,
		}
		return x
	}
	return p
}

// SetPolicy puts a policy in force; requests under way keep the one that they
// began with.
func (p *Proxy) SetPolicy(policy *Policy) {
	former := p.policy.Load()
	policy.begin(former, p.log)
	p.policy.Store(policy)
	p.metrics.forget()
	if former != nil {
		former.end(policy)
	}
}

// Close ends what watches the upstreams, and idle connections to them.
func (p *Proxy) Close() {
	if policy := p.policy.Load(); policy != nil {
		policy.end(nil)
	}
}
