package cli

import (
	"context"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

var organizationColumns = []column[admin.Organization]{
	{"ID", func(o admin.Organization) string { return o.ID }},
	{"Slug", func(o admin.Organization) string { return o.Slug }},
	{"Name", func(o admin.Organization) string { return o.Name }},
	{"Plan", func(o admin.Organization) string { return o.Plan }},
	{"Created", func(o admin.Organization) string { return timestamp(o.CreatedAt) }},
}

var spaceColumns = []column[admin.Space]{
	{"ID", func(s admin.Space) string { return s.ID }},
	{"Slug", func(s admin.Space) string { return s.Slug }},
	{"Name", func(s admin.Space) string { return s.Name }},
	{"Organization", func(s admin.Space) string { return s.Organization }},
	{"Created", func(s admin.Space) string { return timestamp(s.CreatedAt) }},
}

var accountColumns = []column[admin.Account]{
	{"ID", func(c admin.Account) string { return c.ID }},
	{"Name", func(c admin.Account) string { return c.Name }},
	{"Email", func(c admin.Account) string { return c.Email }},
	{"Organization", func(c admin.Account) string { return c.Organization }},
	{"Created", func(c admin.Account) string { return timestamp(c.CreatedAt) }},
}

func (a *app) organizationsCommand() *cobra.Command {
	var in admin.NewOrganization
	create := &cobra.Command{
		Use: "create --slug SLUG", Short: "Create an organization",
		Long:    "Creates an organization and its account default, which owns keys for which no other account is named.",
		Example: "  keygate orgs create --slug acme --name 'Acme Inc.' --plan pro", Args: arguments(),
	}
	create.Flags().StringVar(&in.Slug, "slug", "", "short unique name: lower-case letters, digits and hyphens (required)")
	create.Flags().StringVar(&in.Name, "name", "", "name (default the slug)")
	create.Flags().StringVar(&in.Plan, "plan", "", "a plan of the policy (default KEYGATE_DEFAULT_PLAN of the server)")
	createOutput := outputFlag(create)
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "slug"); err != nil {
			return err
		}
		return createWith(a, cmd, *createOutput, in, (*admin.Client).CreateOrganization, organizationColumns)
	}

	var o admin.ListOptions
	var most int
	list := &cobra.Command{Use: "list", Short: "List organizations, newest first", Example: "  keygate orgs list", Args: arguments()}
	limitFlag(list, &most)
	listOutput := outputFlag(list)
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		return listWith(a, cmd, *listOutput, o, most, (*admin.Client).ListOrganizations, organizationColumns)
	}

	get := &cobra.Command{Use: "get ID|SLUG", Short: "Show an organization", Example: "  keygate orgs get acme", Args: arguments("ID")}
	getOutput := outputFlag(get)
	get.RunE = func(cmd *cobra.Command, args []string) error {
		return createWith(a, cmd, *getOutput, args[0], (*admin.Client).GetOrganization, organizationColumns)
	}
	return group("orgs", "Organizations: the customers of the API", create, list, get)
}

func (a *app) spacesCommand() *cobra.Command {
	var in admin.NewSpace
	create := &cobra.Command{
		Use: "create --organization ORG --slug SLUG", Short: "Create a space of an organization",
		Example: "  keygate spaces create --organization acme --slug research", Args: arguments(),
	}
	create.Flags().StringVar(&in.Organization, "organization", "", "organization by id or slug (required)")
	create.Flags().StringVar(&in.Slug, "slug", "", "short name, unique in the organization (required)")
	create.Flags().StringVar(&in.Name, "name", "", "name (default the slug)")
	output := outputFlag(create)
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "organization", "slug"); err != nil {
			return err
		}
		return createWith(a, cmd, *output, in, (*admin.Client).CreateSpace, spaceColumns)
	}
	list := listOfOrganization(a, "keygate spaces list --organization acme", "List the spaces of an organization", (*admin.Client).ListSpaces, spaceColumns)
	return group("spaces", "Spaces: parts of an organization", create, list)
}

func (a *app) accountsCommand() *cobra.Command {
	var in admin.NewAccount
	create := &cobra.Command{
		Use: "create --name NAME --organization ORG --role ROLE", Short: "Create an account with a role",
		Long:    "Creates a person or service user that holds one role: at the organization or, with --space, at one of its spaces.",
		Example: "  keygate accounts create --name 'Ada Lovelace' --organization acme --role owner", Args: arguments(),
	}
	create.Flags().StringVar(&in.Name, "name", "", "name (required)")
	create.Flags().StringVar(&in.Email, "email", "", "address")
	create.Flags().StringVar(&in.Organization, "organization", "", "organization by id or slug (required)")
	create.Flags().StringVar(&in.Role, "role", "", "a role of the policy (required)")
	create.Flags().StringVar(&in.Space, "space", "", "space by id or slug: the role holds there only")
	output := outputFlag(create)
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "name", "organization", "role"); err != nil {
			return err
		}
		return createWith(a, cmd, *output, in, (*admin.Client).CreateAccount, accountColumns)
	}
	list := listOfOrganization(a, "keygate accounts list --organization acme", "List the accounts of an organization", (*admin.Client).ListAccounts, accountColumns)
	return group("accounts", "Accounts: people and service users that own keys", create, list)
}

// createWith makes or reads one thing and shows it.
func createWith[In, Out any](a *app, cmd *cobra.Command, f format, in In, do func(*admin.Client, context.Context, In) (Out, error), columns []column[Out]) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	out, err := do(c, cmd.Context(), in)
	if err != nil {
		return err
	}
	return printOne(a, f, out, columns)
}

// listWith reads a list, to its end or to most records, and shows it.
func listWith[T any](a *app, cmd *cobra.Command, f format, o admin.ListOptions, most int, list func(*admin.Client, context.Context, admin.ListOptions) (admin.Page[T], error), columns []column[T]) error {
	if most < 0 {
		return &usageError{cmd, "--limit must be 0 or more"}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	all, err := admin.All(cmd.Context(), o, most, func(ctx context.Context, o admin.ListOptions) (admin.Page[T], error) { return list(c, ctx, o) })
	if err != nil {
		return err
	}
	return printList(a, f, all, columns)
}

func listOfOrganization[T any](a *app, example, short string, list func(*admin.Client, context.Context, admin.ListOptions) (admin.Page[T], error), columns []column[T]) *cobra.Command {
	var o admin.ListOptions
	var most int
	cmd := &cobra.Command{Use: "list --organization ORG", Short: short + ", newest first", Example: "  " + example, Args: arguments()}
	cmd.Flags().StringVar(&o.Organization, "organization", "", "organization by id or slug (required)")
	limitFlag(cmd, &most)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, "organization"); err != nil {
			return err
		}
		return listWith(a, cmd, *output, o, most, list, columns)
	}
	return cmd
}

func limitFlag(cmd *cobra.Command, most *int) {
	cmd.Flags().IntVar(most, "limit", 0, "show at most so many (default 0: all)")
}
