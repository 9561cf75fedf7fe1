package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

// importedLine says what became of one line of an import.
type importedLine struct {
	Line   int    `json:"line"`
	Name   string `json:"name,omitempty"`
	ID     string `json:"id,omitempty"`
	Detail string `json:"detail,omitempty"`
}

func (a *app) keysImport() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Import keys by their SHA-256, so that their strings stay", Args: arguments("FILE"),
		Long: `Reads keys from FILE, or from stdin for -: a JSON object on each line, as 'keygate keys export' writes them. Only name and hash
are needed: {"name": "billing", "hash": "<SHA-256 of the whole key in hex or base64>", "organization": "acme"}. Other fields are
those of a key, and prefix, last_four, status (active, paused, revoked, expired), paused, lifetime and created_at. An account is
given by id, or by a name that only one of the organization's accounts has.
Each line stands for itself and the report says what became of it. A key that is there already is refused, so that an import
can be run again. Keys that do not look like this instance's need --form, or the gate does not look for them: an export does not hold the forms
that were declared where it was made. Operators only.
Exit code 0: all lines were imported; 4: some were refused.`,
		Example: `  keygate keys import keys.jsonl
  printf '{"name":"billing","hash":"%s"}\n' "$(printf %s "$OLD_KEY" | sha256sum | cut -d' ' -f1)" | keygate keys import - --form sk_live_:32-64`,
	}
	cmd.Flags().StringVar(&form, "form", "", "what the keys look like, as PREFIX:LENGTH or PREFIX:LEAST-GREATEST (lengths of the whole key)")
	noCompletion(cmd, "form")
	waitFlag(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		declared, err := parseForm(cmd, form)
		if err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		in := a.stdin
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		progress := a.progress()
		report, err := importLines(cmd.Context(), c, declared, in, func(done int) { progress.report(fmt.Sprintf("%d lines", done), 0, 0) })
		progress.clear()
		return a.reportImport(*output, report, err)
	}
	return cmd
}

// reportImport prints what became of the lines that came so far, also where the
// import then failed.
func (a *app) reportImport(f format, report []importedLine, failure error) error {
	failed := 0
	for _, l := range report {
		if l.ID == "" {
			failed++
		}
	}
	if failure == nil || len(report) > 0 {
		if err := printList(a, f, report, []column[importedLine]{
			{"Line", func(l importedLine) string { return strconv.Itoa(l.Line) }},
			{"Name", func(l importedLine) string { return l.Name }},
			{"ID", func(l importedLine) string { return l.ID }},
			{"Result", func(l importedLine) string {
				if l.ID != "" {
					return "imported"
				}
				return l.Detail
			}},
		}); err != nil {
			return err
		}
		a.say("%s imported, %d refused.", counted(int64(len(report)-failed), "key"), failed)
	}
	switch {
	case failure != nil && len(report) > 0:
		a.say("keygate: the import stopped after line %d; running it again imports the rest.", report[len(report)-1].Line)
		return failure
	case failure != nil:
		return failure
	}
	return allowed(failed == 0)
}

// importDetail says what was wrong, with the fields where it was these.
func importDetail(item admin.ImportItem) string {
	if len(item.Errors) == 0 {
		return item.Detail
	}
	parts := make([]string, len(item.Errors))
	for i, e := range item.Errors {
		parts[i] = e.Field + ": " + e.Detail
	}
	return strings.Join(parts, "; ")
}

// parseForm reads PREFIX:LENGTH or PREFIX:LEAST-GREATEST; nil for "".
func parseForm(cmd *cobra.Command, s string) (*admin.Form, error) {
	if s == "" {
		return nil, nil
	}
	wrong := &usageError{cmd, "--form: " + quote(s) + " is not PREFIX:LENGTH or PREFIX:LEAST-GREATEST, such as sk_live_:32-64"}
	colon := strings.LastIndexByte(s, ':')
	if colon < 1 {
		return nil, wrong
	}
	least, greatest, ranged := strings.Cut(s[colon+1:], "-")
	if !ranged {
		greatest = least
	}
	low, err1 := strconv.Atoi(least)
	high, err2 := strconv.Atoi(greatest)
	if err1 != nil || err2 != nil || low > high {
		return nil, wrong
	}
	return &admin.Form{Prefix: s[:colon], Min: low, Max: high}, nil
}

func (a *app) keysExport() *cobra.Command {
	var o admin.ListOptions
	cmd := &cobra.Command{
		Use: "export", Short: "Write keys with their hashes, as 'keys import' reads them", Args: arguments(),
		Long: `Writes a JSON object on each line for each key, newest first, with the SHA-256 of its present secret; secrets themselves are
stored nowhere. Last use, a former secret in its overlap and history are not part of it.
For another instance organization and space are named by their slugs, an account by its name, or its id where several have the
name or another organization manages it, and the organization's account default is left out: all of them must exist there.
Keys of the instance's operators are left out. Operators only.`,
		Example: "  keygate keys export > keys.jsonl\n  keygate keys export --organization acme > acme.jsonl",
	}
	a.organizationFlag(cmd, &o.Organization, "only keys of this organization, by id or slug")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		out := json.NewEncoder(a.stdout)
		out.SetEscapeHTML(false)
		progress, n, leftOut := a.progress(), 0, 0
		err = admin.Each(cmd.Context(), o, func(ctx context.Context, o admin.ListOptions) (admin.Page[admin.ImportedKey], error) {
			export, err := c.ExportKeys(ctx, o)
			leftOut += export.LeftOut
			return export.Page, err
		}, func(k admin.ImportedKey) error {
			n++
			progress.report(fmt.Sprintf("%d keys", n), 0, 0)
			return out.Encode(k)
		})
		progress.clear()
		if leftOut > 0 {
			a.say("%s of the instance's operators left out: they belong to no organization, and another instance has its own.", counted(int64(leftOut), "key"))
		}
		return err
	}
	return cmd
}
