package server

import (
	"context"
	"errors"

	"keygate/internal/store/sqlite"
)

// The embedded store's, for the commands.
type (
	// BackupOptions say what to save, and where.
	BackupOptions = sqlite.BackupOptions
	// RestoreOptions say what to restore, and where.
	RestoreOptions = sqlite.RestoreOptions
	// Restore is a backup that waits to be put in place.
	Restore = sqlite.Restore
	// StoreSummary says what a database holds.
	StoreSummary = sqlite.Summary
)

// ErrOccupied says that what a backup or a restore would replace is there.
var ErrOccupied = sqlite.ErrOccupied

// Backup saves the embedded store of a data directory, also while a keygate
// serves from it. The error is a *SetupError if it is the directory's fault.
func Backup(ctx context.Context, o BackupOptions) (StoreSummary, error) {
	summary, err := sqlite.Backup(ctx, o)
	return summary, blame(ctx, err)
}

// PrepareRestore checks a backup and takes hold of the data directory. The error
// is a *SetupError if it is the directory's fault.
func PrepareRestore(ctx context.Context, o RestoreOptions) (*Restore, error) {
	r, err := sqlite.PrepareRestore(ctx, o)
	return r, blame(ctx, err)
}

// blame marks what the operator must change in the configuration or in the data
// directory that it names.
func blame(ctx context.Context, err error) error {
	_, file := errors.AsType[*sqlite.FileError](err)
	if err == nil || file || ctx.Err() != nil || errors.Is(err, ErrOccupied) {
		return err
	}
	return &SetupError{err}
}
