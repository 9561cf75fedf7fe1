package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// format is the value of -o.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }

func (f *format) Set(s string) error {
	switch format(s) {
	case formatTable, formatJSON, formatYAML:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("allowed are table, json and yaml")
}

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command) *format {
	f := formatTable
	cmd.Flags().VarP(&f, "output", "o", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that is not there
	return &f
}

// column is one of a table: its title, in capitals where it heads one, and what
// it shows of a record.
type column[T any] struct {
	title string
	value func(T) string
}

// printList shows records as rows.
func printList[T any](a *app, f format, records []T, columns []column[T]) error {
	if f != formatTable {
		return a.printData(f, records)
	}
	w := a.tabs()
	for i, c := range columns {
		fmt.Fprint(w, separator(i), strings.ToUpper(c.title))
	}
	fmt.Fprintln(w)
	for _, r := range records {
		for i, c := range columns {
			fmt.Fprint(w, separator(i), cell(c.value(r)))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// printOne shows one record, a line for each field that is set.
func printOne[T any](a *app, f format, record T, columns []column[T]) error {
	if f != formatTable {
		return a.printData(f, record)
	}
	w := a.tabs()
	for _, c := range columns {
		if v := c.value(record); v != "" {
			fmt.Fprintf(w, "%s\t%s\n", c.title, cell(v))
		}
	}
	return w.Flush()
}

func (a *app) tabs() *tabwriter.Writer { return tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0) }

func separator(i int) string {
	if i == 0 {
		return ""
	}
	return "\t"
}

func cell(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

func (a *app) printData(f format, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	out := b.String()
	if f == formatYAML {
		var err error
		if out, err = toYAML(b.Bytes()); err != nil {
			return err
		}
	}
	_, err := io.WriteString(a.stdout, escapeUnprintable(out))
	return err
}

// toYAML turns JSON, which is YAML, into the block style that people read. The
// names are those of the JSON, in its order.
func toYAML(data []byte) (string, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		return "", err
	}
	restyle(&n)
	out, err := yaml.Dump(&n, yaml.WithIndent(2), yaml.WithLineWidth(-1))
	return string(out), err
}

func restyle(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		n.Style = yaml.DoubleQuotedStyle // where escapes are possible
	}
	for _, c := range n.Content {
		restyle(c)
	}
}

// escapeUnprintable escapes what could steer a terminal. Such characters stand
// only in double quotes, in JSON and in our YAML alike.
func escapeUnprintable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// printable escapes control characters, line breaks and what changes the
// direction of text, so that data from elsewhere cannot pass for ours.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

func quote(s string) string { return `"` + printable(s) + `"` }

// brief writes a duration without units that are zero: 1m and not 1m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
