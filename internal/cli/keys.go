package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

func (a *app) keysCommand() *cobra.Command {
	return group("keys", "Create and look after API keys",
		a.keysCreate(), a.keysList(), a.keysGet(), a.keysPause(), a.keysResume(), a.keysRevoke(), a.keysDelete(), a.keysGenerate())
}

var keyColumns = []column[admin.Key]{
	{"ID", func(k admin.Key) string { return k.ID }},
	{"Name", func(k admin.Key) string { return k.Name }},
	{"Key", shownKey},
	{"Status", func(k admin.Key) string { return k.Status }},
	{"Organization", func(k admin.Key) string { return k.Organization }},
	{"Permissions", func(k admin.Key) string { return strings.Join(k.Permissions, ",") }},
	{"Expires", expires},
	{"Last used", func(k admin.Key) string { return timestamp(k.LastUsedAt) }},
}

var keyFields = []column[admin.Key]{
	{"ID", func(k admin.Key) string { return k.ID }},
	{"Name", func(k admin.Key) string { return k.Name }},
	{"Description", func(k admin.Key) string { return k.Description }},
	{"Key", shownKey},
	{"Status", func(k admin.Key) string { return k.Status }},
	{"Organization", func(k admin.Key) string { return k.Organization }},
	{"Space", func(k admin.Key) string { return k.Space }},
	{"Account", func(k admin.Key) string { return k.Account }},
	{"Permissions", func(k admin.Key) string { return strings.Join(k.Permissions, ", ") }},
	{"Allowed addresses", func(k admin.Key) string { return strings.Join(k.AllowedCIDRs, ", ") }},
	{"Plan", func(k admin.Key) string { return k.Plan }},
	{"Created", func(k admin.Key) string { return timestamp(k.CreatedAt) }},
	{"Updated", func(k admin.Key) string { return timestamp(k.UpdatedAt) }},
	{"Expires", expires},
	{"Paused", func(k admin.Key) string { return timestamp(k.PausedAt) }},
	{"Revoked", func(k admin.Key) string { return timestamp(k.RevokedAt) }},
	{"Rotated", func(k admin.Key) string { return timestamp(k.RotatedAt) }},
	{"Last used", func(k admin.Key) string { return timestamp(k.LastUsedAt) }},
}

func shownKey(k admin.Key) string { return k.Prefix + "_…" + k.LastFour }

func expires(k admin.Key) string {
	if k.ExpiresAt.IsZero() {
		return "never"
	}
	return timestamp(k.ExpiresAt)
}

func (a *app) keysCreate() *cobra.Command {
	var in admin.NewKey
	cmd := &cobra.Command{
		Use: "create --name NAME", Short: "Create a key and show its secret, once",
		Long: `Creates a key. Its secret is printed once and cannot be read again.

A key belongs to the organization default unless --organization or --account says otherwise.
It is owned by the organization's account default, or by the one that --account names, and never does more than its owner may.`,
		Example: `  keygate keys create --name billing --permissions orders:read,invoices:read --expires 90d
  keygate keys create --name nightly --organization acme --space research --allow-cidr 192.0.2.0/24 -o json`,
		Args: arguments(),
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name of the key (required)")
	f.StringVar(&in.Description, "description", "", "what it is for")
	f.StringVar(&in.Organization, "organization", "", "organization by id or slug")
	f.StringVar(&in.Space, "space", "", "space by id or slug that the key is restricted to")
	f.StringVar(&in.Account, "account", "", "id of the account that owns the key")
	f.StringSliceVar(&in.Permissions, "permissions", nil, "permissions, separated by commas")
	f.StringVar(&in.Plan, "plan", "", "another plan than the organization's")
	f.StringVar(&in.Expires, "expires", "", "never, 30d, 90d, 1y or a date such as 2031-05-31 (default never)")
	f.StringSliceVar(&in.AllowedCIDRs, "allow-cidr", nil, "address or network that may use the key (repeatable; default all)")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "name"); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		k, err := c.CreateKey(cmd.Context(), in)
		if err != nil {
			return err
		}
		columns := []column[admin.CreatedKey]{{"Secret", func(k admin.CreatedKey) string { return k.Secret }}}
		for _, col := range keyFields {
			columns = append(columns, column[admin.CreatedKey]{col.title, func(k admin.CreatedKey) string { return col.value(k.Key) }})
		}
		if err := printOne(a, *output, k, columns); err != nil {
			return err
		}
		if *output == formatTable {
			a.say("Keep the secret now: it is not shown again.")
		}
		return nil
	}
	return cmd
}

func (a *app) keysList() *cobra.Command {
	var o admin.ListOptions
	var most int
	cmd := &cobra.Command{
		Use: "list", Short: "List keys, newest first",
		Example: "  keygate keys list --organization acme\n  keygate keys list -o json", Args: arguments(),
	}
	cmd.Flags().StringVar(&o.Organization, "organization", "", "only keys of this organization, by id or slug")
	cmd.Flags().StringVar(&o.Name, "name", "", "only keys of exactly this name")
	limitFlag(cmd, &most)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return listWith(a, cmd, *output, o, most, (*admin.Client).ListKeys, keyColumns)
	}
	return cmd
}

func (a *app) keysGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID|NAME", Short: "Show a key", Args: arguments("ID"),
		Example: "  keygate keys get billing\n  keygate keys get key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35 -o yaml",
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		k, err := findKey(cmd, c, args[0])
		if err != nil {
			return err
		}
		return printOne(a, *output, k, keyFields)
	}
	return cmd
}

// findKey takes an id, or a name that only one key has.
func findKey(cmd *cobra.Command, c *admin.Client, ref string) (admin.Key, error) {
	if strings.HasPrefix(ref, "key_") {
		return c.GetKey(cmd.Context(), ref)
	}
	found, err := c.ListKeys(cmd.Context(), admin.ListOptions{Name: ref, Limit: 10})
	switch {
	case err != nil:
		return admin.Key{}, err
	case len(found.Items) == 0:
		return admin.Key{}, &codeError{exitNotFound, fmt.Sprintf("no key has the id or name %s", quote(ref))}
	case len(found.Items) > 1:
		ids := make([]string, len(found.Items))
		for i, k := range found.Items {
			ids[i] = k.ID
		}
		return admin.Key{}, &usageError{cmd, fmt.Sprintf("several keys have the name %s, give an id: %s", quote(ref), strings.Join(ids, ", "))}
	}
	return found.Items[0], nil
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
