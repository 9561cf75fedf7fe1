package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

// grantFlags say what an account is given, and where.
func (a *app) grantFlags(cmd *cobra.Command, role, permission, space *string) {
	f := cmd.Flags()
	f.StringVar(role, "role", "", "a role of the policy (this or --permission)")
	f.StringVar(permission, "permission", "", "a single permission, or a wildcard such as orders:*")
	f.StringVar(space, "space", "", "space by id or slug: it holds there only")
	a.complete(cmd, "role", roleNames)
	alias(cmd, "permissions", "permission")
	a.complete(cmd, "permission", permissionNames)
	a.complete(cmd, "space", spaceNames)
}

// oneGrant wants a role or a permission.
func oneGrant(cmd *cobra.Command) error {
	role, permission := cmd.Flags().Changed("role"), cmd.Flags().Changed("permission")
	switch {
	case role && permission:
		return &usageError{cmd, "--role and --permission exclude each other: a grant is one of both"}
	case !role && !permission:
		return &usageError{cmd, "--role is missing, or --permission"}
	}
	return nil
}

func (a *app) accountsGrant() *cobra.Command {
	var in admin.NewGrant
	cmd := &cobra.Command{
		Use: "grant ACCOUNT --role ROLE", Short: "Give an account another role", Args: arguments("ACCOUNT"),
		Long: `Gives an account a role or a permission: at its organization or the one that --organization names, or with --space at one space.
Its keys may do at once what they were given and their owner lacked. Nobody gives what they lack.`,
		Example: "  keygate accounts grant 'Ada Lovelace' --organization acme --role viewer --space research\n" +
			"  keygate accounts grant acc_01980c5e75c27e19a1f36b0d84e9c27a --permission orders:read",
	}
	a.organizationFlag(cmd, &in.Organization, "organization, by id or slug, where it holds (default the account's); a name is looked for there")
	a.grantFlags(cmd, &in.Role, &in.Permission, &in.Space)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, accountNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := oneGrant(cmd); err != nil {
			return err
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		id, err := accountID(cmd, c, in.Organization, args[0])
		if err != nil {
			return err
		}
		g, err := c.AddGrant(cmd.Context(), id, in)
		if err != nil {
			return err
		}
		n := newNames(cmd.Context(), c)
		return printOne(a, *output, g, []column[admin.Grant]{
			{"ID", func(g admin.Grant) string { return g.ID }},
			{"Account", func(admin.Grant) string { return both(n.account(id), id) }},
			{"Role", func(g admin.Grant) string { return g.Role }},
			{"Permission", func(g admin.Grant) string { return g.Permission }},
			{"Organization", func(g admin.Grant) string { return n.organization(g.Organization) }},
			{"Space", func(g admin.Grant) string { return n.space(g.Organization, g.Space) }},
			{"Created", func(g admin.Grant) string { return timestamp(g.CreatedAt) }},
		})
	}
	return cmd
}

func (a *app) accountsRevokeGrant() *cobra.Command {
	var organization string
	cmd := &cobra.Command{
		Use: "revoke-grant ACCOUNT GRANT", Short: "Take a role from an account", Args: arguments("ACCOUNT", "GRANT"),
		Long: `Takes a role or a permission from an account: its keys lose at once what came from it. GRANT is an id, or a name as the table
of accounts shows it: a role or permission where there is one of that name, or role@space. Asks first on a terminal.`,
		Example: "  keygate accounts revoke-grant 'Ada Lovelace' viewer@research --organization acme",
	}
	a.organizationFlag(cmd, &organization, lookIn)
	yes := yesFlag(cmd)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, accountNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		account, err := findAccount(cmd, c, organization, args[0])
		if err != nil {
			return err
		}
		g, label, err := findGrant(cmd, newNames(cmd.Context(), c), account, args[1])
		if err != nil {
			return err
		}
		text := fmt.Sprintf("Take %s from the account %s (%s)? Its keys lose at once what came from it.", quote(label), quote(account.Name), printable(account.ID))
		if err := a.confirm(cmd, *yes, text); err != nil {
			return err
		}
		if err := c.RemoveGrant(cmd.Context(), account.ID, g.ID); err != nil {
			return err
		}
		return a.printDeleted(*output, g.ID, account.Name+" no longer holds "+label+".")
	}
	return cmd
}

// findGrant takes an id, the name of a role or permission that the account holds
// once, or one with its place.
func findGrant(cmd *cobra.Command, n *names, account admin.Account, ref string) (admin.Grant, string, error) {
	var found []admin.Grant
	var labels []string
	for _, g := range account.Grants {
		label := grantLabel(n, account, g)
		if g.ID == ref {
			return g, label, nil
		}
		if label == ref || g.Role == ref || g.Permission == ref {
			found, labels = append(found, g), append(labels, label+" ("+g.ID+")")
		}
	}
	switch {
	case len(found) == 1:
		return found[0], grantLabel(n, account, found[0]), nil
	case len(found) > 1:
		return admin.Grant{}, "", &usageError{cmd, fmt.Sprintf("the account %s holds %s more than once, give an id: %s", quote(account.Name), quote(ref), strings.Join(labels, ", "))}
	case len(account.Grants) == 0:
		return admin.Grant{}, "", &codeError{exitNotFound, fmt.Sprintf("the account %s holds nothing", quote(account.Name))}
	}
	return admin.Grant{}, "", &codeError{exitNotFound, fmt.Sprintf("the account %s does not hold %s; it holds %s", quote(account.Name), quote(ref), grantLabels(n, account))}
}
