package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Schema is the JSON Schema (draft 2020-12) of a policy file, with which editors
// help to write one. It refuses unknown fields, wrong types and what must be
// there but is not; references and conflicts only LoadPolicy can judge.
func Schema() ([]byte, error) {
	s := object("a policy", policyForm)
	s.Dialect = "https://json-schema.org/draft/2020-12/schema"
	s.Title, s.Description = "keygate policy", "What may be called through keygate, by whom, and how often."
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(s)
	return b.Bytes(), err
}

// PolicyReference is the Markdown of docs/configuration.md that lists the fields
// of a policy.
func PolicyReference() string {
	var b strings.Builder
	b.WriteString("| Field | Form | If left out | Meaning |\n|---|---|---|---|\n")
	var notYet []string
	describe(&b, "", policyForm, &notYet)
	b.WriteString("\n#### Not supported yet\n\n")
	b.WriteString("These fields are reserved, and using one is an error, so that no route goes without something that its file asks for: ")
	b.WriteString(strings.Join(notYet, ", ") + ".\n")
	return b.String()
}

// describe adds a row for each field, and for those of the mappings inside it.
func describe(b *strings.Builder, path string, f form, notYet *[]string) {
	for _, of := range f {
		place := path + of.name
		if of.support != offered {
			*notYet = append(*notYet, "`"+place+"`")
			continue
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", place, of.shape.words, of.ifLeftOut(), of.doc)
		if of.shape.fields != nil {
			describe(b, place+of.shape.inside, of.shape.fields, notYet)
		}
	}
}

func (of field) ifLeftOut() string {
	switch {
	case of.required:
		return "required"
	case of.standard != "":
		return "`" + of.standard + "`"
	case of.absent != "":
		return of.absent
	}
	return "–"
}
