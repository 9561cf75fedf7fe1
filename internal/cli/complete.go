package cli

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

// completionTime bounds what a shell waits for: who presses tab goes on typing.
const completionTime = time.Second

// candidate is what could stand in a place, and what the shell shows beside it.
type candidate struct{ value, about string }

// source finds candidates. It may ask the management API, if the environment
// says where it is and with which key; an error is no candidates.
type source func(ctx context.Context, a *app, cmd *cobra.Command, start string) []candidate

// complete has the shell complete a flag.
func (a *app) complete(cmd *cobra.Command, flag string, from source) {
	_ = cmd.RegisterFlagCompletionFunc(flag, a.completion(from)) // fails only for a flag that is not there
}

// completeArgs has the shell complete the arguments, each from its source.
func (a *app) completeArgs(cmd *cobra.Command, from ...source) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(from) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completion(from[len(args)])(cmd, args, start)
	}
}

func noCompletion(cmd *cobra.Command, flag string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions) // fails only for a flag that is not there
}

// completeKeyFlags are those of commands that make or change keys.
func (a *app) completeKeyFlags(cmd *cobra.Command) {
	for flag, from := range map[string]source{
		"space": spaceNames, "account": accountNames, "permissions": permissionNames, "plan": planNames, "expires": fixed("30d", "90d", "1y", "never"),
	} {
		if cmd.Flags().Lookup(flag) != nil {
			a.complete(cmd, flag, from)
		}
	}
}

func (a *app) completion(from source) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		// Of a list what follows the last comma is completed.
		before, last := "", start
		if i := strings.LastIndex(start, ","); i >= 0 {
			before, last = start[:i+1], start[i+1:]
		}
		var out []cobra.Completion
		for _, c := range from(ctx, a, cmd, last) {
			if strings.HasPrefix(c.value, last) && !strings.ContainsFunc(c.value+c.about, strange) {
				out = append(out, cobra.CompletionWithDesc(before+c.value, c.about))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// strange is what neither a terminal nor the protocol with the shell should see.
func strange(r rune) bool { return !unicode.IsPrint(r) }

func fixed(values ...string) source {
	return func(context.Context, *app, *cobra.Command, string) []candidate {
		out := make([]candidate, len(values))
		for i, v := range values {
			out[i].value = v
		}
		return out
	}
}

var methods = fixed("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

// fromAPI is a source that reads one page of a list.
func fromAPI[T any](list func(*admin.Client, context.Context, admin.ListOptions) (admin.Page[T], error), show func(T) candidate) source {
	return func(ctx context.Context, a *app, cmd *cobra.Command, _ string) []candidate {
		return read(ctx, a, cmd, admin.ListOptions{Limit: 200}, list, show)
	}
}

// ofGivenOrganization is fromAPI for what belongs to the organization that
// --organization names.
func ofGivenOrganization[T any](list func(*admin.Client, context.Context, admin.ListOptions) (admin.Page[T], error), show func(T) candidate) source {
	return func(ctx context.Context, a *app, cmd *cobra.Command, _ string) []candidate {
		o := admin.ListOptions{Limit: 200}
		if f := cmd.Flags().Lookup("organization"); f != nil {
			o.Organization = f.Value.String()
		}
		return read(ctx, a, cmd, o, list, show)
	}
}

func read[T any](ctx context.Context, a *app, cmd *cobra.Command, o admin.ListOptions, list func(*admin.Client, context.Context, admin.ListOptions) (admin.Page[T], error), show func(T) candidate) []candidate {
	c, err := a.client(cmd)
	if err != nil {
		return nil
	}
	page, err := list(c, ctx, o)
	if err != nil {
		return nil
	}
	out := make([]candidate, len(page.Items))
	for i, item := range page.Items {
		out[i] = show(item)
	}
	return out
}

var (
	organizationNames = fromAPI((*admin.Client).ListOrganizations, func(o admin.Organization) candidate { return candidate{o.Slug, o.Name} })
	roleNames         = fromAPI((*admin.Client).ListRoles, func(r admin.Role) candidate { return candidate{r.Name, some(r.Permissions, 3)} })
	planNames         = fromAPI((*admin.Client).ListPlans, func(p admin.Plan) candidate {
		return candidate{p.Name, shownLimits(&admin.Overrides{Limits: p.Limits})}
	})
	permissionNames = fromAPI((*admin.Client).ListPermissions, func(p admin.Permission) candidate { return candidate{p.Name, p.Title} })
	spaceNames      = ofGivenOrganization((*admin.Client).ListSpaces, func(s admin.Space) candidate { return candidate{s.Slug, s.Name} })
	accountNames    = ofGivenOrganization((*admin.Client).ListAccounts, func(x admin.Account) candidate { return candidate{x.Name, x.Email} })
)

// keyNames completes names, where they stand for one key, and ids.
func keyNames(ctx context.Context, a *app, cmd *cobra.Command, start string) []candidate {
	o := admin.ListOptions{Limit: 200, Query: start}
	if strings.HasPrefix(start, "key_") {
		o.Query = ""
	}
	found := read(ctx, a, cmd, o, (*admin.Client).ListKeys, func(k admin.Key) candidate { return candidate{k.Name, k.ID} })
	count := make(map[string]int)
	for _, k := range found {
		count[k.value]++
	}
	var out []candidate
	for _, k := range found {
		name, id := k.value, k.about
		if count[name] == 1 {
			out = append(out, candidate{name, id})
		}
		if count[name] > 1 || strings.HasPrefix(start, "key_") {
			out = append(out, candidate{id, name})
		}
	}
	return out
}
