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
	cmd := &cobra.Command{
		Use: "pause ID|NAME", Short: "Stop a key until it is resumed", Args: arguments("ID"),
		Long:    "Stops a key until it is resumed: its clients are refused meanwhile. It asks only for the very key that the command uses.",
		Example: "  keygate keys pause billing",
	}
	q := question{text: "Pause the key %s (%s)?", quiet: true}
	return a.transition(cmd, &q, (*admin.Client).PauseKey)
}

func (a *app) keysResume() *cobra.Command {
	cmd := &cobra.Command{Use: "resume ID|NAME", Short: "Let a paused key work again", Args: arguments("ID"), Example: "  keygate keys resume billing"}
	return a.transition(cmd, nil, (*admin.Client).ResumeKey)
}

func (a *app) keysRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke ID|NAME", Short: "End a key for good; its record stays", Args: arguments("ID"),
		Long:    "Ends a key for good: from now on its clients are refused. Asks first on a terminal; elsewhere --yes is needed.",
		Example: "  keygate keys revoke billing\n  keygate keys revoke key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35 --yes",
	}
	q := question{text: "Revoke the key %s (%s)? Its clients are refused from then on, and this cannot be undone.", final: true}
	return a.transition(cmd, &q, (*admin.Client).RevokeKey)
}

// transition gives a command that changes a key what it does; without a question
// it never asks.
func (a *app) transition(cmd *cobra.Command, q *question, change func(*admin.Client, context.Context, string) (admin.Key, error)) *cobra.Command {
	yes := true
	if q != nil {
		cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	}
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, keyNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if q == nil {
			q = &question{}
		}
		c, k, err := a.chosenKey(cmd, args[0], yes, *q)
		if err != nil {
			return err
		}
		if k, err = change(c, cmd.Context(), k.ID); err != nil {
			return err
		}
		return a.printKey(cmd, c, *output, k)
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
	waitFlag(cmd)
	output := outputFlag(cmd)
	a.completeArgs(cmd, keyNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, k, err := a.chosenKey(cmd, args[0], *yes, question{
			text: "Delete the key %s (%s)? Its clients are refused from then on, its record is gone, and this cannot be undone.", final: true,
		})
		if err != nil {
			return err
		}
		if err := c.DeleteKey(cmd.Context(), k.ID); err != nil {
			return err
		}
		return a.printDeleted(*output, k.ID, k.ID+" is deleted.")
	}
	return cmd
}

// question is what a command asks before it changes something.
type question struct {
	// text has room for the name and the id.
	text string
	// final means that the change cannot be undone: without a terminal --yes is
	// needed then, and otherwise nothing.
	final bool
	// quiet means that it is asked of the caller's own key only.
	quiet bool
	// also says what else this key loses; where it does, the question is final
	// and not quiet.
	also func(admin.Key) string
}

// chosenKey finds the key that a command is about and asks, unless yes was said,
// whether to go on.
func (a *app) chosenKey(cmd *cobra.Command, ref string, yes bool, q question) (*admin.Client, admin.Key, error) {
	if err := a.mayAsk(cmd, yes, q.final); err != nil {
		return nil, admin.Key{}, err
	}
	c, err := a.client(cmd)
	if err != nil {
		return nil, admin.Key{}, err
	}
	k, err := a.findKey(cmd, c, ref)
	if err != nil || yes {
		return c, k, err
	}
	text := fmt.Sprintf(q.text, quote(k.Name), printable(k.ID))
	if q.also != nil {
		if more := q.also(k); more != "" {
			text, q.quiet = text+" "+printable(more), false
			if !a.interactive() {
				return nil, admin.Key{}, &usageError{cmd, more + " This wants to be confirmed and there is no terminal to ask on: say --yes"}
			}
		}
	}
	me, err := c.Me(cmd.Context())
	if err != nil {
		return nil, admin.Key{}, err
	}
	if me.ID == k.ID {
		a.say("keygate: warning: this is the very key in KEYGATE_ADMIN_KEY: you need another one afterwards.")
		if err := a.mayAsk(cmd, yes, true); err != nil {
			return nil, admin.Key{}, err
		}
	} else if q.quiet {
		return c, k, nil
	}
	return c, k, a.confirm(cmd, yes, text)
}

// mayAsk wants yes where there is nobody to ask about something final.
func (a *app) mayAsk(cmd *cobra.Command, yes, final bool) error {
	if yes || !final || a.interactive() {
		return nil
	}
	return &usageError{cmd, "this wants to be confirmed and there is no terminal to ask on: say --yes"}
}

func (a *app) interactive() bool { return a.terminal(a.stdin) && a.terminal(a.stderr) }

// confirm asks on a terminal, unless yes was said. Whoever must be asked is
// checked with mayAsk before.
func (a *app) confirm(cmd *cobra.Command, yes bool, text string) error {
	if yes || !a.interactive() {
		return nil
	}
	fmt.Fprint(a.stderr, text+" [y/N] ")
	answer, err := a.readLine(cmd.Context())
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &codeError{exitFailure, "nothing was changed"}
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
