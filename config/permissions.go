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
		for _, err := range unjoined(err) {
			wrong, ok := errors.AsType[*keys.PermissionError](err)
			if !ok || places[wrong.Name].node == nil {
				d.fail(v, "%s", err)
				own = nil
				continue
			}
			at := places[wrong.Name]
			if wrong.Implies >= 0 {
				at = implied[wrong.Name][wrong.Implies]
			}
			d.fail(at, "%s", wrong.Problem)
			own = withoutMistake(own, wrong)
		}
	}
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
	fields, ok := d.fields(e.value, form{optional: []string{"group", "title", "description", "administrative", "implies"}})
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
	for _, e := range d.named(v) {
		grants, places := d.names(e.value)
		for i, grant := range grants {
			if err := policy.CheckRole(grant); err != nil {
				d.failGrant(places[i], grant, err, policy.Catalogue)
			}
		}
		roles[e.name] = grants
	}
	return roles
}

// failGrant reports a permission that the catalogue does not know.
func (d *decoder) failGrant(at value, grant string, err error, catalogue *keys.Catalogue) {
	if grant == keys.PermissionOperator {
		d.fail(at, "%s", err)
		return
	}
	known := make([]string, 0, len(catalogue.Entries()))
	for _, p := range catalogue.Entries() {
		known = append(known, p.Name)
	}
	d.fail(at, "names %s%s", err, d.didYouMean(grant, known))
}
