package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"keygate/config"
	"keygate/internal/admin"
)

// client makes the client of the management API that the environment describes.
func (a *app) client(cmd *cobra.Command) (*admin.Client, error) {
	c, err := config.ClientFromEnv(a.env)
	if err != nil {
		return nil, err
	}
	if c.Key.Reveal() == "" {
		return nil, &codeError{exitConfig, "KEYGATE_ADMIN_KEY is not set: it holds a key with keygate:operator, " +
			"or a member's with permissions such as keygate:keys-read for its own organization. " +
			"The first start of keygate shows an operator's key, or writes it to the file bootstrap-key in its data directory, which KEYGATE_ADMIN_KEY_FILE can name"}
	}
	out := &admin.Client{URL: c.URL, Key: c.Key.Reveal(), Insecure: c.Insecure, UserAgent: "keygate/" + a.version, Repeat: true}
	if wait, err := cmd.Flags().GetBool(waitName); err == nil && wait {
		a.replicas = &confirmations{}
		out.WaitReplicas, out.Confirmed = true, a.replicas.add
	}
	return out, nil
}

const waitName = "wait"

// globalWaitFlag lets --wait stand before the command, too.
func globalWaitFlag(root *cobra.Command) {
	f := root.PersistentFlags()
	f.Bool(waitName, false, "wait until all replicas have acted on the change")
	_ = f.MarkHidden(waitName) // shown by the commands that understand it
}

// waitFlag makes a command understand --wait.
func waitFlag(cmd *cobra.Command) {
	cmd.Flags().Bool(waitName, false, "wait until all replicas have acted on the change, and say which have")
}

// misplacedWait refuses --wait where there is nothing to wait for.
func misplacedWait(cmd *cobra.Command) error {
	if global := cmd.Root().PersistentFlags().Lookup(waitName); global.Changed && cmd.Flags().Lookup(waitName) == global {
		return &usageError{cmd, "--wait belongs to commands that change something"}
	}
	return nil
}

// confirmations collect which replicas have acted on all changes of a command.
type confirmations struct {
	changes int
	all     []admin.Confirmation
}

func (c *confirmations) add(asked []admin.Confirmation) {
	c.changes++
next:
	for _, r := range asked {
		for i := range c.all {
			if c.all[i].ID == r.ID {
				c.all[i].Confirmed = c.all[i].Confirmed && r.Confirmed
				continue next
			}
		}
		c.all = append(c.all, r)
	}
}

// reportReplicas says which replicas have acted on what the command changed, and
// returns whether all have, as far as that was asked.
func (a *app) reportReplicas() bool {
	if a.replicas == nil || a.replicas.changes == 0 {
		return true
	}
	var acted, silent []string
	for _, r := range a.replicas.all {
		if label := r.Name + " (" + r.ID + ")"; r.Confirmed {
			acted = append(acted, label)
		} else {
			silent = append(silent, label)
		}
	}
	if len(acted) > 0 {
		a.say("In force on %s.", strings.Join(acted, ", "))
	}
	switch {
	case len(silent) > 0:
		a.say("keygate: warning: not confirmed within 2 s by %s: a replica that is cut off may not have acted on it yet.", strings.Join(silent, ", "))
	case len(acted) == 0:
		a.say("keygate: warning: it is not known which replicas have acted on it: 'keygate replicas' lists them.")
	default:
		return true
	}
	return false
}
