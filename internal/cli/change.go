package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
)

func (a *app) keysPause() *cobra.Command {
	return a.transition("pause", "Stop a key until it is resumed", (*admin.Client).PauseKey)
}

func (a *app) keysResume() *cobra.Command {
	return a.transition("resume", "Let a paused key work again", (*admin.Client).ResumeKey)
}

func (a *app) transition(verb, short string, change func(*admin.Client, context.Context, string) (admin.Key, error)) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " ID|NAME", Short: short, Example: "  keygate keys " + verb + " billing", Args: arguments("ID")}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		k, err := findKey(cmd, c, args[0])
		if err != nil {
			return err
		}
		if k, err = change(c, cmd.Context(), k.ID); err != nil {
			return err
		}
		return printOne(a, *output, k, keyFields)
	}
	return cmd
}

func (a *app) keysRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke ID|NAME", Short: "End a key for good; its record stays", Args: arguments("ID"),
		Long:    "Ends a key for good: from now on its clients are refused. Asks first on a terminal; elsewhere --yes is needed.",
		Example: "  keygate keys revoke billing\n  keygate keys revoke key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35 --yes",
	}
	yes := yesFlag(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, k, err := a.confirmed(cmd, args[0], *yes, "Revoke the key %s (%s)? Its clients are refused from then on, and this cannot be undone.")
		if err != nil {
			return err
		}
		if k, err = c.RevokeKey(cmd.Context(), k.ID); err != nil {
			return err
		}
		return printOne(a, *output, k, keyFields)
	}
	return cmd
}

func (a *app) keysDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID|NAME", Short: "Remove a key and its record for good", Args: arguments("ID"),
		Long:    "Removes a key and its record for good. Asks first on a terminal; elsewhere --yes is needed. To keep the record, revoke the key instead.",
		Example: "  keygate keys delete billing\n  keygate keys delete key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35 --yes",
	}
	yes := yesFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, k, err := a.confirmed(cmd, args[0], *yes, "Delete the key %s (%s)? Its clients are refused from then on, its record is gone, and this cannot be undone.")
		if err != nil {
			return err
		}
		if err := c.DeleteKey(cmd.Context(), k.ID); err != nil {
			return err
		}
		a.say("%s is deleted.", k.ID)
		return nil
	}
	return cmd
}

func yesFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("yes", false, "do not ask")
}

// confirmed finds the key and asks, unless yes was said, whether to go on.
func (a *app) confirmed(cmd *cobra.Command, ref string, yes bool, question string) (*admin.Client, admin.Key, error) {
	if !yes && !(a.terminal(a.stdin) && a.terminal(a.stderr)) {
		return nil, admin.Key{}, &usageError{cmd, "this cannot be undone and there is no terminal to ask on: confirm with --yes"}
	}
	c, err := a.client()
	if err != nil {
		return nil, admin.Key{}, err
	}
	k, err := findKey(cmd, c, ref)
	if err != nil || yes {
		return c, k, err
	}
	fmt.Fprintf(a.stderr, question+" [y/N] ", quote(k.Name), printable(k.ID))
	answer, err := a.readLine(cmd.Context())
	if err != nil {
		return nil, admin.Key{}, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return c, k, nil
	}
	return nil, admin.Key{}, &codeError{exitFailure, "nothing was changed"}
}

// readLine reads one line, or gives up when ctx ends: a blocked read of a
// terminal cannot be called back.
func (a *app) readLine(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(a.stdin).ReadString('\n') // the end of input is no yes
		line <- s
	}()
	select {
	case s := <-line:
		return s, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
