package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func accountColumns(n *names) []column[admin.Account] {
	return []column[admin.Account]{
		{"ID", func(x admin.Account) string { return x.ID }},
		{"Name", func(x admin.Account) string { return x.Name }},
		{"Email", func(x admin.Account) string { return x.Email }},
		{"Organization", func(x admin.Account) string { return n.organization(x.Organization) }},
		{"Roles", func(x admin.Account) string { return grantLabels(n, x) }},
		{"Created", func(x admin.Account) string { return timestamp(x.CreatedAt) }},
	}
}

// grantLabels say what an account holds and where: "owner, viewer@research".
func grantLabels(n *names, x admin.Account) string {
	labels := make([]string, len(x.Grants))
	for i, g := range x.Grants {
		labels[i] = grantLabel(n, x, g)
	}
	return strings.Join(labels, ", ")
}

// grantLabel names the place of a grant where it is not the whole organization
// that manages the account: a space of it, or another organization with a slash
// behind it.
func grantLabel(n *names, x admin.Account, g admin.Grant) string {
	place := n.space(g.Organization, g.Space)
	switch {
	case g.Organization == "" && x.Organization != "":
		place = "the instance"
	case g.Organization != x.Organization:
		place = n.organization(g.Organization) + "/" + place
	}
	if place == "" {
		return g.Role + g.Permission
	}
	return g.Role + g.Permission + "@" + place
}

func (a *app) accountsCommand() *cobra.Command {
	list := listCommand(a, "List the accounts of an organization, newest first", "keygate accounts list --organization acme", (*admin.Client).ListAccounts, accountColumns)
	list.Long = "Lists the accounts that an organization manages, newest first, with what they hold: a role at the whole organization, or role@space. " +
		"An operator who names no organization sees the operators' accounts."
	a.organizationFlag(list, new(string), "organization by id or slug (default your own)")
	return group("accounts", "Accounts: people and service users that own keys",
		a.accountsCreate(), list, a.accountsGet(), a.accountsEdit(), a.accountsDelete(), a.accountsGrant(), a.accountsRevokeGrant())
}

func (a *app) accountsCreate() *cobra.Command {
	var in admin.NewAccount
	cmd := &cobra.Command{
		Use: "create --name NAME --role ROLE", Short: "Create an account with a role",
		Long: `Creates a person or service user that holds one role, or one permission: at the organization or, with --space, at one of its spaces.
With --permission keygate:operator and without an organization it is an operator's.`,
		Example: "  keygate accounts create --name 'Ada Lovelace' --organization acme --role owner\n" +
			"  keygate accounts create --name reports --organization acme --role viewer --space research", Args: arguments(),
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name (required)")
	f.StringVar(&in.Email, "email", "", "address")
	a.organizationFlag(cmd, &in.Organization, ofOrganization)
	a.grantFlags(cmd, &in.Role, &in.Permission, &in.Space)
	waitFlag(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "name"); err != nil {
			return err
		}
		if err := oneGrant(cmd); err != nil {
			return err
		}
		return showWith(a, cmd, *output, accountColumns, func(ctx context.Context, c *admin.Client) (admin.Account, error) { return c.CreateAccount(ctx, in) })
	}
	return cmd
}

// lookIn is the flag that says where an account's name is looked for.
const lookIn = "organization, by id or slug, in which a name is looked for (default your own)"

func (a *app) accountsGet() *cobra.Command {
	var organization string
	cmd := &cobra.Command{
		Use: "get ID|NAME", Short: "Show an account and what it holds", Args: arguments("ID"),
		Example: "  keygate accounts get 'Ada Lovelace' --organization acme\n  keygate accounts get acc_01980c5e75c27e19a1f36b0d84e9c27a -o yaml",
	}
	a.organizationFlag(cmd, &organization, lookIn)
	output := outputFlag(cmd)
	a.completeArgs(cmd, accountNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return showWith(a, cmd, *output, accountColumns, func(_ context.Context, c *admin.Client) (admin.Account, error) {
			return findAccount(cmd, c, organization, args[0])
		})
	}
	return cmd
}

func (a *app) accountsEdit() *cobra.Command {
	var organization, name, email string
	cmd := &cobra.Command{
		Use: "edit ID|NAME", Short: "Change an account", Args: arguments("ID"),
		Long:    "Changes what the flags name and nothing else. With --email \"\" it has no address.",
		Example: "  keygate accounts edit 'Ada Lovelace' --organization acme --email ada@example.org",
	}
	a.organizationFlag(cmd, &organization, lookIn)
	cmd.Flags().StringVar(&name, "name", "", "another name")
	cmd.Flags().StringVar(&email, "email", "", "address")
	mayBeEmpty(cmd, "email")
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, accountNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := anyChanged(cmd, "name", "email"); err != nil {
			return err
		}
		return showWith(a, cmd, *output, accountColumns, func(ctx context.Context, c *admin.Client) (admin.Account, error) {
			id, err := accountID(cmd, c, organization, args[0])
			if err != nil {
				return admin.Account{}, err
			}
			return c.EditAccount(ctx, id, admin.AccountEdit{Name: given(cmd, "name", &name), Email: given(cmd, "email", &email)})
		})
	}
	return cmd
}

func (a *app) accountsDelete() *cobra.Command {
	var organization string
	cmd := &cobra.Command{
		Use: "delete ID|NAME", Short: "Delete an account that owns no keys", Args: arguments("ID"),
		Long:    "Deletes an account that owns no keys; what it holds goes with it. Asks first on a terminal; elsewhere --yes is needed.",
		Example: "  keygate accounts delete 'Ada Lovelace' --organization acme --yes",
	}
	a.organizationFlag(cmd, &organization, lookIn)
	yes := yesFlag(cmd)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, accountNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := "Delete the account " + quote(args[0]) + " and what it holds?"
		return a.deleteWith(cmd, *yes, *output, text, "The account "+args[0]+" is deleted.", func(ctx context.Context, c *admin.Client) (string, error) {
			id, err := accountID(cmd, c, organization, args[0])
			if err != nil {
				return "", err
			}
			return id, c.DeleteAccount(ctx, id)
		})
	}
	return cmd
}
