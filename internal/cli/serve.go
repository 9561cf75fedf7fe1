package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"keygate/config"
	"keygate/internal/server"
)

// serveCommand is the command serve and, under the program's own name, what
// happens without a command.
func (a *app) serveCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: "Serve (what happens without a command)",
		Long: `Serves the proxy and the management API until SIGINT or SIGTERM, then lets requests in flight finish.
A second signal ends at once. The policy is reloaded when its file changes, and on SIGHUP.`,
		Example: "  KEYGATE_UPSTREAM=http://localhost:9000 keygate serve",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return nil
			case cmd.HasParent():
				return arguments()(cmd, args)
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, warnings, err := config.FromEnv(a.env)
			for _, w := range warnings {
				a.say("keygate: warning: %s", w)
			}
			if err != nil {
				return err
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			return server.Run(cmd.Context(), server.Options{
				Config: c, Version: a.version, Stderr: a.stderr, Terminal: a.terminal(a.stderr), Reload: reload,
			})
		},
	}
}
