package upstream

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

// Metrics of upstreams. Their labels are names and targets of the policy in force,
// so that there are no more of them than it has.
var (
	targetUp = prometheus.NewDesc("keygate_upstream_target_up",
		"1 if the target gets requests: its health checks pass and it is not ejected.", []string{"upstream", "target"}, nil)
	targetInFlight = prometheus.NewDesc("keygate_upstream_requests_in_flight",
		"Requests under way at the target.", []string{"upstream", "target"}, nil)
	targetFailures = prometheus.NewDesc("keygate_upstream_failures_total",
		"Attempts that the target gave no answer to, or 502, 503 or 504.", []string{"upstream", "target", "reason"}, nil)
	targetEjections = prometheus.NewDesc("keygate_upstream_ejections_total",
		"Times that the target was left alone because requests in a row failed on it.", []string{"upstream", "target"}, nil)
	retries = prometheus.NewDesc("keygate_upstream_retries_total",
		"Requests that were sent once more, or (result no_budget) not because retry_budget was spent.", []string{"upstream", "result"}, nil)
	refusals = prometheus.NewDesc("keygate_upstream_refused_total",
		"Requests answered 503 to spare the upstream.", []string{"upstream", "reason"}, nil)
	breakerOpen = prometheus.NewDesc("keygate_upstream_breaker_open",
		"1 while the breaker holds requests back.", []string{"upstream"}, nil)
)

// Describe sends what Collect may send, as a prometheus.Collector.
func Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{targetUp, targetInFlight, targetFailures, targetEjections, retries, refusals, breakerOpen} {
		ch <- d
	}
}

// Collect sends the upstream's metrics.
func (u *Upstream) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{u.options.Name}, labels...)...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), append([]string{u.options.Name}, labels...)...)
	}
	now := u.clock()
	for _, t := range u.targets {
		gauge(targetUp, one(t.well(now)), t.label)
		gauge(targetInFlight, float64(t.inFlight.Load()), t.label)
		counter(targetEjections, t.ejection.Load(), t.label)
		for why, name := range reasonNames {
			counter(targetFailures, t.failures[why].Load(), t.label, name)
		}
	}
	counter(retries, u.retried.Load(), "sent")
	counter(retries, u.spent.Load(), "no_budget")
	counter(refusals, u.crowded.Load(), "max_concurrent")
	if u.breaker != nil {
		counter(refusals, u.breaker.refusals.Load(), "breaker")
		gauge(breakerOpen, one(u.breaker.State() == gobreaker.StateOpen))
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
