package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func (a *app) keysTest() *cobra.Command {
	var request requestFlags
	var permission, space string
	cmd := &cobra.Command{
		Use: "test ID|NAME [METHOD PATH]", Short: "Say whether a key works, and what it may do", Args: optional([]string{"ID"}, "METHOD", "PATH"),
		Long: `Says whether a key is in force and what it may do; with --permission whether it holds that one, with METHOD and PATH whether
the gate would let such a request through. Nothing is sent to the upstream and nothing is spent.
Exit code 0: it works, and may do what was asked about; 4: not.`,
		Example: "  keygate keys test billing\n  keygate keys test billing --permission orders:read --space research\n  keygate keys test billing GET /v1/orders/7",
	}
	cmd.Flags().StringVar(&permission, "permission", "", "does the key hold this permission?")
	cmd.Flags().StringVar(&space, "space", "", "for --permission: at this space, by id or slug")
	request.add(cmd)
	output := outputFlag(cmd)
	alias(cmd, "permissions", "permission")
	a.complete(cmd, "permission", permissionNames)
	a.completeArgs(cmd, keyNames, methods)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			return &usageError{cmd, "PATH is missing"}
		}
		if space != "" && permission == "" {
			return &usageError{cmd, "--space belongs to --permission, which is missing"}
		}
		in := admin.TestQuestion{Permission: permission, Space: space}
		if len(args) == 3 {
			q, err := request.question(cmd, args[1], args[2])
			if err != nil {
				return err
			}
			in.Method, in.Path, in.Host, in.Headers, in.Address = q.Method, q.Path, q.Host, q.Headers, q.Address
		}
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		k, err := a.findKey(cmd, c, args[0])
		if err != nil {
			return err
		}
		t, err := c.TestKey(cmd.Context(), k.ID, in)
		if err != nil {
			return err
		}
		if err := a.printTest(newNames(cmd.Context(), c), *output, args[1:], k, t); err != nil {
			return err
		}
		return allowed(t.Works && (t.Permission == nil || t.Permission.Held) && (t.Request == nil || t.Request.Allowed))
	}
	return cmd
}

func (a *app) printTest(n *names, f format, request []string, k admin.Key, t admin.KeyTest) error {
	err := printOne(a, f, t, []column[admin.KeyTest]{
		{"Key", func(t admin.KeyTest) string { return both(t.Name, t.ID) }},
		{"Status", func(t admin.KeyTest) string { return t.Status }},
		{"Works", func(t admin.KeyTest) string { return yesOr(t.Works, t.Detail) }},
		{"Works from", func(admin.KeyTest) string { return strings.Join(k.AllowedCIDRs, ", ") }},
		{"May do", func(t admin.KeyTest) string { return strings.Join(t.Scopes, ", ") }},
		{"In the space", func(admin.KeyTest) string { return n.space(k.Organization, k.Space) }},
		{"Permission", func(t admin.KeyTest) string {
			if t.Permission == nil {
				return ""
			}
			return t.Permission.Name + ": " + yesOr(t.Permission.Held, t.Permission.Detail)
		}},
	})
	if err != nil || f != formatTable || t.Request == nil {
		return err
	}
	fmt.Fprintln(a.stdout)
	return a.printExplanation(n, f, request, *t.Request)
}

func yesOr(ok bool, why string) string {
	switch {
	case ok:
		return "yes"
	case why == "":
		return "no"
	}
	return "no: " + why
}
