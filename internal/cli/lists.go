package cli

import (
	"context"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

// listWith reads a list, to its end or to most records, and shows it.
func listWith[T any](a *app, cmd *cobra.Command, c *admin.Client, f format, o admin.ListOptions, most int, list func(context.Context, admin.ListOptions) (admin.Page[T], error), columns func(*names) []column[T]) error {
	if most < 0 {
		return &usageError{cmd, "--limit must be 0 or more"}
	}
	all, err := admin.All(cmd.Context(), o, most, list)
	if err != nil {
		return err
	}
	if err := printList(a, f, all, columns(newNames(cmd.Context(), c))); err != nil {
		return err
	}
	if f == formatTable && len(all) == 0 {
		a.say("none")
	}
	return nil
}

// listCommand lists things of one kind without more ado; flags add to it.
func listCommand[T any](a *app, short, example string, list func(*admin.Client, context.Context, admin.ListOptions) (admin.Page[T], error), columns func(*names) []column[T]) *cobra.Command {
	var most int
	cmd := &cobra.Command{Use: "list", Short: short, Example: "  " + example, Args: arguments()}
	limitFlag(cmd, &most)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client(cmd)
		if err != nil {
			return err
		}
		var o admin.ListOptions
		if f := cmd.Flags().Lookup("organization"); f != nil {
			o.Organization = f.Value.String()
		}
		return listWith(a, cmd, c, *output, o, most, func(ctx context.Context, o admin.ListOptions) (admin.Page[T], error) { return list(c, ctx, o) }, columns)
	}
	return cmd
}

// showWith makes, changes or reads one thing and shows it.
func showWith[T any](a *app, cmd *cobra.Command, f format, columns func(*names) []column[T], do func(context.Context, *admin.Client) (T, error)) error {
	c, err := a.client(cmd)
	if err != nil {
		return err
	}
	out, err := do(cmd.Context(), c)
	if err != nil {
		return err
	}
	return printOne(a, f, out, columns(newNames(cmd.Context(), c)))
}

// deletion is what a program reads of something that was deleted.
type deletion struct {
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`
}

// printDeleted tells people in words and programs in data.
func (a *app) printDeleted(f format, id, done string) error {
	if f != formatTable {
		return a.printData(f, deletion{id, true})
	}
	a.say("%s", done)
	return nil
}

// deleteWith asks, unless yes was said, and then deletes; remove returns the id.
func (a *app) deleteWith(cmd *cobra.Command, yes bool, f format, text, done string, remove func(context.Context, *admin.Client) (string, error)) error {
	if err := a.mayAsk(cmd, yes, true); err != nil {
		return err
	}
	c, err := a.client(cmd)
	if err != nil {
		return err
	}
	if err := a.confirm(cmd, yes, text+" This cannot be undone."); err != nil {
		return err
	}
	id, err := remove(cmd.Context(), c)
	if err != nil {
		return err
	}
	return a.printDeleted(f, id, done)
}
