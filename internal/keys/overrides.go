package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"keygate/ratelimit"
)

// Overrides are terms negotiated for one organization or key: they replace the
// limits of its plan that have the same name and add the others.
type Overrides struct {
	Limits []ratelimit.Limit
	// MaxKeys replaces the plan's, for an organization; nil: the plan's holds.
	MaxKeys *int
}

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
// the organization draw on one budget. An error is about per and time zone.
func (o *Overrides) Add(name string, requests int64, per, timezone string, shared bool) error {
	l := ratelimit.Limit{Name: name, Quota: requests, Shared: shared}
	if err := l.SetTerms(per, timezone); err != nil {
		return err
	}
	o.Limits = append(o.Limits, l)
	return nil
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
		if err := o.Add(l.Name, l.Requests, l.Per, l.Timezone, l.Shared); err != nil {
			return o, fmt.Errorf("override of the limit %q: %w", l.Name, err)
		}
	}
	return o, o.Validate()
}

// Validate reports the first thing that is wrong.
func (o Overrides) Validate() error {
	if err := (Plan{Limits: o.Limits, MaxKeys: Unlimited}).Validate(); err != nil {
		return err
	}
	if o.MaxKeys != nil && *o.MaxKeys < Unlimited {
		return errors.New("max_keys must be 0 or more, or -1 for unlimited")
	}
	return nil
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
