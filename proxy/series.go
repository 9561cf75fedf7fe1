package proxy

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// seriesCache holds the metrics' series by what labels them, so that a request
// pays for no label lookup. It is copied on each addition: additions end soon,
// reads never do.
type seriesCache struct {
	mu      sync.Mutex
	current atomic.Pointer[map[seriesKey]series]
}

type seriesKey struct {
	rule     *rule // nil: no route
	plan     string
	decision decision
	class    int
}

type series struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

// maxSeries bounds the cache; what does not fit is looked up each time.
const maxSeries = 10_000

var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func (m *metrics) count(x *exchange, took time.Duration) {
	key := seriesKey{rule: x.rule, decision: x.decision}
	if class := x.status / 100; class < len(classes) {
		key.class = class
	}
	if x.principal != nil {
		key.plan = x.principal.Plan.Name
	}
	s, ok := (*m.series.current.Load())[key]
	if !ok {
		s = m.resolve(key)
	}
	s.requests.Inc()
	s.duration.Observe(took.Seconds())
	if !x.sent.IsZero() {
		m.overhead.Observe(x.sent.Sub(x.start).Seconds())
	}
	if x.exposed {
		m.exposedInURL.Inc()
	}
}

func (m *metrics) resolve(key seriesKey) series {
	route := ""
	if key.rule != nil {
		route = key.rule.name
	}
	s := series{
		requests: m.requests.WithLabelValues(route, classes[key.class], key.plan, decisionNames[key.decision]),
		duration: m.duration.WithLabelValues(route),
	}
	m.series.mu.Lock()
	defer m.series.mu.Unlock()
	if former := *m.series.current.Load(); len(former) < maxSeries {
		next := maps.Clone(former)
		next[key] = s
		m.series.current.Store(&next)
	}
	return s
}

// forget drops the cached series of a former policy's rules.
func (m *metrics) forget() {
	m.series.mu.Lock()
	defer m.series.mu.Unlock()
	m.series.current.Store(&map[seriesKey]series{})
}
