package cli

import (
	"context"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func spaceColumns(n *names) []column[admin.Space] {
	return []column[admin.Space]{
		{"ID", func(s admin.Space) string { return s.ID }},
		{"Slug", func(s admin.Space) string { return s.Slug }},
		{"Name", func(s admin.Space) string { return s.Name }},
		{"Organization", func(s admin.Space) string { return n.organization(s.Organization) }},
		{"Created", func(s admin.Space) string { return timestamp(s.CreatedAt) }},
	}
}

// ofOrganization is the flag of commands about what belongs to one.
const ofOrganization = "organization by id or slug (default your own; operators name one)"

func (a *app) spacesCommand() *cobra.Command {
	list := listCommand(a, "List the spaces of an organization, newest first", "keygate spaces list --organization acme", (*admin.Client).ListSpaces, spaceColumns)
	a.organizationFlag(list, new(string), ofOrganization)
	return group("spaces", "Spaces: parts of an organization", a.spacesCreate(), list, a.spacesGet(), a.spacesEdit(), a.spacesDelete())
}

func (a *app) spacesCreate() *cobra.Command {
	var in admin.NewSpace
	cmd := &cobra.Command{
		Use: "create --slug SLUG", Short: "Create a space of an organization",
		Example: "  keygate spaces create --organization acme --slug research", Args: arguments(),
	}
	a.organizationFlag(cmd, &in.Organization, ofOrganization)
	cmd.Flags().StringVar(&in.Slug, "slug", "", "short name, unique in the organization (required)")
	cmd.Flags().StringVar(&in.Name, "name", "", "name (default the slug)")
	waitFlag(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "slug"); err != nil {
			return err
		}
		return showWith(a, cmd, *output, spaceColumns, func(ctx context.Context, c *admin.Client) (admin.Space, error) { return c.CreateSpace(ctx, in) })
	}
	return cmd
}

func (a *app) spacesGet() *cobra.Command {
	var organization string
	cmd := &cobra.Command{Use: "get ID|SLUG", Short: "Show a space", Example: "  keygate spaces get research --organization acme", Args: arguments("ID")}
	a.organizationFlag(cmd, &organization, ofOrganization)
	output := outputFlag(cmd)
	a.completeArgs(cmd, spaceNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return showWith(a, cmd, *output, spaceColumns, func(ctx context.Context, c *admin.Client) (admin.Space, error) {
			return c.GetSpace(ctx, organization, args[0])
		})
	}
	return cmd
}

func (a *app) spacesEdit() *cobra.Command {
	var organization, slug, name string
	cmd := &cobra.Command{
		Use: "edit ID|SLUG", Short: "Change a space", Args: arguments("ID"),
		Long:    "Changes what the flags name and nothing else.",
		Example: "  keygate spaces edit research --organization acme --name 'Research and development'",
	}
	a.organizationFlag(cmd, &organization, ofOrganization)
	cmd.Flags().StringVar(&slug, "slug", "", "another slug: clients that name the space by it must follow")
	cmd.Flags().StringVar(&name, "name", "", "another name")
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, spaceNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := anyChanged(cmd, "slug", "name"); err != nil {
			return err
		}
		return showWith(a, cmd, *output, spaceColumns, func(ctx context.Context, c *admin.Client) (admin.Space, error) {
			return c.EditSpace(ctx, organization, args[0], admin.SpaceEdit{Slug: given(cmd, "slug", &slug), Name: given(cmd, "name", &name)})
		})
	}
	return cmd
}

func (a *app) spacesDelete() *cobra.Command {
	var organization string
	cmd := &cobra.Command{
		Use: "delete ID|SLUG", Short: "Delete a space to which nothing is restricted", Args: arguments("ID"),
		Long:    "Deletes a space to which neither keys nor grants are restricted. Asks first on a terminal; elsewhere --yes is needed.",
		Example: "  keygate spaces delete research --organization acme --yes",
	}
	a.organizationFlag(cmd, &organization, ofOrganization)
	yes := yesFlag(cmd)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, spaceNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := "Delete the space " + quote(args[0]) + "?"
		return a.deleteWith(cmd, *yes, *output, text, "The space "+args[0]+" is deleted.", func(ctx context.Context, c *admin.Client) (string, error) {
			sp, err := c.GetSpace(ctx, organization, args[0])
			if err != nil {
				return "", err
			}
			return sp.ID, c.DeleteSpace(ctx, sp.Organization, sp.ID)
		})
	}
	return cmd
}
