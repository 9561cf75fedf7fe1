package config

import (
	"slices"
	"strings"
	"time"
)

// upstreams reads where requests may go.
func (d *decoder) upstreams(v value) map[string]Upstream {
	out := make(map[string]Upstream)
	for _, e := range d.named(v) {
		out[e.name] = d.upstream(e)
	}
	return out
}

func (d *decoder) upstream(e entry) Upstream {
	up := Upstream{Name: e.name}
	fields, ok := d.fields(e.value, upstreamForm)
	if !ok {
		return up
	}
	if v, ok := fields["targets"]; ok {
		targets, ok := d.list(v)
		if ok && len(targets) == 0 {
			d.fail(v, "is an empty list; allowed is one URL")
		}
		for i, target := range targets {
			s, ok := d.text(target)
			if !ok {
				continue
			}
			u, err := parseTarget(s)
			if err != nil {
				d.fail(target, "%s %s; allowed is an http or https URL without credentials, query and fragment", quoted(redacted(s)), err)
			}
			if i == 0 {
				up.Target = u
			} else if err == nil {
				d.fail(target, "is %s, and a second target is not supported yet", quoted(s))
			}
		}
	}
	if v, ok := fields["balance"]; ok {
		before := len(d.problems)
		d.choice(v, "round_robin", "least_requests")
		d.later(before, v)
	}
	if v, ok := fields["health"]; ok {
		before := len(d.problems)
		d.health(v)
		d.later(before, v)
	}
	if v, ok := fields["timeouts"]; ok {
		d.timeouts(v)
	}
	return up
}

// later refuses a value whose feature is yet to come, unless a problem with the
// value itself was reported since there were so many.
func (d *decoder) later(before int, v value) {
	if len(d.problems) == before {
		d.unsupported(v)
	}
}

// choice wants one of a few words.
func (d *decoder) choice(v value, words ...string) (string, bool) {
	s, ok := d.text(v)
	if ok && !slices.Contains(words, s) {
		d.fail(v, "is %s; allowed: %s%s", quoted(s), strings.Join(words, ", "), d.didYouMean(s, words))
		return s, false
	}
	return s, ok
}

func (d *decoder) health(v value) {
	fields, ok := d.fields(v, healthForm)
	if !ok {
		return
	}
	if v, ok := fields["path"]; ok {
		if s, ok := d.text(v); ok && !strings.HasPrefix(s, "/") {
			d.fail(v, "is %s; a path starts with /", quoted(s))
		}
	}
	if v, ok := fields["every"]; ok {
		d.between(v, 100*time.Millisecond, time.Hour)
	}
}

// timeouts are the same for an upstream and for a route; 0s is no bound.
func (d *decoder) timeouts(v value) {
	before := len(d.problems)
	fields, _ := d.fields(v, timeoutsForm)
	for _, name := range timeoutsForm.names(offered) {
		if v, ok := fields[name]; ok {
			d.between(v, 0, 24*time.Hour)
		}
	}
	d.later(before, v)
}
