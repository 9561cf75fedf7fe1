package keys

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"keygate/ratelimit"
)

// Overrides are terms negotiated for one organization or key: they replace the
// limits of its plan that have the same name and add the others.
type Overrides struct {
	Limits []ratelimit.Limit
	// MaxKeys replaces the plan's, for an organization; nil: the plan's holds.
	MaxKeys *int
	// unreadable are the terms of Limits that are none, by position, as they were
	// given.
	unreadable map[int]terms
}

// terms say how long a limit's period is.
type terms struct{ per, timezone string }

// overridesRecord is the form in which Overrides are stored and shown.
type overridesRecord struct {
	Limits  []limitRecord `json:"limits,omitempty"`
	MaxKeys *int          `json:"max_keys,omitempty"`
}

type limitRecord struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Per      string `json:"per"`
	Timezone string `json:"timezone,omitempty"`
	Shared   bool   `json:"shared,omitempty"`
}

// IsZero reports whether nothing is overridden.
func (o Overrides) IsZero() bool { return len(o.Limits) == 0 && o.MaxKeys == nil }

// Add adds a limit of so many requests in any stretch of time as long as per, or
// in each calendar period ("day", "month") of a time zone; shared has all keys of
// the organization draw on one budget. Terms that are none are reported with what
// else is wrong, by Validate.
func (o *Overrides) Add(name string, requests int64, per, timezone string, shared bool) {
	l := ratelimit.Limit{Name: name, Quota: requests, Shared: shared}
	if l.SetTerms(per, timezone) != nil {
		if o.unreadable == nil {
			o.unreadable = make(map[int]terms)
		}
		o.unreadable[len(o.Limits)] = terms{per, timezone}
	}
	o.Limits = append(o.Limits, l)
}

// Encode returns the stored form; nil for nothing.
func (o Overrides) Encode() json.RawMessage {
	if o.IsZero() {
		return nil
	}
	r := overridesRecord{MaxKeys: o.MaxKeys}
	for _, l := range o.Limits {
		per, zone := l.Terms()
		r.Limits = append(r.Limits, limitRecord{Name: l.Name, Requests: l.Quota, Per: per, Timezone: zone, Shared: l.Shared})
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic("keys: " + err.Error()) // strings and numbers always marshal
	}
	return b
}

// ParseOverrides reads the stored form.
func ParseOverrides(raw json.RawMessage) (o Overrides, err error) {
	if len(raw) == 0 {
		return o, nil
	}
	var r overridesRecord
	if err := json.Unmarshal(raw, &r); err != nil {
		return o, fmt.Errorf("overrides are not readable: %w", err)
	}
	o.MaxKeys = r.MaxKeys
	for _, l := range r.Limits {
		limit := ratelimit.Limit{Name: l.Name, Quota: l.Requests, Shared: l.Shared}
		if err := limit.SetTerms(l.Per, l.Timezone); err != nil {
			return o, fmt.Errorf("override of the limit %q: %w", l.Name, err)
		}
		o.Limits = append(o.Limits, limit)
	}
	return o, o.Validate()
}

// Validate reports every wrong field.
func (o Overrides) Validate() error {
	var c check
	c.ownOverrides("", o)
	return c.err()
}

// ownOverrides checks what can be judged without the plan; at is what the names
// of the fields start with.
func (c *check) ownOverrides(at string, o Overrides) {
	if len(o.Limits) > MaxLimits {
		c.add(at+"limits", "", "has %d entries; at most %d are allowed", len(o.Limits), MaxLimits)
		return
	}
	for i, l := range o.Limits {
		bad, unreadable := o.unreadable[i]
		c.limit(fmt.Sprintf("%slimits[%d]", at, i), l, unreadable)
		if unreadable {
			c.terms(fmt.Sprintf("%slimits[%d]", at, i), bad)
		}
		if slices.ContainsFunc(o.Limits[:i], func(x ratelimit.Limit) bool { return x.Name == l.Name }) {
			c.add(fmt.Sprintf("%slimits[%d].name", at, i), l.Name, "stands twice in the list")
		}
	}
	if o.MaxKeys != nil && *o.MaxKeys < Unlimited {
		c.add(at+"max_keys", strconv.Itoa(*o.MaxKeys), "must be 0 or more, or -1 for unlimited")
	}
}

// limit checks one limit, each of its fields by itself: with the others as they
// would be right, so that what is left is this one's.
func (c *check) limit(at string, l ratelimit.Limit, unreadable bool) {
	right := ratelimit.Limit{Name: "x", Quota: 1, Per: time.Second}
	named, counted, timed := right, right, right
	named.Name, counted.Quota = l.Name, l.Quota
	timed.Per, timed.Period, timed.Zone = l.Per, l.Period, l.Zone
	if named.Validate() != nil {
		c.add(at+".name", l.Name, "must be 1 to %d letters, digits, '_', '-' and '.'", ratelimit.MaxName)
	}
	if counted.Validate() != nil {
		c.add(at+".requests", strconv.FormatInt(l.Quota, 10), "must lie between 1 and %d", int64(ratelimit.MaxQuota))
	}
	if !unreadable && timed.Validate() != nil {
		per, _ := l.Terms()
		c.add(at+".per", per, wantedPer, ratelimit.MinWindow, ratelimit.MaxWindow)
	}
}

const wantedPer = "must be a duration of whole seconds from %s to %s, such as 1m or 24h, or day or month"

// terms says what of a period and its time zone cannot be read.
func (c *check) terms(at string, t terms) {
	if _, err := ratelimit.ParseZone(t.timezone); err != nil {
		c.add(at+".timezone", t.timezone, "must be the name of a time zone such as Europe/Zurich, with day or month")
	} else if _, err := time.ParseDuration(t.per); err == nil {
		c.add(at+".timezone", t.timezone, "is allowed only with day and month")
	} else {
		c.add(at+".per", t.per, wantedPer, ratelimit.MinWindow, ratelimit.MaxWindow)
	}
}

// overrides checks what an operator negotiated, together with the plan.
func (c *check) overrides(field string, o Overrides, plan Plan) {
	wrong := len(c.fields)
	if c.ownOverrides(field+".", o); len(c.fields) > wrong {
		return
	}
	if err := plan.With(o).Validate(); err != nil {
		c.add(field, "", "with the plan %s it %s", plan.Name, err)
	}
}

// With returns the plan with overrides applied: of an organization first, then
// of a key.
func (p Plan) With(all ...Overrides) Plan {
	for _, o := range all {
		if len(o.Limits) > 0 {
			p.Limits = slices.Clone(p.Limits)
		}
		for _, l := range o.Limits {
			if i := slices.IndexFunc(p.Limits, func(x ratelimit.Limit) bool { return x.Name == l.Name }); i >= 0 {
				p.Limits[i] = l
			} else {
				p.Limits = append(p.Limits, l)
			}
		}
		if o.MaxKeys != nil {
			p.MaxKeys = *o.MaxKeys
		}
	}
	return p
}

// Terms is the plan that holds for a key of an organization, overrides applied.
// known is false where the policy no longer has the plan and the default one
// stands in. Overrides that cannot be read are an error: the plan alone might
// grant what was taken away.
func (p *Policy) Terms(o Organization, k Key) (plan Plan, known bool, err error) {
	return p.TermsOf(&o, k.ID, k.Plan, k.Overrides)
}

// TermsOf is Terms for what they depend on of a key: its id, for errors, its plan
// and its overrides.
func (p *Policy) TermsOf(o *Organization, key, keyPlan string, overrides json.RawMessage) (plan Plan, known bool, err error) {
	plan, known = p.PlanOf(o.Plan, keyPlan)
	ofOrganization, err := ParseOverrides(o.Overrides)
	if err != nil {
		return plan, known, fmt.Errorf("organization %s: %w", o.ID, err)
	}
	ofKey, err := ParseOverrides(overrides)
	if err != nil {
		return plan, known, fmt.Errorf("key %s: %w", key, err)
	}
	plan = plan.With(ofOrganization, ofKey)
	if err := plan.Validate(); err != nil {
		return plan, known, fmt.Errorf("plan %s with the overrides of key %s: %w", plan.Name, key, err)
	}
	return plan, known, nil
}
