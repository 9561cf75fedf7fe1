package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keygate/config"
	"keygate/internal/server"
)

// saved is what a backup holds, as -o json shows it.
type saved struct {
	File          string     `json:"file"`
	DataDir       string     `json:"data_dir"`
	Keys          int64      `json:"keys"`
	Organizations int64      `json:"organizations"`
	Size          int64      `json:"size"`
	Schema        int64      `json:"schema"`
	LastChange    *time.Time `json:"last_change,omitempty"`
	// Former is where a restore has moved the database that was there.
	Former string `json:"former,omitempty"`
}

func newSaved(file, dir string, s server.StoreSummary) saved {
	out := saved{File: file, DataDir: dir, Keys: s.Keys, Organizations: s.Organizations, Size: s.Size, Schema: s.Schema}
	if !s.LastChange.IsZero() {
		out.LastChange = &s.LastChange
	}
	return out
}

// String says it in one line.
func (s saved) String() string {
	text := fmt.Sprintf("%s and %s, %s, schema %d", counted(s.Keys, "key"), counted(s.Organizations, "organization"), inBytes(s.Size), s.Schema)
	if s.LastChange != nil {
		text += ", last changed " + timestamp(*s.LastChange)
	}
	return text
}

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Save the embedded store in a file, also while keygate serves", Args: storeFile(),
		Long: `Saves the database in KEYGATE_DATA_DIR, as it is at one moment, in one file for its owner only. Keygate may serve
meanwhile, and goes on writing. Needs no key, but the user that keygate runs as. The file is written under another name
beside FILE, checked, and appears whole or not at all. It holds hashes of keys, no keys; a file bootstrap-key in the data
directory is not part of it.

With REDIS_URL there is nothing to save here: back up Redis.`,
		Example: "  keygate backup /backups/keygate-$(date +%F).db\n  keygate backup /backups/keygate.db --force -o json",
	}
	force := cmd.Flags().Bool("force", false, "replace FILE if it is there")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := a.embedded("backup")
		if err != nil {
			return err
		}
		progress := a.progress()
		summary, err := server.Backup(cmd.Context(), server.BackupOptions{Dir: dir, File: args[0], Overwrite: *force, Progress: progress.report})
		progress.clear()
		if errors.Is(err, server.ErrOccupied) {
			return &codeError{exitFailure, err.Error() + ": choose another name, or replace it with --force"}
		}
		if err != nil {
			return err
		}
		s := newSaved(args[0], dir, summary)
		if *output == formatTable {
			a.say("%s is a backup of %s: %s.", args[0], dir, s)
			return nil
		}
		return a.printData(*output, s)
	}
	return cmd
}

func (a *app) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in place of the embedded store", Args: storeFile(),
		Long: `Puts a backup in place of the database in KEYGATE_DATA_DIR. Keygate must be stopped. A database that is there already
is moved aside with --force, into a directory before-restore-DATE in the data directory, never deleted. FILE is copied and
checked first, and a restore that is interrupted leaves the old database or the new one, never a mix.

What was done after the backup is undone: keys that were revoked, paused or deleted since WORK AGAIN, and keys that were
made since are unknown. Redo it from the audit log of the database that was moved aside.

Asks first on a terminal; elsewhere --yes is needed.

With REDIS_URL there is nothing to restore here: restore Redis.`,
		Example: "  keygate restore /backups/keygate-2026-01-31.db\n  KEYGATE_DATA_DIR=./data keygate restore /backups/keygate.db --force --yes",
	}
	force := cmd.Flags().Bool("force", false, "move a database that is there aside")
	yes := yesFlag(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes && !(a.terminal(a.stdin) && a.terminal(a.stderr)) {
			return &usageError{cmd, "this undoes every change since the backup and there is no terminal to ask on: confirm with --yes"}
		}
		dir, err := a.embedded("restore")
		if err != nil {
			return err
		}
		return a.restore(cmd.Context(), *output, *yes, server.RestoreOptions{Dir: dir, File: args[0], Overwrite: *force})
	}
	return cmd
}

func (a *app) restore(ctx context.Context, output format, yes bool, o server.RestoreOptions) (err error) {
	progress := a.progress()
	o.Progress = progress.report
	r, err := server.PrepareRestore(ctx, o)
	progress.clear()
	if errors.Is(err, server.ErrOccupied) {
		return &codeError{exitFailure, err.Error() + ": choose another directory, or move what is there aside with --force"}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s := newSaved(o.File, o.Dir, r.Backup)
	s.Former = r.Former
	if !yes {
		if err := a.askToRestore(ctx, s); err != nil {
			return err
		}
	}
	if err := r.Commit(); err != nil {
		return err
	}
	if output != formatTable {
		return a.printData(output, s)
	}
	a.say("%s has the backup %s now: %s.", o.Dir, o.File, s)
	if r.Former != "" {
		a.say("The database before it is in %s. Keys that were revoked since the backup work again: see its audit log.", r.Former)
	}
	return nil
}

// askToRestore returns nil for a yes.
func (a *app) askToRestore(ctx context.Context, s saved) error {
	fmt.Fprintf(a.stderr, "%s: %s.\n", printable(s.File), s)
	if s.Former != "" {
		fmt.Fprintf(a.stderr, "The database in %s is moved to %s.\n", printable(s.DataDir), printable(s.Former))
	}
	fmt.Fprintf(a.stderr, "Restore it in %s? Every change since is undone: keys that were revoked work again. [y/N] ", printable(s.DataDir))
	answer, err := a.readLine(ctx)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &codeError{exitFailure, "nothing was changed"}
}

// storeFile wants a file's name. The output cannot be a pipe: a backup is
// checked before it has its name.
func storeFile() cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 && args[0] == "-" {
			return &usageError{cmd, "standard input and output are not supported: name a file"}
		}
		return arguments("FILE")(cmd, args)
	}
}

// embedded is the data directory of the embedded store, which there is only
// without Redis.
func (a *app) embedded(command string) (dir string, err error) {
	c, warnings, err := config.FromEnv(a.env)
	for _, w := range warnings {
		a.say("keygate: warning: %s", w)
	}
	if err != nil {
		return "", err
	}
	if c.RedisURL.Reveal() != "" {
		return "", &codeError{exitConfig, "with REDIS_URL everything is kept in Redis, and 'keygate " + command + "' is for the embedded store: " +
			"use Redis's own means, such as BGSAVE and a copy of its dump file. To use the embedded store in KEYGATE_DATA_DIR, unset REDIS_URL and REDIS_URL_FILE"}
	}
	return c.DataDir, nil
}

// meter shows on a terminal how far long work has come, in one line that goes
// away again.
type meter struct {
	a     *app
	on    bool
	doing string
	shown time.Time
}

// meterPause keeps the terminal from being the slowest part.
const meterPause = 100 * time.Millisecond

func (a *app) progress() *meter { return &meter{a: a, on: a.terminal(a.stderr)} }

func (m *meter) report(doing string, done, total int64) {
	if !m.on || doing == m.doing && time.Since(m.shown) < meterPause {
		return
	}
	m.doing, m.shown = doing, time.Now()
	text := doing + " …"
	if total > 0 {
		text = fmt.Sprintf("%s %d %% of %s", doing, 100*done/total, inBytes(total))
	}
	fmt.Fprint(m.a.stderr, "\r\x1b[K"+text)
}

func (m *meter) clear() {
	if m.on && m.doing != "" {
		fmt.Fprint(m.a.stderr, "\r\x1b[K")
	}
}

func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

// inBytes is a size for people.
func inBytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", (n+1023)/1024)
}
