package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

func auditColumns(n *names) []column[admin.AuditEntry] {
	return []column[admin.AuditEntry]{
		{"At", func(e admin.AuditEntry) string { return timestamp(e.At) }},
		{"Action", func(e admin.AuditEntry) string { return e.Action }},
		{"Target", func(e admin.AuditEntry) string { return auditTarget(n, &e) }},
		{"Changes", func(e admin.AuditEntry) string { return auditChanges(n, &e) }},
		{"Organization", func(e admin.AuditEntry) string { return n.organization(e.Organization) }},
		{"By", func(e admin.AuditEntry) string {
			if strings.HasPrefix(e.Actor, "key_") {
				return n.key(e.Actor)
			}
			return e.Actor
		}},
		{"From", func(e admin.AuditEntry) string { return e.Address }},
	}
}

// changedFields are the names of what an edit changed, sorted; none where
// something is new or gone.
func changedFields(before, after json.RawMessage) []string {
	var b, a map[string]json.RawMessage
	if json.Unmarshal(before, &b) != nil || json.Unmarshal(after, &a) != nil || b == nil || a == nil {
		return nil
	}
	var out []string
	for name := range b {
		if !bytes.Equal(b[name], a[name]) {
			out = append(out, name)
		}
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// auditRecord is what the table shows of a record that is new or gone, or of a key
// that was seen where others can read it.
type auditRecord struct {
	Name, Slug, Digest, Organization, Space, Role, Permission, Plan, Where string
	Permissions                                                            []string
	Grants                                                                 []auditRecord
}

// auditRecordOf reads what a record became, or was where it is gone.
func auditRecordOf(e *admin.AuditEntry) (r auditRecord) {
	data := e.After
	if len(data) == 0 {
		data = e.Before
	}
	_ = json.Unmarshal(data, &r) // what cannot be read is not shown
	return r
}

// auditTarget has the name with the id: of what is gone nothing else tells it.
func auditTarget(n *names, e *admin.AuditEntry) string {
	if strings.HasPrefix(e.Action, "grant.") { // the record is the grant, the target its account
		return both(n.account(e.Target), e.Target)
	}
	r := auditRecordOf(e)
	return both(cmp.Or(r.Slug, r.Name), e.Target)
}

// auditChanges are the fields that an edit changed, or what matters of a record
// that is new or gone.
func auditChanges(n *names, e *admin.AuditEntry) string {
	if len(e.Before) > 0 && len(e.After) > 0 {
		return some(changedFields(e.Before, e.After), 3)
	}
	r := auditRecordOf(e)
	grants := r.Grants
	if r.Role+r.Permission != "" {
		grants = []auditRecord{r}
	}
	var parts []string
	for _, g := range grants {
		switch {
		case g.Space != "":
			parts = append(parts, g.Role+g.Permission+"@"+n.space(g.Organization, g.Space))
		case g.Organization == "":
			parts = append(parts, g.Role+g.Permission+"@the instance")
		default:
			parts = append(parts, g.Role+g.Permission)
		}
	}
	if len(r.Permissions) > 0 {
		parts = append(parts, some(r.Permissions, 3))
	}
	if len(grants) == 0 && r.Space != "" {
		parts = append(parts, "space "+n.space(r.Organization, r.Space))
	}
	if r.Plan != "" {
		parts = append(parts, "plan "+r.Plan)
	}
	if r.Where != "" {
		parts = append(parts, seenWhere(r.Where))
	}
	if r.Digest != "" {
		parts = append(parts, "digest "+r.Digest[:min(12, len(r.Digest))])
	}
	return strings.Join(parts, "; ")
}

// seenWhere says where a key was seen.
func seenWhere(where string) string {
	switch where {
	case "url":
		return "stood in a URL"
	case "plain_http":
		return "came over plain HTTP"
	}
	return where
}

// auditFlags select entries.
type auditFlags struct {
	options      admin.AuditOptions
	since, until string
}

func (f *auditFlags) add(a *app, cmd *cobra.Command) {
	a.organizationFlag(cmd, &f.options.Organization, "only of this organization, by id or slug (default your own; operators see all)")
	flags := cmd.Flags()
	flags.StringVar(&f.options.Target, "target", "", "only what was done to this: a key by id or name, or an organization, space or account by id")
	flags.StringVar(&f.options.Actor, "actor", "", "only what this did: a key by id or name, an account by id, or system")
	flags.StringVar(&f.options.Action, "action", "", "only this, such as key.revoke")
	flags.StringVar(&f.since, "since", "", "only from then on: an instant such as 2031-05-31T08:00:00Z, a date, or 24h or 7d ago")
	flags.StringVar(&f.until, "until", "", "only before then, in the same forms")
	a.complete(cmd, "target", keyNames)
	a.complete(cmd, "actor", keyNames)
	a.complete(cmd, "action", fixed(keys.Actions()...))
	for _, name := range []string{"since", "until"} {
		noCompletion(cmd, name)
	}
}

// read returns the options that the flags say.
func (f *auditFlags) read(cmd *cobra.Command) (admin.AuditOptions, error) {
	o, now := f.options, time.Now()
	var ok bool
	if o.Since, ok = parseInstant(f.since, now); !ok {
		return o, &usageError{cmd, "--since: " + quote(f.since) + " is no instant, date or duration such as 24h or 7d"}
	}
	if o.Until, ok = parseInstant(f.until, now); !ok {
		return o, &usageError{cmd, "--until: " + quote(f.until) + " is no instant, date or duration such as 24h or 7d"}
	}
	return o, nil
}

// resolve finds the ids of keys that were named.
func (f *auditFlags) resolve(a *app, cmd *cobra.Command, c *admin.Client, o *admin.AuditOptions) error {
	for _, ref := range []*string{&o.Target, &o.Actor} {
		if *ref == "" || typedID.MatchString(*ref) || *ref == keys.System.Key || *ref == keys.ActionPolicyLoad || *ref == keys.FormsSetting {
			continue
		}
		k, err := a.findKey(cmd, c, *ref)
		if err != nil {
			return err
		}
		*ref = k.ID
	}
	return nil
}

// typedID is what is taken for an id: what it stood for may be gone.
var typedID = regexp.MustCompile("^(key|org|spc|acc)_[0-9a-f]{32}$")

// parseInstant reads an instant, a date in UTC, or how long ago it is.
func parseInstant(s string, now time.Time) (time.Time, bool) {
	if s == "" {
		return time.Time{}, true
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	ago, ok := parseAge(s)
	return now.Add(-ago), ok && ago >= 0
}

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Read who did what to keys, tenants and policy", a.auditList(), a.auditExport())
}

func (a *app) auditList() *cobra.Command {
	var f auditFlags
	var most int
	cmd := &cobra.Command{
		Use: "list", Short: "List the audit log, newest first", Args: arguments(),
		Long: `Lists the audit log, newest first, with the fields that each change touched; -o json shows them before and after.
Needs keygate:audit. All filters that are given must hold.`,
		Example: "  keygate audit list --limit 20\n  keygate audit list --organization acme --action key.revoke --since 7d -o json",
	}
	f.add(a, cmd)
	limitFlag(cmd, &most)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := f.read(cmd)
		if err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		if err := f.resolve(a, cmd, c, &o); err != nil {
			return err
		}
		list := func(ctx context.Context, page admin.ListOptions) (admin.Page[admin.AuditEntry], error) {
			o.Limit, o.Cursor = page.Limit, page.Cursor
			return c.ListAudit(ctx, o)
		}
		return listWith(a, cmd, c, *output, admin.ListOptions{}, most, list, auditColumns)
	}
	return cmd
}

func (a *app) auditExport() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use: "export", Short: "Write the audit log, a JSON object on each line", Args: arguments(),
		Long: `Writes all entries that pass, newest first, a JSON object on each line. Needs keygate:audit.
Exit code 1: it broke off, and what was written is not the whole.`,
		Example: "  keygate audit export --since 30d > audit.jsonl",
	}
	f.add(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := f.read(cmd)
		if err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		if err := f.resolve(a, cmd, c, &o); err != nil {
			return err
		}
		out := bufio.NewWriter(a.stdout)
		n, err := c.ExportAudit(cmd.Context(), o, out)
		if flushed := out.Flush(); err == nil {
			err = flushed
		}
		if err == nil {
			a.say("Entries: %d.", n)
		}
		return err
	}
	return cmd
}
