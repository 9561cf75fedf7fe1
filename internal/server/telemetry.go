package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"keygate/auth"
	"keygate/proxy"
	"keygate/ratelimit"
)

// newRegistry has what every Go service shows of itself.
func newRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "keygate_build_info", Help: "Always 1; the label is the version.",
			ConstLabels: prometheus.Labels{"version": version},
		}, func() float64 { return 1 }),
	)
	return r
}

// registerCosts shows what became of costs that showed late, and of requests in
// flight.
func registerCosts(r prometheus.Registerer, s *ratelimit.Settling, f *ratelimit.InFlight) {
	for name, of := range map[string]struct {
		help  string
		value func() uint64
	}{
		"keygate_cost_corrections_dropped_total": {"Requests whose cost was not corrected because too many corrections waited; what was reserved stays charged.", s.Dropped},
		"keygate_cost_corrections_failed_total":  {"Corrections of costs that did not reach the ledger and are sent again.", s.Failed},
		"keygate_in_flight_cut_total":            {"Requests cut off because the ledger was out of reach for longer than their place among those in flight lasts.", f.Cut},
		"keygate_in_flight_degraded_total":       {"Requests in flight that this replica counted by itself while the ledger was out of reach (outage.mode: open).", f.Degraded},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: of.help}, func() float64 { return float64(of.value()) }))
	}
}

// registerParts shows the counters that the parts keep for themselves.
func registerParts(r prometheus.Registerer, a *auth.Authenticator, limiter *ratelimit.Limiter, gate *proxy.Proxy) {
	counter := func(name, help string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	s, limits := a.Stats(), limiter.Stats()
	r.MustRegister(
		gauge("keygate_key_cache_keys", "Keys held in memory, at most KEYGATE_CACHE_KEYS.", a.CachedKeys),
		counter("keygate_key_cache_hits_total", "Keys found in memory.", s.Hits.Load),
		counter("keygate_key_cache_misses_total", "Keys asked of the store.", s.Misses.Load),
		counter("keygate_key_cache_unknown_hits_total", "Keys that were remembered as unknown.", s.UnknownHits.Load),
		counter("keygate_key_cache_failures_total", "Lookups that the store failed to answer.", s.Failures.Load),
		counter("keygate_key_cache_flushes_total", "Times that everything was forgotten because a change may have been missed.", s.Flushes.Load),
		counter("keygate_key_cache_verified_total", "Keys in memory that were asked of the store all the same because the change feed was silent.", s.Verified.Load),
		counter("keygate_key_cache_outage_total", "Requests served with a key from memory while the store was out of reach (outage.keys).", s.Outage.Load),
		counter("keygate_address_failures_refused_total", "Failed requests answered 429 because their client's address had used up KEYGATE_FAILED_PER_ADDRESS.", s.FailuresRefused.Load),
		counter("keygate_uses_dropped_total", "Uses of keys that were not recorded because too many waited for the store.", s.UsesDropped.Load),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "keygate_change_feed_age_seconds", Help: "Time since the change feed of a shared store last proved that no change was missed; 0 on the embedded store.",
		}, func() float64 { return a.FeedAge().Seconds() }),
		gauge("keygate_limit_keys", "Keys that leases, denials or demand are held of.", limiter.Holders),
		counter("keygate_limit_trips_total", "Calls of the ledger.", limits.Trips.Load),
		counter("keygate_limit_asks_total", "Questions in these calls; several keys travel together.", limits.Asks.Load),
		counter("keygate_limit_renewals_total", "Questions on behalf of a lease for which no request waited.", limits.Renewals.Load),
		counter("keygate_limit_failures_total", "Calls of the ledger that failed.", limits.Failures.Load),
		counter("keygate_limit_taken_total", "Units of cost taken from the ledger one request at a time.", limits.Taken.Load),
		counter("keygate_limit_leased_total", "Units of cost spent from leases, counted when they are reported.", limits.Leased.Load),
		counter("keygate_limit_releases_total", "Leases that were given back.", limits.Released.Load),
		counter("keygate_limit_returned_total", "Units of cost in leases that were given back.", limits.Returned.Load),
		counter("keygate_limit_remembered_total", "Requests denied without asking the ledger, because a denial still held.", limits.Remembered.Load),
		counter("keygate_limit_burnt_total", "Units of cost booked or spent but not admitted because it was too late.", limits.Burnt.Load),
		counter("keygate_limit_late_total", "Decisions for which the ledger took too long.", limits.Late.Load),
		counter("keygate_limit_degraded_total", "Decisions that this replica made by itself while the ledger was out of reach (outage.mode: open).", limits.Degraded.Load),
		counter("keygate_limit_lost_total", "Signs that the ledger lost what was spent: leases it forgot, and steps of its clock.", limits.Lost.Load),
		counter("keygate_limit_forgotten_total", "Units of cost spent from leases that the ledger forgot; quotas may be exceeded by as much.", limits.Forgotten.Load),
		counter("keygate_limit_clock_steps_total", "Times that the ledger's clock was set.", limits.ClockSteps.Load),
		counter("keygate_limit_held_total", "Answers of a ledger that waits after a possible loss.", limits.Held.Load),
		counter("keygate_limit_stale_total", "Answers that a newer policy is in use.", limits.Stale.Load),
		counter("keygate_limit_crowded_total", "Decisions without a lease because too many keys were in use.", limits.Crowded.Load),
		counter("keygate_public_address_evictions_total", "Client addresses on public routes that took over another's budget because more were in use than are told apart.", gate.AddressEvictions),
		gauge("keygate_unknown_plans", "Plans in use that the policy lacks; the default plan stands in.", func() int { return len(gate.UnknownPlans()) }),
	)
}

// lossAlarm tells the operator where the ledger may have lost what was spent. A
// step of its clock, or a Redis that was emptied, shows in many keys at once:
// the log has the first of each second.
func lossAlarm(log *zap.Logger, suspect func(ratelimit.Loss)) func(ratelimit.Loss) {
	log = log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, 1, 0)
	}))
	return func(l ratelimit.Loss) {
		if suspect != nil {
			suspect(l)
		}
		if l.Step != 0 {
			log.Error("the clock of the limits' ledger was set: windows of limits may have admitted more than they should", zap.Duration("by", l.Step))
			return
		}
		log.Error("the limits' ledger does not know a lease before its end: it may have lost what was spent", zap.String("organization", l.Organization), zap.String("key_id", l.Key), zap.Int64("quotas_may_be_exceeded_by", l.Forgotten))
	}
}
