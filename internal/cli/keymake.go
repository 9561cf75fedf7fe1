package cli

import (
	"time"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func (a *app) keysCreate() *cobra.Command {
	var in admin.NewKey
	var limits []string
	cmd := &cobra.Command{
		Use: "create --name NAME", Short: "Create a key and show its secret, once",
		Long: `Creates a key. Its secret is printed once and cannot be read again.

A key belongs to the caller's organization unless --organization or --account says otherwise, and with an operator's key to the
organization default. It is owned by the caller's account, with an operator's key by the organization's account default, or by
the one that --account names. It never does more than its owner may. Plan and limits of its own are the operators' to give.`,
		Example: `  keygate keys create --name billing --permissions orders:read,invoices:read --expires 90d
  keygate keys create --name nightly --organization acme --space research --allow-cidr 192.0.2.0/24 -o json
  keygate keys create --name partner --organization acme --limit minute=5000/1m`,
		Args: arguments(),
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name of the key (required)")
	f.StringVar(&in.Description, "description", "", "what it is for")
	a.organizationFlag(cmd, &in.Organization, "organization by id or slug")
	f.StringVar(&in.Space, "space", "", "space by id or slug that the key is restricted to")
	f.StringVar(&in.Account, "account", "", "account that owns the key, by id or, within the organization, name")
	f.StringSliceVar(&in.Permissions, "permissions", nil, "permissions, separated by commas")
	f.StringVar(&in.Plan, "plan", "", "another plan than the organization's")
	f.StringVar(&in.Expires, "expires", "", "never, 30d, 90d, 1y or a date such as 2031-05-31 (default never)")
	f.StringSliceVar(&in.AllowedCIDRs, "allow-cidr", nil, "address or network that may use the key (repeatable; default all)")
	limitsFlag(cmd, &limits, "limit negotiated for this key, such as minute=5000/1m or month=100000/month@Europe/Zurich; with :shared after it, one budget for all keys of the organization (repeatable)")
	mayBeEmpty(cmd, "description")
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeKeyFlags(cmd)
	alias(cmd, "permission", "permissions")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "name"); err != nil {
			return err
		}
		var err error
		if in.Overrides, err = parseOverrides(cmd, limits, ""); err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		if in.Account, err = accountID(cmd, c, in.Organization, in.Account); err != nil {
			return err
		}
		k, err := c.CreateKey(cmd.Context(), in)
		if err != nil {
			return err
		}
		if err := a.printSecret(cmd, c, *output, k); err != nil || *output != formatTable {
			return err
		}
		if in.Organization == "" && in.Account == "" && k.Organization != "" {
			a.say("It belongs to the organization %s; --organization would name another.", newNames(cmd.Context(), c).organization(k.Organization))
		}
		if len(k.Permissions) == 0 {
			a.say("It has no permissions and may use nothing but routes with 'permission: any': 'keygate keys edit %s --permissions …' gives some.", k.ID)
		}
		return nil
	}
	return cmd
}

// printSecret shows a key whose secret was just made.
func (a *app) printSecret(cmd *cobra.Command, c *admin.Client, f format, k admin.CreatedKey) error {
	columns := []column[admin.CreatedKey]{{"Secret", func(k admin.CreatedKey) string { return k.Secret }}}
	for _, col := range keyFields(newNames(cmd.Context(), c), nil) {
		columns = append(columns, column[admin.CreatedKey]{col.title, func(k admin.CreatedKey) string { return col.value(k.Key) }})
	}
	if err := printOne(a, f, k, columns); err != nil {
		return err
	}
	if f == formatTable {
		a.say("Keep the secret now: it is not shown again.")
	}
	return nil
}

func (a *app) keysEdit() *cobra.Command {
	var name, description, expires, plan string
	var permissions, cidrs, limits []string
	cmd := &cobra.Command{
		Use: "edit ID|NAME", Short: "Change a key; its secret stays", Args: arguments("ID"),
		Long: `Changes what the flags name and nothing else. Lists are given whole. An empty value means: no description, no permissions,
all addresses, the organization's plan, the plan's limits.`,
		Example: `  keygate keys edit billing --permissions orders:read --expires 90d
  keygate keys edit billing --allow-cidr ""
  keygate keys edit billing --limit minute=5000/1m --limit day=100000/24h`,
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "another name")
	f.StringVar(&description, "description", "", "what it is for")
	f.StringSliceVar(&permissions, "permissions", nil, "all permissions that it shall have, separated by commas")
	f.StringSliceVar(&cidrs, "allow-cidr", nil, "all addresses and networks that may use it (repeatable)")
	f.StringVar(&expires, "expires", "", "never, 30d, 90d, 1y or a date such as 2031-05-31")
	f.StringVar(&plan, "plan", "", "another plan than the organization's")
	limitsFlag(cmd, &limits, "all limits negotiated for this key, such as minute=5000/1m or month=100000/month@Europe/Zurich; with :shared after it, one budget for all keys of the organization (repeatable)")
	mayBeEmpty(cmd, "description", "permissions", "allow-cidr", "plan", "limit")
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, keyNames)
	a.completeKeyFlags(cmd)
	alias(cmd, "permission", "permissions")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := anyChanged(cmd, "name", "description", "permissions", "allow-cidr", "expires", "plan", "limit"); err != nil {
			return err
		}
		overrides, err := parseOverrides(cmd, limits, "")
		if err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		k, err := a.findKey(cmd, c, args[0])
		if err != nil {
			return err
		}
		k, err = c.EditKey(cmd.Context(), k.ID, admin.KeyEdit{
			Name: given(cmd, "name", &name), Description: given(cmd, "description", &description),
			Permissions: given(cmd, "permissions", &permissions), AllowedCIDRs: given(cmd, "allow-cidr", &cidrs),
			Expires: given(cmd, "expires", &expires), Plan: given(cmd, "plan", &plan), Overrides: overrides,
		})
		if err != nil {
			return err
		}
		return a.printKey(cmd, c, *output, k)
	}
	return cmd
}

func (a *app) keysRotate() *cobra.Command {
	var in admin.Rotation
	cmd := &cobra.Command{
		Use: "rotate ID|NAME", Short: "Give a key another secret and show it, once", Args: arguments("ID"),
		Long: `Gives a key another secret, which is printed once; id, permissions, limits and history stay.
The former secret stops at once, or with --overlap that much later: at most two work at a time. An expired key comes back to life.
Without --overlap it asks first on a terminal. Where a former secret is still in its overlap, that ends now: this is asked first,
and without a terminal --yes is needed.`,
		Example: "  keygate keys rotate billing --overlap 24h\n  keygate keys rotate billing --expires 90d --yes -o json",
	}
	cmd.Flags().StringVar(&in.Overlap, "overlap", "", "how long the former secret goes on working, such as 24h or 7d, at most 30d (default not at all)")
	cmd.Flags().StringVar(&in.Expires, "expires", "", "a new expiry: never, 30d, 90d, 1y or a date such as 2031-05-31 (default as it is)")
	yes := yesFlag(cmd)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, keyNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := question{text: "Rotate the key %s (%s)? Clients that use its present secret are refused from then on."}
		if in.Overlap != "" {
			q = question{text: "Rotate the key %s (%s)? Its present secret stops working after " + printable(in.Overlap) + ".", quiet: true}
		}
		q.also = endsFormer
		c, k, err := a.chosenKey(cmd, args[0], *yes, q)
		if err != nil {
			return err
		}
		rotated, err := c.RotateKey(cmd.Context(), k.ID, in)
		if err != nil {
			return err
		}
		if formerInOverlap(k) {
			a.say("The secret %s, which was to work until %s, has ended.", shownSecret(k.Former.Prefix, k.Former.LastFour), timestamp(formerEnd(k)))
		}
		return a.printSecret(cmd, c, *output, rotated)
	}
	return cmd
}

// formerInOverlap reports whether a rotation now would end a secret that was
// promised to go on working.
func formerInOverlap(k admin.Key) bool {
	return k.Former != nil && k.RevokedAt.IsZero() && formerEnd(k).After(time.Now())
}

func endsFormer(k admin.Key) string {
	if !formerInOverlap(k) {
		return ""
	}
	return "Its former secret " + shownSecret(k.Former.Prefix, k.Former.LastFour) + ", which was to work until " + timestamp(formerEnd(k)) + ", ends at once."
}
