package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	// maxPolicy bounds a policy in bytes.
	maxPolicy = 4 << 20
	// maxAliased bounds the values that aliases add to those that are written
	// out: a few lines of nested aliases can stand for billions.
	maxAliased = 100_000
	// maxEntries bounds one mapping and maxItems one list: the time to look for
	// conflicts and the size of permission sets grow with their squares.
	maxEntries = 2000
	maxItems   = 5000
	// maxProblems bounds what is reported about one policy.
	maxProblems = 500
)

// decoder reads the nodes of one policy and collects what is wrong.
type decoder struct {
	file     string
	problems []Problem
	files    []File // that the policy names
}

// value is a node and where it stands.
type value struct {
	path string
	at   *yaml.Node // as it is written: an alias stands for node
	node *yaml.Node
}

// err returns the problems in the order of the file.
func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(d.problems) - maxProblems; more > 0 {
		d.problems = d.problems[:maxProblems+1]
		last := &d.problems[maxProblems]
		last.Subject, last.Message = "", fmt.Sprintf("and %d more problems from here on", more)
	}
	return &Error{Problems: d.problems, Files: d.files}
}

func (d *decoder) failAt(line, column int, subject, message string) {
	// Where the parser knows no place there is still the file's beginning.
	d.problems = append(d.problems, Problem{d.file, max(1, line), max(1, column), subject, message})
}

// fail reports a value; the message goes on from its place.
func (d *decoder) fail(v value, format string, args ...any) {
	d.failAt(v.at.Line, v.at.Column, v.path, fmt.Sprintf(format, args...))
}

// parse returns the root of the only document.
func (d *decoder) parse(data []byte) (value, bool) {
	if len(data) > maxPolicy {
		d.failAt(1, 1, "", fmt.Sprintf("the policy has %d bytes; at most 4 MiB are allowed", len(data)))
		return value{}, false
	}
	if line, column, problem := checkText(data); problem != "" {
		d.failAt(line, column, "", problem)
		return value{}, false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.failAt(1, 1, "", err.Error())
		return value{}, false
	}
	var document, second yaml.Node
	switch err := loader.Load(&document); {
	case errors.Is(err, io.EOF) || err == nil && (len(document.Content) == 0 || isNull(document.Content[0])):
		d.failAt(1, 1, "", "the policy is empty; it starts with version: 1")
		return value{}, false
	case err != nil:
		d.failSyntax(err)
		return value{}, false
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.failAt(second.Line, second.Column, "", "a second YAML document begins here; a policy is one document")
		return value{}, false
	case !errors.Is(err, io.EOF):
		d.failSyntax(err)
		return value{}, false
	}
	if !d.checkAliases(document.Content[0]) {
		return value{}, false
	}
	return resolve("", document.Content[0]), true
}

func (d *decoder) failSyntax(err error) {
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		d.failAt(e.Mark.Line, e.Mark.Column, "", "not valid YAML: "+e.Message)
		return
	}
	d.failAt(1, 1, "", "not valid YAML: "+err.Error())
}

// checkText finds what the YAML reader refuses without saying where.
func checkText(data []byte) (line, column int, problem string) {
	line, column = 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return line, column, "the policy is not UTF-8"
		case r == '\n':
			line, column = line+1, 0
		case r == '\t' || r == '\r' || r == '\u0085':
		case r == '\ufeff' && i == 0:
			column = 0
		case unicode.IsControl(r) || r == '\ufeff':
			return line, column, fmt.Sprintf("the character U+%04X is not allowed", r)
		}
		column++
		i += size
	}
	return 0, 0, ""
}

// checkAliases refuses aliases that stand for more than maxAliased values, or
// for something that they are part of.
func (d *decoder) checkAliases(root *yaml.Node) bool {
	sizes := make(map[*yaml.Node]int) // 0: being counted
	ok := true
	var size func(n *yaml.Node) int
	size = func(n *yaml.Node) int {
		if known, seen := sizes[n]; seen {
			if known == 0 && ok {
				ok = false
				d.failAt(n.Line, n.Column, "", fmt.Sprintf("the anchor %q holds an alias of itself", n.Anchor))
			}
			return known
		}
		sizes[n] = 0
		total := 1
		if n.Kind == yaml.AliasNode {
			total = size(n.Alias)
		}
		for _, c := range n.Content {
			total = min(total+size(c), maxPolicy+maxAliased) // no overflow, and more than any policy has
		}
		sizes[n] = total
		return total
	}
	expanded := size(root)
	if ok && expanded > len(sizes)+maxAliased {
		ok = false
		d.failAt(root.Line, root.Column, "", fmt.Sprintf("aliases stand for more than %d values", maxAliased))
	}
	return ok
}

// resolve follows an alias; checkAliases saw that it ends.
func resolve(path string, at *yaml.Node) value {
	node := at
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return value{path, at, node}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// entry is one key of a mapping with its value.
type entry struct {
	name  string
	key   value
	value value
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func (v value) child(name string, at *yaml.Node) value {
	switch {
	case !plainName.MatchString(name):
		return resolve(fmt.Sprintf("%s[%s]", v.path, quoted(name)), at)
	case v.path == "":
		return resolve(name, at)
	}
	return resolve(v.path+"."+name, at)
}

// mapping lists the entries of a mapping in the order of the file. Entries
// whose key is no good, and those without a value, are reported and left out.
func (d *decoder) mapping(v value) ([]entry, bool) {
	if v.node.Kind != yaml.MappingNode || v.node.Tag != "!!map" {
		d.wrongType(v, "a mapping of names to values")
		return nil, false
	}
	if n := len(v.node.Content) / 2; n > maxEntries {
		d.fail(v, "has %d entries; at most %d are allowed", n, maxEntries)
		return nil, false
	}
	var entries []entry
	first := make(map[string]*yaml.Node)
	merged := false
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		at := v.node.Content[i]
		key := resolve(v.path, at)
		switch {
		case key.node.Tag == "!!merge":
			d.fail(key, "merge keys (<<) are not allowed: write the fields out, or use an alias for the whole value")
			merged = true
			continue
		case key.node.Kind != yaml.ScalarNode || key.node.Tag != "!!str":
			d.fail(key, "a name must be text, not %s; put quotes around it", kindOf(key.node))
			continue
		case key.node.Value == "":
			d.fail(key, "holds an empty name")
			continue
		}
		name := key.node.Value
		key = v.child(name, at)
		if before := first[name]; before != nil {
			d.fail(key, "is there twice; the first is in line %d", before.Line)
			continue
		}
		first[name] = at
		entries = append(entries, entry{name, key, v.child(name, v.node.Content[i+1])})
	}
	return entries, !merged // what is merged in may be what would be missing
}

// didYouMean suggests a known name while anybody is going to read it.
func (d *decoder) didYouMean(name string, known []string) string {
	if len(d.problems) > maxProblems {
		return ""
	}
	return didYouMean(name, known)
}
