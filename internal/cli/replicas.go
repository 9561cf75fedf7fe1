package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func replicaColumns(*names) []column[admin.Replica] {
	return []column[admin.Replica]{
		{"ID", func(r admin.Replica) string { return r.ID }},
		{"Name", func(r admin.Replica) string { return r.Name }},
		{"Version", func(r admin.Replica) string { return r.Version }},
		{"Policy", func(r admin.Replica) string { return strconv.FormatInt(r.Rules, 10) }},
		{"Started", func(r admin.Replica) string { return timestamp(r.StartedAt) }},
		{"Seen", func(r admin.Replica) string { return timestamp(r.SeenAt) }},
	}
}

func (a *app) replicasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "replicas", Short: "List the running replicas",
		Long:    "Lists the keygate processes that share the store and reported within the last minute. Each load of another policy gets the next number: replicas with the same number have the same policy, and one with a lower number loaded its own before another was loaded elsewhere. Operators only.",
		Example: "  keygate replicas", Args: arguments(),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		return listWith(a, cmd, c, *output, admin.ListOptions{}, 0, c.ListReplicas, replicaColumns)
	}
	return cmd
}
