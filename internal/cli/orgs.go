package cli

import (
	"context"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func organizationColumns(*names) []column[admin.Organization] {
	return []column[admin.Organization]{
		{"ID", func(o admin.Organization) string { return o.ID }},
		{"Slug", func(o admin.Organization) string { return o.Slug }},
		{"Name", func(o admin.Organization) string { return o.Name }},
		{"Plan", func(o admin.Organization) string { return o.Plan }},
		{"Negotiated limits", func(o admin.Organization) string { return shownLimits(o.Overrides) }},
		{"Max keys", func(o admin.Organization) string { return shownMaxKeys(o.Overrides) }},
		{"Created", func(o admin.Organization) string { return timestamp(o.CreatedAt) }},
	}
}

func (a *app) organizationsCommand() *cobra.Command {
	get := &cobra.Command{Use: "get ID|SLUG", Short: "Show an organization", Example: "  keygate orgs get acme", Args: arguments("ID")}
	output := outputFlag(get)
	a.completeArgs(get, organizationNames)
	get.RunE = func(cmd *cobra.Command, args []string) error {
		return showWith(a, cmd, *output, organizationColumns, func(ctx context.Context, c *admin.Client) (admin.Organization, error) {
			return c.GetOrganization(ctx, args[0])
		})
	}
	list := listCommand(a, "List organizations, newest first", "keygate orgs list", (*admin.Client).ListOrganizations, organizationColumns)
	return group("orgs", "Organizations: the customers of the API", a.orgsCreate(), list, get, a.orgsEdit(), a.orgsDelete())
}

func (a *app) orgsCreate() *cobra.Command {
	var in admin.NewOrganization
	var limits []string
	var maxKeys string
	cmd := &cobra.Command{
		Use: "create --slug SLUG", Short: "Create an organization",
		Long:    "Creates an organization and its account default, which owns keys for which no other account is named.",
		Example: "  keygate orgs create --slug acme --name 'Acme Inc.' --plan pro", Args: arguments(),
	}
	f := cmd.Flags()
	f.StringVar(&in.Slug, "slug", "", "short unique name: lower-case letters, digits and hyphens (required)")
	f.StringVar(&in.Name, "name", "", "name (default the slug)")
	f.StringVar(&in.Plan, "plan", "", "a plan of the policy (default KEYGATE_DEFAULT_PLAN of the server)")
	limitsFlag(cmd, &limits, "limit negotiated for its keys, such as minute=5000/1m or month=100000/month@Europe/Zurich; with :shared after it, one budget for all keys of the organization (repeatable)")
	f.StringVar(&maxKeys, "max-keys", "", `number of active keys negotiated for it, or "unlimited" (default the plan's)`)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.complete(cmd, "plan", planNames)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "slug"); err != nil {
			return err
		}
		var err error
		if in.Overrides, err = parseOverrides(cmd, limits, maxKeys); err != nil {
			return err
		}
		return showWith(a, cmd, *output, organizationColumns, func(ctx context.Context, c *admin.Client) (admin.Organization, error) {
			return c.CreateOrganization(ctx, in)
		})
	}
	return cmd
}

func (a *app) orgsEdit() *cobra.Command {
	var slug, name, plan, maxKeys string
	var limits []string
	cmd := &cobra.Command{
		Use: "edit ID|SLUG", Short: "Change an organization", Args: arguments("ID"),
		Long: `Changes what the flags name and nothing else. Negotiated limits are given whole; an empty value means those of the plan.
Who manages the members of an organization may rename it; everything else is the operators' to change.`,
		Example: "  keygate orgs edit acme --plan enterprise\n  keygate orgs edit acme --limit minute=5000/1m --max-keys 200\n  keygate orgs edit acme --max-keys \"\"",
	}
	f := cmd.Flags()
	f.StringVar(&slug, "slug", "", "another slug: routes and clients that name the organization by it must follow")
	f.StringVar(&name, "name", "", "another name")
	f.StringVar(&plan, "plan", "", "another plan of the policy")
	limitsFlag(cmd, &limits, "all limits negotiated for its keys, such as minute=5000/1m or month=100000/month@Europe/Zurich; with :shared after it, one budget for all keys of the organization (repeatable)")
	f.StringVar(&maxKeys, "max-keys", "", `number of active keys, or "unlimited"`)
	mayBeEmpty(cmd, "limit", "max-keys")
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.complete(cmd, "plan", planNames)
	a.completeArgs(cmd, organizationNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := anyChanged(cmd, "slug", "name", "plan", "limit", "max-keys"); err != nil {
			return err
		}
		overrides, err := parseOverrides(cmd, limits, maxKeys)
		if err != nil {
			return err
		}
		in := admin.OrganizationEdit{Slug: given(cmd, "slug", &slug), Name: given(cmd, "name", &name), Plan: given(cmd, "plan", &plan), Overrides: overrides}
		return showWith(a, cmd, *output, organizationColumns, func(ctx context.Context, c *admin.Client) (admin.Organization, error) {
			if overrides != nil && !(cmd.Flags().Changed("limit") && cmd.Flags().Changed("max-keys")) {
				version, err := keepOther(ctx, c, args[0], cmd.Flags().Changed("limit"), overrides)
				if err != nil {
					return admin.Organization{}, err
				}
				c = c.With(admin.IfVersion(version))
			}
			return c.EditOrganization(ctx, args[0], in)
		})
	}
	return cmd
}

// keepOther fills in which of an organization's negotiated terms were not given: the
// API takes all of them at once. The version that they are of must be the present one
// still when they are given back.
func keepOther(ctx context.Context, c *admin.Client, ref string, limitsGiven bool, o *admin.Overrides) (version int64, err error) {
	org, err := c.GetOrganization(ctx, ref)
	switch {
	case err != nil || org.Overrides == nil:
		return org.Version(), err
	case limitsGiven:
		o.MaxKeys = org.Overrides.MaxKeys
	default:
		o.Limits = org.Overrides.Limits
	}
	return org.Version(), nil
}

func (a *app) orgsDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID|SLUG", Short: "Delete an organization that is empty", Args: arguments("ID"),
		Long:    "Deletes an organization that has no keys, no spaces and no accounts but its own default. Asks first on a terminal; elsewhere --yes is needed.",
		Example: "  keygate orgs delete acme --yes",
	}
	yes := yesFlag(cmd)
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, organizationNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := "Delete the organization " + quote(args[0]) + "?"
		return a.deleteWith(cmd, *yes, *output, text, "The organization "+args[0]+" is deleted.", func(ctx context.Context, c *admin.Client) (string, error) {
			o, err := c.GetOrganization(ctx, args[0])
			if err != nil {
				return "", err
			}
			return o.ID, c.DeleteOrganization(ctx, o.ID)
		})
	}
	return cmd
}
