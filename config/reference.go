package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"strings"

	"keygate/proxy/route"
)

// Setting is one variable and what it comes to.
type Setting struct {
	Variable string
	// Value is the effective one; secrets are "(set)", what is not set is empty.
	Value string
	// Default says that the value does not come from the environment.
	Default bool
	Allowed string
	Doc     string
}

// Describe lists the effective configuration in the order of the reference.
func (c Config) Describe() []Setting {
	v := reflect.ValueOf(c)
	var out []Setting
	for _, s := range settingsOf(v.Type()) {
		out = append(out, Setting{s.name, shown(s.name, v.FieldByName(s.field).Interface()), !c.set[s.name], s.allowed, s.doc})
	}
	return out
}

// shown is a value as it would be written in the environment.
func shown(name string, value any) string {
	switch v := value.(type) {
	case *url.URL:
		if v == nil {
			return ""
		}
		return v.Redacted()
	case []netip.Prefix:
		parts := make([]string, len(v))
		for i, p := range v {
			parts[i] = p.String()
		}
		return strings.Join(parts, ",")
	case route.Budget:
		if v == (route.Budget{}) {
			return off
		}
	case int:
		if v == 0 && name == "PORT" {
			return ""
		}
	case string:
		if v != "" && name == "KEYGATE_POLICY" {
			return fmt.Sprintf("(%d bytes)", len(v))
		}
	}
	return fmt.Sprint(value)
}

// Reference is the Markdown of docs/configuration.md that lists the variables.
func Reference() string {
	var b strings.Builder
	table := func(t reflect.Type) {
		b.WriteString("| Variable | Default | Allowed | Meaning |\n|---|---|---|---|\n")
		for _, s := range settingsOf(t) {
			standard := "–"
			if s.standard != "" {
				standard = "`" + s.standard + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, standard, s.allowed, s.doc)
		}
	}
	b.WriteString("### `keygate serve`\n\n")
	table(reflect.TypeFor[Config]())
	b.WriteString("\n### Commands that use the management API\n\n")
	table(reflect.TypeFor[Client]())
	return b.String()
}
