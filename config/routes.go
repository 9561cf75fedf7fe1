package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"keygate/internal/keys"
	"keygate/internal/spelling"
	"keygate/proxy/route"
	"keygate/proxy/upstream"
)

const (
	// anyKey stands for a permission where every valid key will do.
	anyKey = "any"
	// maxBinding bounds the name of a header or query parameter.
	maxBinding = 100
)

// routeDecoder reads routes, which refer to the rest of the policy.
type routeDecoder struct {
	*decoder
	policy  *keys.Policy
	targets map[string]upstream.Options
	// fallback is where a route goes that names no upstream.
	fallback    string
	hasFallback bool
}

// routes reads the routes and compiles those whose pattern is right.
func (d *routeDecoder) routes(v value) ([]*route.Rule, *route.Table) {
	if v.node == nil {
		return nil, nil
	}
	items, ok := d.list(v)
	if ok && len(items) == 0 {
		d.fail(v, "is an empty list: no request would be allowed")
	}
	var rules []*route.Rule
	var matches []value
	for _, item := range items {
		if rule, match, ok := d.route(item); ok {
			rules, matches = append(rules, rule), append(matches, match)
		}
	}
	table, err := route.NewTable(rules)
	if err == nil {
		return rules, table
	}
	for _, err := range unjoined(err) {
		conflict, ok := errors.AsType[*route.ConflictError](err)
		if !ok {
			d.fail(v, "%s", err)
			continue
		}
		a, b := matches[conflict.A], matches[conflict.B]
		d.fail(b, "%s and %s (%s:%d:%d) both match %s and neither is more specific",
			quoted(rules[conflict.B].Pattern.String()), quoted(rules[conflict.A].Pattern.String()), d.file, a.at.Line, a.at.Column, quoted(conflict.Example))
	}
	return rules, nil
}

// route reads one route; ok says that it has a pattern.
func (d *routeDecoder) route(v value) (rule *route.Rule, match value, ok bool) {
	fields, ok := d.fields(v, routeForm)
	if !ok {
		return nil, match, false
	}
	rule = &route.Rule{}
	match, ok = fields["match"]
	if ok {
		var text string
		if text, ok = d.text(match); ok {
			var err error
			if rule.Pattern, err = route.ParsePattern(text); err != nil {
				d.fail(match, "%s%s", err, d.likelyMethod(err))
				ok = false
			}
		}
	}
	d.forward(v, fields, rule)
	d.access(v, fields, rule)
	if v, there := fields["organization"]; there {
		rule.Organization = d.binding(v, rule, ok)
	}
	if v, there := fields["space"]; there {
		rule.Space = d.binding(v, rule, ok)
	}
	if v, there := fields["cost"]; there {
		rule.Cost = d.cost(v)
	}
	d.forwarding(fields, rule, ok)
	return rule, match, ok
}

// likelyMethod suggests what a misspelt method of a pattern should be.
func (d *decoder) likelyMethod(err error) string {
	wrong, ok := errors.AsType[*route.MethodError](err)
	if !ok {
		return ""
	}
	return d.didYouMean(strings.ToUpper(wrong.Method), route.Methods())
}

// forward finds the upstream of a route.
func (d *routeDecoder) forward(of value, fields map[string]value, rule *route.Rule) {
	v, ok := fields["upstream"]
	if !ok {
		rule.Upstream = d.fallback
		if !d.hasFallback && !isThere(of, "upstream") {
			d.fail(of, "names no upstream, and there is not exactly one to choose: name one under upstreams, or set KEYGATE_UPSTREAM")
		}
		return
	}
	name, ok := d.text(v)
	if !ok {
		return
	}
	rule.Upstream = name
	if _, known := d.targets[name]; !known {
		names := slices.Collect(maps.Keys(d.targets))
		if hint := d.didYouMean(name, names); hint != "" || len(names) == 0 {
			d.fail(v, "names %s, which is not among the upstreams%s", quoted(name), hint)
			return
		}
		d.fail(v, "names %s, which is not among the upstreams; allowed: %s", quoted(name), oneOf(names))
	}
}

// isThere reports whether a mapping has a field, even one that was refused.
func isThere(v value, name string) bool {
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if v.node.Content[i].Value == name {
			return true
		}
	}
	return false
}

// access reads who may call the route: a key with permissions, any key, or
// everybody.
func (d *routeDecoder) access(of value, fields map[string]value, rule *route.Rule) {
	if v, ok := fields["public"]; ok {
		rule.Public = d.public(v)
		for _, name := range forKeys {
			if v, ok := fields[name]; ok {
				d.fail(v, "is not allowed on a public route: no key is looked at there")
			}
		}
		return
	}
	v, ok := fields["permission"]
	if !ok {
		if !isThere(of, "permission") && !isThere(of, "public") {
			d.fail(value{path: of.path + ".permission", at: of.at}, "is missing; allowed: a permission, a list of permissions that are all needed, or any for every valid key")
		}
		return
	}
	if v.node.Value == anyKey {
		rule.Any = true
		return
	}
	names, places := []string(nil), []value{v}
	if v.node.Kind == yaml.SequenceNode {
		names, places = d.names(v)
	} else if name, ok := d.text(v); ok {
		names = []string{name}
	}
	for i, name := range names {
		need, ok := d.policy.Catalogue.Index(name)
		switch {
		case ok:
			rule.Need = append(rule.Need, need)
			rule.Permissions = append(rule.Permissions, name)
		case name == anyKey:
			d.fail(places[i], "is any, which is not allowed in a list of permissions")
		case strings.Contains(name, "*"):
			d.fail(places[i], "is %s; a route names single permissions, no wildcards", quoted(name))
		default:
			err := fmt.Errorf("%s, which is not in the catalogue", quoted(name))
			if v.node.Kind != yaml.SequenceNode {
				d.failGrant(places[i], name, err, d.policy.Catalogue, anyKey)
				continue
			}
			d.failGrant(places[i], name, err, d.policy.Catalogue)
		}
	}
}

// public reads the budget of each client address: { per_address: "60/1m" }.
func (d *routeDecoder) public(v value) *route.Budget {
	budget := &route.Budget{}
	fields, _ := d.fields(v, publicForm)
	v, ok := fields["per_address"]
	if !ok {
		return budget
	}
	s, ok := d.text(v)
	if !ok {
		return budget
	}
	parsed, err := parseBudget(s)
	switch {
	case errors.Is(err, errBudget):
		d.fail(v, "is %s; allowed is a number of requests per duration, such as 60/1m", quoted(s))
	case err != nil:
		d.fail(v, "%s", err)
	}
	return &parsed
}

// binding reads where a request names its organization or space: "path:org",
// "header:X-Organization" or "query:org". Without a pattern the parameter
// cannot be looked for.
func (d *routeDecoder) binding(v value, rule *route.Rule, hasPattern bool) *route.Binding {
	s, ok := d.text(v)
	if !ok {
		return nil
	}
	source, name, named := strings.Cut(s, ":")
	if name == "" || len(name) > maxBinding {
		source = ""
	}
	parameters := rule.Pattern.Params()
	switch source {
	case "path":
		if hasPattern && !slices.Contains(parameters, name) {
			d.fail(v, "is %s, but the pattern %s has no parameter %s%s", quoted(s), quoted(rule.Pattern.String()), quoted(name), likelyBinding("path", spelling.Closest(name, parameters)))
		}
		return &route.Binding{Source: route.FromPath, Name: name}
	case "header":
		if problem := checkHeader(name); problem != "" {
			d.fail(v, "is %s, but %s", quoted(s), problem)
		}
		return &route.Binding{Source: route.FromHeader, Name: http.CanonicalHeaderKey(name)}
	case "query":
		if !isPrintable(name) || strings.ContainsAny(name, " &=+%#;") {
			d.fail(v, "is %s; the name of a query parameter is written decoded, in printable ASCII without space, &, =, +, %%, # and ;", quoted(s))
		}
		return &route.Binding{Source: route.FromQuery, Name: name}
	}
	hint := likelyBinding(spelling.Closest(source, []string{"path", "header", "query"}), name)
	if !named {
		hint = likelyBinding("path", spelling.Closest(s, parameters))
	}
	d.fail(v, "is %s; allowed: path:, header: or query: and a name of at most %d characters, such as path:org%s", quoted(s), maxBinding, hint)
	return nil
}

// likelyBinding suggests a binding of which both parts are known.
func likelyBinding(source, name string) string {
	if source == "" || name == "" {
		return ""
	}
	return didYouMean(source+":"+name, []string{source + ":" + name})
}

// checkHeader returns why a header cannot name an organization or space.
func checkHeader(name string) string {
	if problem := checkField(name); problem != "" {
		return problem
	}
	switch {
	case http.CanonicalHeaderKey(name) == "Authorization":
		return "that header holds the key"
	case route.Dropped(name), route.SameField(name, "Forwarded"):
		return "keygate drops or replaces that header of a request"
	}
	return ""
}

// cost reads what a request takes from its limits: a number, or what a response
// header says with a reservation before.
func (d *routeDecoder) cost(v value) route.Cost {
	if v.node.Kind != yaml.MappingNode {
		return route.Cost{Reserve: d.units(v)}
	}
	var cost route.Cost
	fields, _ := d.fields(v, costForm)
	if v, ok := fields["header"]; ok {
		if name, ok := d.text(v); ok {
			if problem := checkHeader(name); problem != "" {
				d.fail(v, "is %s, but %s", quoted(name), problem)
			}
			cost.Header = http.CanonicalHeaderKey(name)
		}
	}
	if v, ok := fields["reserve"]; ok {
		cost.Reserve = d.units(v)
	}
	if v, ok := fields["max"]; ok {
		if cost.Max = d.units(v); cost.Max > 0 && cost.Max < cost.Reserve {
			d.fail(v, "is %d, less than the %d that are reserved", cost.Max, cost.Reserve)
		}
	}
	return cost
}

// units reads a cost; 0 if it is wrong. A plan with a smaller limit would never
// admit it.
func (d *routeDecoder) units(v value) int64 {
	n, ok := d.integer(v)
	if !ok {
		return 0
	}
	if n < 1 || n > math.MaxInt32 {
		d.fail(v, "is %d; allowed are 1 to %d", n, math.MaxInt32)
		return 0
	}
	for _, plan := range slices.Sorted(maps.Keys(d.policy.Plans)) {
		for _, l := range d.policy.Plans[plan].Limits {
			if n > l.Quota {
				d.fail(v, "is %d, which the limit %q of plan %q (%d) would never admit", n, l.Name, plan, l.Quota)
				return 0
			}
		}
	}
	return n
}
