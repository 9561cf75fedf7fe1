package cli

import (
	"fmt"
	"strconv"
	"strings"

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
		{"Limits", func(r admin.Replica) string { return limitState(r.Limits) }},
	}
}

// limitState says in a few words where limits were not what they promise.
func limitState(l *admin.LimitSigns) string {
	if l == nil {
		return "ok"
	}
	var signs []string
	for _, sign := range []struct {
		n    uint64
		word string
	}{{l.Lost, "lost"}, {l.Held, "held"}, {l.Degraded, "alone"}, {l.Late, "late"}} {
		if sign.n > 0 {
			signs = append(signs, fmt.Sprint(sign.n, " ", sign.word))
		}
	}
	return strings.Join(signs, ", ")
}

func (a *app) replicasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "replicas", Short: "List the running replicas",
		Long: "Lists the keygate processes that share the store and reported within the last minute. Each load of another policy gets the next number: " +
			"replicas with the same number have the same policy, and one with a lower number loaded its own before another was loaded elsewhere. " +
			"Limits counts, since the start, signs that the ledger lost what was spent (lost), answers of one that waits after a loss (held), decisions without it (alone) and those for which it took too long (late). Operators only.",
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
