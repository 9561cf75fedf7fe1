package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

func (a *app) keysCommand() *cobra.Command {
	return group("keys", "Create and look after API keys",
		a.keysCreate(), a.keysList(), a.keysGet(), a.keysEdit(), a.keysRotate(), a.keysPause(), a.keysResume(), a.keysRevoke(), a.keysDelete(),
		a.keysTest(), a.keysImport(), a.keysExport(), a.keysGenerate())
}

func keyColumns(n *names) []column[admin.Key] {
	return []column[admin.Key]{
		{"ID", func(k admin.Key) string { return k.ID }},
		{"Name", func(k admin.Key) string { return k.Name }},
		{"Key", func(k admin.Key) string { return shownSecret(k.Prefix, k.LastFour) }},
		{"Status", func(k admin.Key) string { return k.Status }},
		{"Organization", func(k admin.Key) string { return n.organization(k.Organization) }},
		{"Space", func(k admin.Key) string { return n.space(k.Organization, k.Space) }},
		{"Owner", func(k admin.Key) string { return n.owner(k.Organization, k.Account) }},
		{"Permissions", func(k admin.Key) string { return some(k.Permissions, 3) }},
		{"Expires", expires},
		{"Last used", func(k admin.Key) string { return timestamp(k.LastUsedAt) }},
	}
}

// keyFields show a key with the titles of its permissions.
func keyFields(n *names) []column[admin.Key] {
	return []column[admin.Key]{
		{"ID", func(k admin.Key) string { return k.ID }},
		{"Name", func(k admin.Key) string { return k.Name }},
		{"Description", func(k admin.Key) string { return k.Description }},
		{"Key", func(k admin.Key) string { return shownSecret(k.Prefix, k.LastFour) + imported(k) }},
		{"Former key", formerSecret},
		{"Status", func(k admin.Key) string { return k.Status }},
		{"Organization", func(k admin.Key) string { return n.organization(k.Organization) }},
		{"Space", func(k admin.Key) string { return n.space(k.Organization, k.Space) }},
		{"Account", func(k admin.Key) string { return both(n.account(k.Account), k.Account) }},
		{"Permissions", func(k admin.Key) string { return titled(k.Permissions, k.Titles) }},
		{"Allowed addresses", func(k admin.Key) string { return strings.Join(k.AllowedCIDRs, ", ") }},
		{"Plan", func(k admin.Key) string { return k.Plan }},
		{"Negotiated limits", func(k admin.Key) string { return shownLimits(k.Overrides) }},
		{"Created", func(k admin.Key) string { return timestamp(k.CreatedAt) }},
		{"Updated", func(k admin.Key) string { return timestamp(k.UpdatedAt) }},
		{"Expires", expires},
		{"Paused", func(k admin.Key) string { return timestamp(k.PausedAt) }},
		{"Revoked", func(k admin.Key) string { return timestamp(k.RevokedAt) }},
		{"Rotated", func(k admin.Key) string { return timestamp(k.RotatedAt) }},
		{"Last used", func(k admin.Key) string { return timestamp(k.LastUsedAt) }},
	}
}

func shownSecret(prefix, lastFour string) string {
	if prefix == "" && lastFour == "" {
		return "(not known)"
	}
	if !strings.HasSuffix(prefix, "_") {
		prefix += "_"
	}
	return prefix + "…" + lastFour
}

func imported(k admin.Key) string {
	if k.Imported {
		return " (imported)"
	}
	return ""
}

func formerSecret(k admin.Key) string {
	if k.Former == nil {
		return ""
	}
	f, end := k.Former, formerEnd(k)
	state := "works until"
	switch {
	case !end.After(time.Now()):
		state = "ended"
	case k.Status != string(keys.Active):
		state = "ends"
	}
	out := shownSecret(f.Prefix, f.LastFour) + ", " + state + " " + timestamp(end)
	if !f.LastUsedAt.IsZero() {
		out += ", last used " + timestamp(f.LastUsedAt)
	}
	return out
}

// formerEnd is when the former secret ends: with its overlap, or with the key.
func formerEnd(k admin.Key) time.Time {
	end := k.Former.EndsAt
	for _, t := range []time.Time{k.ExpiresAt, k.RevokedAt} {
		if !t.IsZero() && t.Before(end) {
			end = t
		}
	}
	return end
}

func expires(k admin.Key) string {
	if k.ExpiresAt.IsZero() {
		return "never"
	}
	return timestamp(k.ExpiresAt)
}

// some are the first of a list, and how many there are beside them.
func some(list []string, most int) string {
	if len(list) <= most+1 { // a number would take as much room as the last one
		return strings.Join(list, ",")
	}
	return fmt.Sprintf("%s +%d", strings.Join(list[:most], ","), len(list)-most)
}

// titled lists permissions with their titles, where they have one that says more.
func titled(permissions []string, titles map[string]string) string {
	out := make([]string, len(permissions))
	for i, p := range permissions {
		if out[i] = p; titles[p] != "" {
			out[i] += " (" + titles[p] + ")"
		}
	}
	return strings.Join(out, ", ")
}

// printKey shows one key.
func (a *app) printKey(cmd *cobra.Command, c *admin.Client, f format, k admin.Key) error {
	return printOne(a, f, k, keyFields(newNames(cmd.Context(), c)))
}

func (a *app) keysList() *cobra.Command {
	var o admin.ListOptions
	var most int
	cmd := &cobra.Command{
		Use: "list", Short: "List keys, newest first",
		Long: `Lists keys, newest first; with --unused-days the longest unused first, with --expires-days those first that expire soonest.
All filters that are given must hold.`,
		Example: "  keygate keys list --organization acme --status active\n  keygate keys list --unused-days 90\n  keygate keys list -o json", Args: arguments(),
	}
	f := cmd.Flags()
	a.organizationFlag(cmd, &o.Organization, "only keys of this organization, by id or slug")
	f.StringVar(&o.Space, "space", "", "only keys restricted to this space of the organization, by id or slug")
	f.StringVar(&o.Account, "account", "", "only keys that this account owns, by id or, within the organization, name")
	f.StringVar(&o.Name, "name", "", "only keys of exactly this name")
	f.StringVar(&o.Query, "q", "", "only keys whose name contains this, in any letter case")
	f.StringVar(&o.Status, "status", "", "only keys that are active, paused, expired or revoked")
	f.IntVar(&o.UnusedDays, "unused-days", 0, "only keys that nobody has used for so many days")
	f.IntVar(&o.ExpiresDays, "expires-days", 0, "only keys that will expire within so many days")
	limitFlag(cmd, &most)
	output := outputFlag(cmd)
	a.complete(cmd, "space", spaceNames)
	a.complete(cmd, "status", fixed("active", "paused", "expired", "revoked"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range []string{"unused-days", "expires-days"} {
			if days, _ := cmd.Flags().GetInt(name); cmd.Flags().Changed(name) && days < 1 {
				return &usageError{cmd, "--" + name + " must be 1 or more"}
			}
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		if o.Account, err = accountID(cmd, c, o.Organization, o.Account); err != nil {
			return err
		}
		return listWith(a, cmd, c, *output, o, most, c.ListKeys, keyColumns)
	}
	return cmd
}

func (a *app) keysGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID|NAME", Short: "Show a key", Args: arguments("ID"),
		Example: "  keygate keys get billing\n  keygate keys get key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35 -o yaml",
	}
	output := outputFlag(cmd)
	a.completeArgs(cmd, keyNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		k, err := a.findKey(cmd, c, args[0])
		if err != nil {
			return err
		}
		return a.printKey(cmd, c, *output, k)
	}
	return cmd
}

func (a *app) keysGenerate() *cobra.Command {
	return &cobra.Command{
		Use: "generate", Short: "Print a new well-formed key, without keygate running",
		Long: `Prints a key with the prefix of KEYGATE_KEY_PREFIX. It is unknown to every instance until it is given to one,
such as in KEYGATE_BOOTSTRAP_KEY.`,
		Example: "  export KEYGATE_BOOTSTRAP_KEY=$(keygate keys generate)", Args: arguments(),
		RunE: func(*cobra.Command, []string) error {
			prefix := a.lookup("KEYGATE_KEY_PREFIX")
			if prefix == "" {
				prefix = keys.DefaultPrefix
			}
			f, err := keys.NewFormat(prefix)
			if err != nil {
				return &codeError{exitConfig, "KEYGATE_KEY_PREFIX: " + err.Error()}
			}
			_, err = fmt.Fprintln(a.stdout, f.Generate())
			return err
		},
	}
}
