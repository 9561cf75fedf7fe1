package config

import (
	"math"
	"time"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// plans adds the plans of the file to the built-in ones. A wrong one is there
// too, so that it is not reported as missing as well.
func (d *decoder) plans(v value) map[string]keys.Plan {
	plans := keys.BuiltinPlans()
	for _, e := range d.named(v) {
		plans[e.name] = d.plan(e)
	}
	return plans
}

func (d *decoder) plan(e entry) keys.Plan {
	plan := keys.Plan{Name: e.name, MaxKeys: keys.Unlimited}
	fields, ok := d.fields(e.value, planForm)
	if !ok {
		return plan
	}
	if v, ok := fields["limits"]; ok {
		plan.Limits = d.limits(v)
	}
	if v, ok := fields["max_keys"]; ok {
		if n, ok := d.integer(v); ok && (n < 0 || n > math.MaxInt32) {
			d.fail(v, "is %d; allowed are 0 to %d, or no max_keys for unlimited", n, math.MaxInt32)
		} else if ok {
			plan.MaxKeys = int(n)
		}
	}
	if v, ok := fields["concurrent"]; ok {
		if n, ok := d.integer(v); ok && (n < 1 || n > ratelimit.MaxConcurrent) {
			d.fail(v, "is %d; allowed are 1 to %d, or no concurrent for any number", n, ratelimit.MaxConcurrent)
		} else if ok {
			plan.Concurrent = n
		}
	}
	if v, ok := fields["outage"]; ok {
		plan.Outage = d.outage(v)
	}
	return plan
}

// limits adds one limit after the other, so that the first one that the plan
// cannot hold is the one reported.
func (d *decoder) limits(v value) []ratelimit.Limit {
	var limits []ratelimit.Limit
	items, _ := d.list(v)
	for _, item := range items {
		limit, ok := d.limit(item)
		if !ok {
			continue
		}
		if err := (keys.Plan{Limits: append(limits, limit)}).Validate(); err != nil {
			d.fail(item, "the plan %s", err)
			continue
		}
		limits = append(limits, limit)
	}
	return limits
}

func (d *decoder) limit(v value) (ratelimit.Limit, bool) {
	before := len(d.problems)
	fields, ok := d.fields(v, limitForm)
	if !ok {
		return ratelimit.Limit{}, false
	}
	// Each field is tried in a limit that is right otherwise, which tells the
	// place of what the limit refuses.
	limit := ratelimit.Limit{Name: "limit", Quota: 1, Per: ratelimit.MinWindow}
	try := func(v value, with ratelimit.Limit) {
		if err := with.Validate(); err != nil {
			d.fail(v, "%s", err)
			return
		}
		limit = with
	}
	if v, ok := fields["name"]; ok {
		if name, ok := d.text(v); ok {
			with := limit
			with.Name = name
			try(v, with)
		}
	}
	if v, ok := fields["requests"]; ok {
		if n, ok := d.integer(v); ok {
			with := limit
			with.Quota = n
			try(v, with)
		}
	}
	if v, ok := fields["per"]; ok {
		with := limit
		if with.Period, ok = ratelimit.ParsePeriod(v.node.Value); ok {
			with.Per = 0
			limit = with
		} else if with.Per, ok = d.duration(v); ok {
			try(v, with)
		}
	}
	if v, ok := fields["timezone"]; ok {
		d.timezone(v, &limit)
	}
	if v, ok := fields["shared"]; ok {
		limit.Shared, _ = d.boolean(v)
	}
	return limit, len(d.problems) == before
}

// timezone sets the zone of a calendar quota.
func (d *decoder) timezone(v value, limit *ratelimit.Limit) {
	name, ok := d.text(v)
	if !ok {
		return
	}
	zone, err := ratelimit.ParseZone(name)
	switch {
	case err != nil:
		d.fail(v, "%s", err)
	case limit.Period == ratelimit.NoPeriod:
		d.fail(v, "a time zone is allowed only with per: day or per: month")
	default:
		limit.Zone = zone
	}
}

func (d *decoder) outage(v value) (o keys.Outage) {
	fields, _ := d.fields(v, outageForm)
	if v, ok := fields["mode"]; ok {
		d.choice(v, outageModes...)
		o.Open = v.node.Value == "open"
	}
	if v, ok := fields["keys"]; ok {
		o.Keys = d.between(v, 0, 24*time.Hour)
	}
	return o
}
