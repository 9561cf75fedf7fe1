// Package cli is the command line: serve, and the commands that use the
// management API or look at the configuration.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// version is set by the linker: -X keygate/internal/cli.version=v1.2.3
var version string

// app is what a command sees of the process.
type app struct {
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer
	version        string
	// terminal reports whether a stream is one.
	terminal func(stream any) bool
	// replicas are those that were asked whether they have acted on a change.
	replicas *confirmations
}

// Run executes the command that args name, without the program's name, and
// returns the exit code. Data goes to stdout, everything else to stderr.
func Run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: env, stdin: stdin, stdout: stdout, stderr: stderr, version: currentVersion(), terminal: isTerminal}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // for nil cobra would take those of the process
	cmd, err := root.ExecuteContextC(ctx)
	confirmed := a.reportReplicas()
	if code := a.exit(cmd, err); code != exitOK || confirmed {
		return code
	}
	return exitFailure
}

func (a *app) root() *cobra.Command {
	root := a.serveCommand("keygate")
	root.Short = "A gateway that enforces API keys"
	root.Long = `keygate stands in front of an HTTP API and lets through what a valid API key may call.

Without a command it serves. It is configured by environment variables; 'keygate config' shows them.

Commands for keys, organizations, spaces, accounts and the audit log use the management API of a running keygate:
KEYGATE_ADMIN_URL says where it is (http://127.0.0.1:9090), and KEYGATE_ADMIN_KEY holds a key.
A key with keygate:operator works in every organization. A member's key works in its own, as far as its permissions go:
keygate:keys-read, keygate:keys-write, keygate:members, keygate:audit; 'keygate whoami' shows them.
Over plain HTTP the key is sent to this machine only, unless KEYGATE_ADMIN_INSECURE=true.

With --wait a change waits until all replicas have acted on it, and says which have. Where one does not confirm it within 2 s
the exit code is 1, though the change is made.

Exit codes: 0 done, 1 failure, 2 wrong usage, 3 invalid configuration, 4 refused by the management API, 5 not found.
'keys test' and 'explain' exit with 4 where a key does not work or a request would be refused.`
	root.Example = "  KEYGATE_UPSTREAM=http://localhost:9000 keygate\n  keygate keys create --name billing --permissions orders:read"
	root.Version = a.version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetVersionTemplate("keygate {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		trimLists(cmd)
		return errors.Join(emptyFlags(cmd), misplacedWait(cmd))
	}
	globalWaitFlag(root)
	root.AddCommand(
		a.serveCommand("serve"), a.keysCommand(), a.organizationsCommand(), a.spacesCommand(), a.accountsCommand(),
		a.permissionsCommand(), a.rolesCommand(), a.plansCommand(), a.auditCommand(), a.explainCommand(), a.whoamiCommand(), a.replicasCommand(),
		a.backupCommand(), a.restoreCommand(), a.routesCommand(), a.configCommand(), a.healthcheckCommand(), a.versionCommand(),
	)
	return root
}

// group is a command that only has others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: name, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{cmd, "which command? There are " + subcommands(cmd)}
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args never lets it come here
	}
	g.AddCommand(commands...)
	return g
}

func subcommands(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, ", ")
}

func unknownCommand(cmd *cobra.Command, name string) error {
	message := "there is no command " + quote(name)
	cmd.SuggestionsMinimumDistance = 2
	if similar := cmd.SuggestionsFor(name); len(similar) > 0 {
		message += "; did you mean " + similar[0] + "?"
	}
	return &usageError{cmd, message}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  keygate version", Args: arguments(),
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.stdout, "keygate "+a.version+"\n")
			return err
		},
	}
}

// currentVersion falls back on what the Go tool recorded.
func currentVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// lookup reads a variable of the environment, "" if it is not there.
func (a *app) lookup(name string) string {
	value := ""
	for _, e := range a.env {
		if n, v, ok := strings.Cut(e, "="); ok && n == name {
			value = v
		}
	}
	return value
}
