package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// BackupOptions say what to save, and where.
type BackupOptions struct {
	// Dir is the data directory. A keygate may be serving from it.
	Dir string
	// File is written. Only if Overwrite is set may it be there already.
	File      string
	Overwrite bool
	// Progress may be nil.
	Progress Progress
}

// Backup saves the database of a data directory, as it is at one moment, in one
// file that needs no other. The file appears under its name when it is whole,
// checked and on the disk. The error is a *FileError if it is the file's fault,
// and wraps ErrOccupied if there is one already.
//
// A keygate that serves meanwhile goes on writing: SQLite's readers and writers
// do not wait for each other. All that it notices is that its log is not cut back
// before the copy is made.
func Backup(ctx context.Context, o BackupOptions) (Summary, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	source := filepath.Join(o.Dir, databaseFile)
	if err := checkSource(o.Dir); err != nil {
		return Summary{}, err
	}
	if err := checkTarget(o); err != nil {
		return Summary{}, err
	}
	f, err := os.CreateTemp(filepath.Dir(o.File), "keygate-backup-*.partial") // mode 0600
	if err != nil {
		return Summary{}, fileError(o.File, err)
	}
	partial := f.Name()
	defer os.Remove(partial) // gone already if all went well
	if err := f.Close(); err != nil {
		return Summary{}, fileError(o.File, err)
	}
	if err := snapshot(ctx, source, partial, o.Progress); err != nil {
		return Summary{}, explainCopy(ctx, source, o.File, err)
	}
	summary, err := checkCopy(ctx, partial, o.Progress)
	if err != nil {
		return Summary{}, explainSource(ctx, source, err)
	}
	if err := checkTarget(o); err != nil { // it may have come meanwhile
		return Summary{}, err
	}
	return summary, putInPlace(partial, o.File)
}

// putInPlace gives a file its name once its content is on the disk.
func putInPlace(partial, file string) error {
	if err := syncPath(partial); err != nil {
		return fileError(file, err)
	}
	if err := os.Rename(partial, file); err != nil {
		return fileError(file, err)
	}
	return fileError(file, syncPath(filepath.Dir(file)))
}

// checkSource refuses a directory without a database before anything is made.
func checkSource(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unusable(dir, err)
	}
	found := false
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), acceptedPrefix) {
			return fmt.Errorf("data directory %s: a restore was interrupted: start keygate, which finishes it, then back up", dir)
		}
		found = found || e.Name() == databaseFile
	}
	if !found {
		return fmt.Errorf("data directory %s has no database (%s): set KEYGATE_DATA_DIR to the directory of the keygate to back up", dir, databaseFile)
	}
	return nil
}

// checkTarget refuses a name under which something must not be replaced.
func checkTarget(o BackupOptions) error {
	if ownName(o.Dir, o.File) {
		return &FileError{o.File, errors.New("keygate itself uses this name in its data directory: choose another")}
	}
	info, err := os.Lstat(o.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fileError(o.File, err)
	case info.IsDir():
		return &FileError{o.File, errors.New("is a directory: name a file in it")}
	case !info.Mode().IsRegular():
		return &FileError{o.File, errors.New("is not a regular file: choose another name")}
	}
	for _, name := range ownFiles {
		if own, err := os.Stat(filepath.Join(o.Dir, name)); err == nil && os.SameFile(own, info) {
			return &FileError{o.File, fmt.Errorf("is %s of the data directory itself: choose another name", name)}
		}
	}
	if !o.Overwrite {
		return &FileError{o.File, fmt.Errorf("a file of this name %w", ErrOccupied)}
	}
	return nil
}

// ownFiles are those that keygate keeps in its data directory.
var ownFiles = []string{databaseFile, databaseFile + "-wal", databaseFile + "-shm", "lock", "bootstrap-key", "first-key"}

// ownName reports whether a file would be one of keygate's in the data
// directory, whether or not it is there.
func ownName(dir, file string) bool {
	name := filepath.Base(file)
	if !strings.HasPrefix(name, databaseFile) && !slices.Contains(ownFiles, name) {
		return false
	}
	a, err := os.Stat(filepath.Dir(file))
	if err != nil {
		return false
	}
	b, err := os.Stat(dir)
	return err == nil && os.SameFile(a, b)
}

// copier is what the driver's connections offer for backups.
type copier interface {
	NewBackup(uri string) (*sqlite.Backup, error)
}

// pagesAtOnce is how many pages of 4 KiB are copied between two looks at the
// context: some 20 ms.
const pagesAtOnce = 1000

// snapshot copies a database page by page (SQLite's online backup) within one
// read transaction, which makes it one moment of the source; without it the copy
// would start over at every change that the server makes, and end never.
//
// VACUUM INTO would also leave out free pages, but it builds all trees anew: it
// holds the moment twice as long (1.9 s against 1.1 s for 300,000 keys), so that
// the server's log grows twice as far, and nobody can see how far it has come.
func snapshot(ctx context.Context, source, target string, progress Progress) error {
	db, err := openAs(source, url.Values{"mode": {"ro"}, "_pragma": {busyTimeout}})
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := beginMoment(ctx, conn, source); err != nil {
		return err
	}
	if err := conn.Raw(func(c any) error { return copyPages(ctx, c.(copier), target, progress) }); err != nil {
		return err
	}
	return settle(ctx, target)
}

// beginMoment starts the transaction, in the database that has the name now: a
// restore may have put another in its place while this one was opened.
func beginMoment(ctx context.Context, conn *sql.Conn, source string) error {
	before, err := os.Stat(source)
	if err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(new(int)); err != nil {
		return err
	}
	after, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !os.SameFile(before, after) {
		return errors.New("the database was replaced in this moment: back up again")
	}
	return nil
}

// copyPages needs no journal and no sync: nobody sees the target before it is
// complete and synced.
func copyPages(ctx context.Context, c copier, target string, progress Progress) error {
	name, err := uri(target, url.Values{"_pragma": {"journal_mode(OFF)", "synchronous(OFF)"}})
	if err != nil {
		return err
	}
	b, err := c.NewBackup(name)
	if err != nil {
		return err
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, b.Finish())
		}
		if more, err = b.Step(pagesAtOnce); err != nil {
			_ = b.Finish() // which says the same again
			return err
		}
		total := int64(b.PageCount())
		progress("copying", (total-int64(b.Remaining()))*pageSize, total*pageSize)
	}
	return b.Finish()
}

const pageSize = 4096

// settle turns the mark of a database with a log into that of a single file, so
// that whoever opens the backup, on whatever disk, needs to write nothing.
func settle(ctx context.Context, file string) error {
	db, err := openAs(file, url.Values{"mode": {"rw"}, "_pragma": {"synchronous(OFF)"}})
	if err != nil {
		return err
	}
	var mode string
	err = db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode)
	if err == nil && mode != "delete" {
		err = fmt.Errorf("the journal mode is still %s", mode)
	}
	return errors.Join(err, db.Close())
}

// checkCopy looks at a whole copy.
func checkCopy(ctx context.Context, file string, progress Progress) (Summary, error) {
	progress("checking", 0, 0)
	summary, err := inspect(ctx, file)
	if err != nil {
		return summary, err
	}
	return summary, checkWhole(ctx, file, summary.Schema)
}

// explainCopy tells the failures of the file that is written from those of the
// database that is read.
func explainCopy(ctx context.Context, source, file string, err error) error {
	var engine *sqlite.Error
	if !errors.As(err, &engine) {
		return explainSource(ctx, source, err)
	}
	switch code := engine.Code(); {
	case code&0xff == sqlite3.SQLITE_FULL, code == sqlite3.SQLITE_IOERR_WRITE, code == sqlite3.SQLITE_IOERR_TRUNCATE, code == sqlite3.SQLITE_IOERR_FSYNC:
		return &FileError{file, fmt.Errorf("cannot be written: is the disk full? (%w)", err)}
	}
	return explainSource(ctx, source, err)
}

// explainSource says what is wrong with the database that was to be saved.
func explainSource(ctx context.Context, source string, err error) error {
	var engine *sqlite.Error
	var schema *SchemaError
	switch {
	case errors.As(err, &schema): // it names the copy
		return &SchemaError{File: source, Schema: schema.Schema, Know: schema.Know}
	case ctx.Err() != nil: // SQLite's own word for it is another
		return ctx.Err()
	case errors.Is(err, errForeign):
		return foreign(source, err)
	case isBroken(err):
		return damaged(source, err)
	case errors.As(err, &engine) && engine.Code()&0xff == sqlite3.SQLITE_CANTOPEN, errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: cannot be opened: back up as the user that keygate runs as, who may also write to %s (%w)", source, filepath.Dir(source), err)
	}
	return explain(source, err)
}

// fileError leaves out the path that the error of the operating system repeats.
func fileError(file string, err error) error {
	if err == nil {
		return nil
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	} else if link, ok := errors.AsType[*os.LinkError](err); ok {
		err = link.Err
	}
	return &FileError{file, err}
}
