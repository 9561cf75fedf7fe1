package config

import (
	"fmt"
	"strings"

	"keygate/internal/keys"
	"keygate/proxy/route"
)

// shape is a JSON Schema of one place in a policy (draft 2020-12): what can be
// told of a value without the rest of the file. It never refuses what the decoder
// takes. Its patterns keep to what regular expressions of Go and of ECMAScript
// have in common.
type shape struct {
	Dialect              string            `json:"$schema,omitempty"`
	Title                string            `json:"title,omitempty"`
	Description          string            `json:"description,omitempty"`
	Default              string            `json:"default,omitempty"`
	Type                 string            `json:"type,omitempty"`
	Const                any               `json:"const,omitempty"`
	Enum                 []string          `json:"enum,omitempty"`
	Pattern              string            `json:"pattern,omitempty"`
	MaxLength            int               `json:"maxLength,omitempty"`
	Minimum              *int64            `json:"minimum,omitempty"`
	Maximum              int64             `json:"maximum,omitempty"`
	Items                *shape            `json:"items,omitempty"`
	MinItems             int               `json:"minItems,omitempty"`
	MaxItems             int               `json:"maxItems,omitempty"`
	UniqueItems          bool              `json:"uniqueItems,omitempty"`
	PropertyNames        *shape            `json:"propertyNames,omitempty"`
	MaxProperties        int               `json:"maxProperties,omitempty"`
	Properties           map[string]*shape `json:"properties,omitempty"`
	AdditionalProperties any               `json:"additionalProperties,omitempty"`
	Required             []string          `json:"required,omitempty"`
	AnyOf                []*shape          `json:"anyOf,omitempty"`
	OneOf                []*shape          `json:"oneOf,omitempty"`
	Not                  *shape            `json:"not,omitempty"`
	Examples             []string          `json:"examples,omitempty"`

	words  string // what it is, in the reference
	fields form   // of the mapping, or of the mappings that it holds
	inside string // how a path goes on to those
}

// Parts of patterns.
const (
	rxName     = `[A-Za-z0-9._-]{1,63}` // maxNameLength
	rxSegment  = `[A-Za-z0-9._-]+`
	rxDuration = `[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)` // time.ParseDuration
	rxLine     = "\\x00-\\x1f\\x7f-\\x9f\u2028\u2029"                    // what one line of text cannot hold
)

func text(words, pattern string, examples ...string) *shape {
	return &shape{Type: "string", Pattern: "^(" + pattern + ")$", Examples: examples, words: words}
}

// line is text that people are shown on one line.
func line(most int) *shape {
	s := text(fmt.Sprintf("one line of at most %d characters", most), "["+"^"+rxLine+"]*[^"+rxLine+`\s][^`+rxLine+"]*")
	s.MaxLength = most
	return s
}

func boolean() *shape { return &shape{Type: "boolean", words: "`true` or `false`"} }

func number(least, most int64) *shape {
	return &shape{Type: "integer", Minimum: &least, Maximum: most, words: fmt.Sprintf("%d to %d", least, most)}
}

func oneWordOf(words ...string) *shape {
	return &shape{Type: "string", Enum: words, words: "`" + strings.Join(words, "` or `") + "`"}
}

func duration(words string, examples ...string) *shape { return text(words, rxDuration, examples...) }

// object is a mapping with the fields of a form. Those for later are not offered.
func object(words string, f form) *shape {
	s := &shape{Type: "object", Properties: make(map[string]*shape), AdditionalProperties: false, words: words, fields: f, inside: "."}
	for _, of := range f {
		if of.support != offered {
			continue
		}
		value := *of.shape
		value.Title, value.Description, value.Default = of.title, strings.ReplaceAll(of.doc, "`", ""), of.standard
		s.Properties[of.name] = &value
		if of.required {
			s.Required = append(s.Required, of.name)
		}
	}
	return s
}

// namesTo is a mapping from names to values of one shape.
func namesTo(words string, name, value *shape) *shape {
	return &shape{
		Type: "object", PropertyNames: name, MaxProperties: maxEntries, AdditionalProperties: value,
		words: words, fields: value.fields, inside: ".NAME" + value.inside,
	}
}

func listOf(words string, least, most int, item *shape) *shape {
	return &shape{Type: "array", MinItems: least, MaxItems: most, Items: item, words: words, fields: item.fields, inside: "[]" + item.inside}
}

// eachOnce is a list of at least one text.
func eachOnce(words string, item *shape) *shape { return listOf(words, 1, maxItems, item).unique() }

func (s *shape) unique() *shape {
	s.UniqueItems = true
	return s
}

func eitherOf(words string, shapes ...*shape) *shape { return &shape{AnyOf: shapes, words: words} }

func name() *shape { return text("a name", rxName) }

// permissionName is that of an entry of the catalogue, grantName also a wildcard.
func permissionName() *shape { return bounded(text("a permission", "admin|"+rxSegment+":"+rxSegment)) }

func grantName() *shape {
	return bounded(text("a permission or wildcard", `admin|\*|\*:`+rxSegment+`|`+rxSegment+`:(\*|`+rxSegment+`)`))
}

func bounded(s *shape) *shape {
	s.MaxLength = 100 // as the catalogue has it
	return s
}

// roleGrant is what can be given away: not the whole instance.
func roleGrant() *shape {
	s := grantName()
	s.Not = &shape{Const: keys.PermissionOperator}
	return s
}

// ownPermission is a name that a policy can give an entry.
func ownPermission() *shape {
	s := permissionName()
	s.Not = &shape{Pattern: "^keygate:"}
	return s
}

func target() *shape {
	return text("a URL", `([Hh][Tt][Tt][Pp][Ss]?|[Hh]2[Cc])://[^/?#@]+(/[^?#]*)?`, "http://127.0.0.1:9001", "h2c://127.0.0.1:9002")
}

func file() *shape { return text("a path of a file", ".*\\S.*", "/etc/keygate/ca.pem") }

func percentage(least int) *shape {
	return text(fmt.Sprintf("`%d%%` to `100%%`", least), `(\d|[1-9]\d|100)%`, "20%")
}

func pathPart(example string) *shape {
	return text("segments of letters, digits, `-`, `.`, `_` and `~`, each after a `/`", `(/[A-Za-z0-9._~-]+)+`, example)
}

func headerName() *shape {
	return text("the name of a header", "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", "X-Tenant") // maxBinding
}

func headerValue() *shape {
	s := text("printable ASCII", "[!-~]([ -~]*[!-~])?")
	s.MaxLength = maxValue
	return s
}

func match() *shape {
	methods := "(" + strings.Join(route.Methods(), "|") + ")"
	return text("`[METHOD[,METHOD] ][host]/path`", "("+methods+"(,"+methods+`)* )?[^ /]*/[^ \t?#;\\]*`,
		"GET /v1/orders/{id}", "POST,PUT /v1/orders", "api.example.com/{path...}")
}

func binding() *shape {
	return text("`path:NAME`, `header:NAME` or `query:NAME`",
		"path:[A-Za-z_][A-Za-z0-9_]{0,99}|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}|query:[!\"$'-*,-:<>-~]{1,100}", // maxBinding
		"path:org", "header:X-Organization", "query:org")
}

// forKeys are the fields of a route that a public one cannot have.
var forKeys = []string{"permission", "organization", "space", "cost"}

// accessible is a route that says who may call it: keys, or everybody.
func accessible(s *shape) *shape {
	unfit := &shape{}
	for _, name := range forKeys {
		unfit.AnyOf = append(unfit.AnyOf, &shape{Required: []string{name}})
	}
	s.OneOf = []*shape{
		{Required: []string{"permission"}, Not: &shape{Required: []string{"public"}}},
		{Required: []string{"public"}, Not: unfit},
	}
	return s
}
