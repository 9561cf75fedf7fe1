package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func (a *app) permissionsCommand() *cobra.Command {
	list := listCommand(a, "List the permissions that the policy knows", "keygate permissions list", (*admin.Client).ListPermissions, func(*names) []column[admin.Permission] {
		return []column[admin.Permission]{
			{"Name", func(p admin.Permission) string { return p.Name }},
			{"Group", func(p admin.Permission) string { return p.Group }},
			{"Title", func(p admin.Permission) string { return p.Title }},
			{"Implies", func(p admin.Permission) string { return some(p.Implies, 3) }},
		}
	})
	return group("permissions", "Permissions that keys can be given", list)
}

func (a *app) rolesCommand() *cobra.Command {
	list := listCommand(a, "List the roles of the policy", "keygate roles list", (*admin.Client).ListRoles, func(*names) []column[admin.Role] {
		return []column[admin.Role]{
			{"Name", func(r admin.Role) string { return r.Name }},
			{"Permissions", func(r admin.Role) string { return strings.Join(r.Permissions, ",") }},
			{"Come to", func(r admin.Role) string { return some(r.Expanded, 4) }},
		}
	})
	list.Long = "Lists the roles of the policy with their permissions, and all that these come to; -o json has it in full."
	return group("roles", "Roles that accounts can be given", list)
}

func (a *app) plansCommand() *cobra.Command {
	list := listCommand(a, "List the plans of the policy", "keygate plans list", (*admin.Client).ListPlans, func(*names) []column[admin.Plan] {
		return []column[admin.Plan]{
			{"Name", func(p admin.Plan) string {
				if p.Default {
					return p.Name + " (default)"
				}
				return p.Name
			}},
			{"Limits", func(p admin.Plan) string {
				if len(p.Limits) == 0 {
					return "unlimited"
				}
				return shownLimits(&admin.Overrides{Limits: p.Limits})
			}},
			{"In flight", func(p admin.Plan) string {
				if p.Concurrent == 0 {
					return "any"
				}
				return strconv.FormatInt(p.Concurrent, 10)
			}},
			{"Max keys", func(p admin.Plan) string {
				if p.MaxKeys == nil {
					return "unlimited"
				}
				return strconv.Itoa(*p.MaxKeys)
			}},
		}
	})
	return group("plans", "Plans that organizations and keys can be given", list)
}

func (a *app) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "whoami", Short: "Show which key the command line uses, and what it may do",
		Long:    "Shows which key KEYGATE_ADMIN_KEY holds, whose it is and what it may do with the management API.",
		Example: "  keygate whoami", Args: arguments(),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return showWith(a, cmd, *output, callerFields, func(ctx context.Context, c *admin.Client) (admin.Caller, error) { return c.Me(ctx) })
	}
	return cmd
}

func callerFields(n *names) []column[admin.Caller] {
	return []column[admin.Caller]{
		{"Key", func(me admin.Caller) string { return both(me.Name, me.ID) }},
		{"Account", func(me admin.Caller) string { return both(n.account(me.Account), me.Account) }},
		{"Acts in", func(me admin.Caller) string {
			switch {
			case me.Operator:
				return "every organization, as an operator of the instance"
			case me.Space != "":
				return fmt.Sprintf("the space %s of the organization %s", n.space(me.Organization, me.Space), n.organization(me.Organization))
			}
			return "the organization " + n.organization(me.Organization)
		}},
		{"Permissions", func(me admin.Caller) string { return strings.Join(me.Permissions, ", ") }},
	}
}

// permissionTitles are the titles of the policy's permissions, by name.
func permissionTitles(ctx context.Context, c *admin.Client) map[string]string {
	page, err := c.ListPermissions(ctx, admin.ListOptions{})
	if err != nil {
		return nil // a key can be shown without
	}
	titles := make(map[string]string, len(page.Items))
	for _, p := range page.Items {
		titles[p.Name] = p.Title
	}
	return titles
}
