package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// list returns the values of a list.
func (d *decoder) list(v value) ([]value, bool) {
	if v.node.Kind != yaml.SequenceNode || v.node.Tag != "!!seq" {
		d.wrongType(v, "a list")
		return nil, false
	}
	if n := len(v.node.Content); n > maxItems {
		d.fail(v, "has %d entries; at most %d are allowed", n, maxItems)
		return nil, false
	}
	values := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		values[i] = resolve(fmt.Sprintf("%s[%d]", v.path, i), n)
	}
	return values, true
}

// text returns a string that is not empty.
func (d *decoder) text(v value) (string, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!str" {
		d.wrongType(v, "text")
		return "", false
	}
	if strings.TrimSpace(v.node.Value) == "" {
		d.fail(v, "is empty")
		return "", false
	}
	return v.node.Value, true
}

// integer returns a number that is written in the one way that all versions of
// YAML read alike: 010 is 8 in some of them.
func (d *decoder) integer(v value) (int64, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!int" {
		d.wrongType(v, "a whole number")
		return 0, false
	}
	n, err := strconv.ParseInt(v.node.Value, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != v.node.Value {
		d.fail(v, "is %s; allowed are whole numbers in plain decimal digits", quoted(v.node.Value))
		return 0, false
	}
	return n, true
}

func (d *decoder) boolean(v value) (bool, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!bool" {
		d.wrongType(v, "true or false")
		return false, false
	}
	b, err := strconv.ParseBool(strings.ToLower(v.node.Value))
	if err != nil {
		d.wrongType(v, "true or false")
	}
	return b, err == nil
}

func (d *decoder) duration(v value) (time.Duration, bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!int" {
		d.fail(v, "is %s, which has no unit: write it as in 30s, 1m or 24h", quoted(v.node.Value))
		return 0, false
	}
	s, ok := d.text(v)
	if !ok {
		return 0, false
	}
	span, err := parseDuration(s)
	if err != nil {
		d.fail(v, "%s %s", quoted(s), err)
	}
	return span, err == nil
}

// between wants a duration within bounds.
func (d *decoder) between(v value, least, most time.Duration) time.Duration {
	span, ok := d.duration(v)
	if ok && (span < least || span > most) {
		d.fail(v, "is %s; allowed are %s to %s", span, least, most)
	}
	return span
}

func (d *decoder) wrongType(v value, want string) {
	if isNull(v.node) {
		d.fail(v, "is empty; it must be %s", want)
		return
	}
	hint := ""
	if want == "text" && v.node.Kind == yaml.ScalarNode {
		hint = "; put quotes around it"
	}
	d.fail(v, "must be %s, not %s%s", want, kindOf(v.node), hint)
}

// kindOf says what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!str":
		return "the text " + quoted(n.Value)
	case "!!int", "!!float":
		return "the number " + quoted(n.Value)
	case "!!bool":
		return quoted(n.Value)
	}
	return "the value " + quoted(n.Value) + " of type " + quoted(n.Tag)
}
