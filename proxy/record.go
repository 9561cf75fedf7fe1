package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"keygate/auth"
	"keygate/proxy/upstream"
)

// record makes the log line and the metrics of a finished exchange.
func (p *Proxy) record(x *exchange) {
	took := p.now().Sub(x.start)
	if x.status == 0 && !x.done {
		x.status = http.StatusInternalServerError // nothing was written and a panic passes through
	} else if x.status == 0 {
		x.status = http.StatusOK
	}
	path := p.withoutKey(x.r.URL.Path)
	if path == hidden {
		x.exposed = true
	}
	if x.exposed {
		p.findInURL(x)
	}
	p.metrics.count(x, took)
	level := zapcore.InfoLevel
	if x.status >= 500 {
		level = zapcore.WarnLevel
	}
	if p.accessLog.Core().Enabled(level) {
		x.log(level, path, took)
	}
}

// hidden stands in the log for what a client sent that holds an API key.
const hidden = "(hidden: it holds an API key)"

func (p *Proxy) withoutKey(sent string) string {
	if auth.ShowsKey(p.format, sent) {
		return hidden
	}
	return sent
}

const millisecond = float64(time.Millisecond)

// log writes the access log line. Names are OpenTelemetry's where it has one.
// Query values, header values and bodies are never in it.
func (x *exchange) log(level zapcore.Level, path string, took time.Duration) {
	client := x.peerText
	if x.client != x.peer {
		client = x.client.String()
	}
	f := append(x.fields[:0],
		zap.String("request_id", x.id),
		zap.String("http.request.method", x.proxy.withoutKey(x.r.Method)),
		zap.String("url.path", path),
		zap.Int("http.response.status_code", x.status),
		zap.Int64("http.response.body.size", x.bytes),
		zap.String("client.address", client),
		zap.String("decision", decisionNames[x.decision]),
		zap.Float64("duration_ms", float64(took)/millisecond),
	)
	if x.rule != nil {
		f = append(f, zap.String("http.route", x.rule.name))
	}
	if x.principal != nil {
		f = append(f, zap.String("key_id", x.principal.Key.ID), zap.String("plan", x.principal.Plan.Name))
		if x.principal.Organization != nil {
			f = append(f, zap.String("organization_id", x.principal.Organization.ID))
		}
	} else if x.keyID != "" {
		f = append(f, zap.String("key_id", x.keyID))
	}
	if x.reason != "" {
		f = append(f, zap.String("reason", x.reason))
	}
	if !x.sent.IsZero() {
		f = append(f, zap.Float64("upstream_duration_ms", float64(x.upstream)/millisecond))
		if x.failedUpstream() {
			f = append(f, zap.String("upstream", x.rule.Upstream))
			if target := x.call.Target(); target != "" {
				f = append(f, zap.String("target", target))
			}
		}
	}
	if theirs := x.r.Header["X-Request-Id"]; len(theirs) > 0 && len(theirs[0]) <= 128 {
		f = append(f, zap.String("client_request_id", x.proxy.withoutKey(theirs[0])))
	}
	if x.exposed {
		f = append(f, zap.Bool("key_exposed_in_url", true))
	}
	if x.inClear {
		f = append(f, zap.Bool("key_exposed_in_clear", true))
	}
	if !x.done {
		f = append(f, zap.Bool("aborted", true)) // the answer was cut off
	}
	if x.cause != nil {
		f = append(f, zap.NamedError("error", x.cause))
	}
	if entry := x.proxy.accessLog.Check(level, "request"); entry != nil {
		entry.Write(f...)
	}
	clear(f) // the next exchange must not keep this one's strings alive
}

// failedUpstream reports whether an operator will want to know whose answer this was.
func (x *exchange) failedUpstream() bool {
	switch x.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return !x.done
}

// upstreamMetrics are those of the upstreams of the policy in force.
type upstreamMetrics struct{ proxy *Proxy }

func (upstreamMetrics) Describe(ch chan<- *prometheus.Desc) { upstream.Describe(ch) }

func (m upstreamMetrics) Collect(ch chan<- prometheus.Metric) {
	policy := m.proxy.policy.Load()
	if policy == nil {
		return
	}
	for _, u := range policy.upstreams {
		u.Collect(ch)
	}
}

// metrics of the data plane. Labels never name a key, an account or a path.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	overhead prometheus.Histogram
	// Keys where others can read them: in the URL, or in clear.
	exposedInURL, exposedInClear prometheus.Counter
	badCosts                     *prometheus.CounterVec
	series                       seriesCache
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_requests_total", Help: "Requests answered, by route, status class, plan and decision.",
		}, []string{"route", "code", "plan", "decision"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keygate_request_duration_seconds", Help: "Time from a request's arrival to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		overhead: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keygate_decision_duration_seconds", Help: "Time from a request's arrival to its admission.",
			Buckets: []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 25e-3, 0.1, 1},
		}),
		badCosts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_cost_headers_unreadable_total", Help: "Answers whose cost header is missing or no number; what was reserved stays charged.",
		}, []string{"route"}),
	}
	exposed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keygate_exposed_keys_total", Help: "Requests that carried an API key where others can read it: in the URL, or over plain HTTP where HTTPS is required.",
	}, []string{"where"})
	m.exposedInURL, m.exposedInClear = exposed.WithLabelValues("url"), exposed.WithLabelValues("plain_http")
	m.forget()
	r.MustRegister(m.requests, m.duration, m.overhead, exposed, m.badCosts)
	return m
}
