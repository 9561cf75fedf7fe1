package config

import (
	"errors"
	"slices"
	"strings"
	"unicode"

	"keygate/internal/keys"
)

// permissions builds the catalogue; after a mistake one that is good enough to
// check the rest of the file against.
func (d *decoder) permissions(v value) *keys.Catalogue {
	var own []keys.Permission
	implied := make(map[string][]value)
	places := make(map[string]value)
	if v.node != nil {
		entries, _ := d.mapping(v)
		for _, e := range entries {
			p, implies := d.permission(e)
			own = append(own, p)
			implied[p.Name], places[p.Name] = implies, e.key
		}
	}
	for {
		catalogue, err := keys.NewCatalogue(own)
		if err == nil {
			return catalogue
		}
		known := catalogued(own)
		for _, err := range unjoined(err) {
			wrong, ok := errors.AsType[*keys.PermissionError](err)
			if !ok || places[wrong.Name].node == nil {
				d.fail(v, "%s", err)
				own = nil
				continue
			}
			at, hint := places[wrong.Name], ""
			if wrong.Implies >= 0 {
				at = implied[wrong.Name][wrong.Implies]
				hint = d.likelyGrant(at.node.Value, known)
			}
			d.fail(at, "%s%s", wrong.Problem, hint)
			own = withoutMistake(own, wrong)
		}
	}
}

// catalogued lists the names that a catalogue of these entries has.
func catalogued(own []keys.Permission) (names []string) {
	for _, p := range own {
		names = append(names, p.Name)
	}
	if builtin, err := keys.NewCatalogue(nil); err == nil {
		names = append(names, namesOf(builtin)...)
	}
	return names
}

func namesOf(c *keys.Catalogue) []string {
	names := make([]string, len(c.Entries()))
	for i, p := range c.Entries() {
		names[i] = p.Name
	}
	return names
}

// withoutMistake drops what is wrong: an entry's name, or what it implies.
func withoutMistake(own []keys.Permission, wrong *keys.PermissionError) []keys.Permission {
	i := slices.IndexFunc(own, func(p keys.Permission) bool { return p.Name == wrong.Name })
	switch {
	case i < 0:
	case wrong.Implies < 0:
		return slices.Delete(own, i, i+1)
	default:
		own[i].Implies = nil
	}
	return own
}

// unjoined lists what errors.Join put together.
func unjoined(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

const (
	groupAdmin     = "Admin" // its entries are administrative unless they say otherwise
	maxTitle       = 100
	maxDescription = 500
)

// permission reads one entry of the catalogue and the places of what it implies.
func (d *decoder) permission(e entry) (p keys.Permission, implies []value) {
	p.Name = e.name
	fields, ok := d.fields(e.value, permissionForm)
	if !ok {
		return p, nil
	}
	p.Group = d.label(fields["group"], maxTitle)
	p.Title = d.label(fields["title"], maxTitle)
	p.Description = d.label(fields["description"], maxDescription)
	p.Administrative = p.Group == groupAdmin
	if v, ok := fields["administrative"]; ok {
		p.Administrative, _ = d.boolean(v)
	}
	if v, ok := fields["implies"]; ok {
		p.Implies, implies = d.names(v)
	}
	return p, implies
}

// label reads optional text that people are shown on one line.
func (d *decoder) label(v value, most int) string {
	if v.node == nil {
		return ""
	}
	s, ok := d.text(v)
	switch n := len([]rune(s)); {
	case !ok:
	case n > most:
		d.fail(v, "has %d characters; at most %d are allowed", n, most)
	case strings.ContainsFunc(s, unicode.IsControl) || strings.ContainsAny(s, "\u2028\u2029"):
		d.fail(v, "holds a line break or another control character; one line of text is allowed")
	}
	return s
}

// names reads a list of at least one text, each once.
func (d *decoder) names(v value) (names []string, places []value) {
	values, ok := d.list(v)
	if ok && len(values) == 0 {
		d.fail(v, "is an empty list: name at least one, or leave it out")
	}
	for _, item := range values {
		name, ok := d.text(item)
		switch {
		case !ok:
		case slices.Contains(names, name):
			d.fail(item, "%s is named twice", quoted(name))
		default:
			names, places = append(names, name), append(places, item)
		}
	}
	return names, places
}

// roles adds the roles of the file to the built-in one.
func (d *decoder) roles(v value, policy *keys.Policy) map[string][]string {
	roles := keys.BuiltinRoles()
	entries := d.named(v)
	for _, e := range entries {
		roles[e.name] = nil // those that follow are known too
	}
	for _, e := range entries {
		grants, places := d.names(e.value)
		for i, grant := range grants {
			err := policy.CheckRole(grant)
			if _, isRole := roles[grant]; err != nil && isRole {
				d.fail(places[i], "names the role %s; a role holds permissions, write them out", quoted(grant))
			} else if err != nil {
				d.failGrant(places[i], grant, err, policy.Catalogue)
			}
		}
		roles[e.name] = grants
	}
	return roles
}

// failGrant reports a permission that the catalogue does not know. More are
// names that would do in its place.
func (d *decoder) failGrant(at value, grant string, err error, catalogue *keys.Catalogue, more ...string) {
	if grant == keys.PermissionOperator {
		d.fail(at, "%s", err)
		return
	}
	d.fail(at, "names %s%s", err, d.likelyGrant(grant, append(namesOf(catalogue), more...)))
}

// likelyGrant suggests a permission, or where there is a wildcard another one.
func (d *decoder) likelyGrant(grant string, known []string) string {
	if len(d.problems) > maxProblems || slices.Contains(known, grant) {
		return "" // nobody reads it, or something else is wrong with it
	}
	if strings.Contains(grant, "*") {
		known = wildcards(known)
	}
	return d.didYouMean(grant, known)
}

// wildcards lists those that match some of the names. A permission of keygate's
// own is matched by none of them.
func wildcards(names []string) (out []string) {
	for _, name := range names {
		resource, action, found := strings.Cut(name, ":")
		if found && resource != "keygate" {
			out = append(out, resource+":*", "*:"+action)
		}
	}
	return out
}
