package config

import (
	"slices"
	"strings"
)

// form is which fields a mapping may have, in the order in which people are told
// of them. The decoder, the schema and the reference read the same tables, which
// are in forms.go.
type form []field

// field is one field of a mapping.
type field struct {
	name string
	// required fields must be there; missing says how to write one that is not.
	required bool
	missing  string
	support  support
	// title and doc are for people, in a schema and in the reference.
	title, doc string
	// standard is what holds where the field is left out, absent the words for it
	// where that is no value.
	standard, absent string
	shape            *shape
}

// support says whether a field works, or is reserved for a feature that is yet to
// come: then using it is an error, so that no route goes without what its file
// asks for.
type support uint8

const (
	offered support = iota
	refused
)

// reserved are fields of which only the name is taken.
func reserved(s support, names ...string) form {
	f := make(form, len(names))
	for i, name := range names {
		f[i] = field{name: name, support: s}
	}
	return f
}

// of finds a field by name.
func (f form) of(name string) (field, bool) {
	i := slices.IndexFunc(f, func(of field) bool { return of.name == name })
	if i < 0 {
		return field{}, false
	}
	return f[i], true
}

// names lists the fields with one of these kinds of support.
func (f form) names(of ...support) (names []string) {
	for _, field := range f {
		if slices.Contains(of, field.support) {
			names = append(names, field.name)
		}
	}
	return names
}

// fields returns the fields of a mapping by name, and reports those that the
// form does not have.
func (d *decoder) fields(v value, f form) (map[string]value, bool) {
	entries, ok := d.mapping(v)
	if !ok {
		return nil, false
	}
	fields, there := make(map[string]value, len(entries)), make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.name] = true
		switch of, known := f.of(e.name); {
		case !known:
			d.failUnknown(e, f)
		case of.support == refused:
			d.unsupported(e.key)
		case isNull(e.value.node):
			d.fail(e.value, "is empty: give it a value or leave it out")
		default:
			fields[e.name] = e.value
		}
	}
	for _, of := range f {
		if of.required && !there[of.name] {
			d.fail(value{path: v.child(of.name, v.at).path, at: v.at}, "is missing%s", of.missing)
		}
	}
	return fields, true
}

func (d *decoder) failUnknown(e entry, f form) {
	hint := d.didYouMean(e.name, f.names(offered, refused))
	if hint == "" {
		hint = "; allowed: " + strings.Join(f.names(offered), ", ")
	}
	d.fail(e.key, "is an unknown field%s", hint)
}

// unsupported refuses a correct value whose feature is yet to come, rather than
// let a route go without what was asked for.
func (d *decoder) unsupported(v value) { d.fail(v, "is not supported yet") }
