package sqlite

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Names in the data directory. A restore is decided by one rename, of incoming to
// accepted: before it the old database is in force, after it the new one, whoever
// gets to put it in place.
const (
	databaseFile = "control.db"
	// incomingFile is being copied or checked.
	incomingFile = databaseFile + ".incoming"
	// acceptedPrefix, and a stamp, name a database that is to be put in place.
	acceptedPrefix = databaseFile + ".accepted-"
	// formerPrefix, and the same stamp, name the directory that the database before
	// it is moved to. It is itself a data directory.
	formerPrefix = "before-restore-"
)

// RestoreOptions say what to restore, and where.
type RestoreOptions struct {
	// Dir is the data directory; it is made if it is missing. No keygate may serve
	// from it.
	Dir string
	// File is a backup.
	File string
	// Overwrite allows that the directory has a database, which is moved aside.
	Overwrite bool
	// Progress may be nil.
	Progress Progress
}

// Restore is a backup that lies, checked, in the data directory and waits to be
// put in place of the database there. It holds the directory until it is closed.
type Restore struct {
	// Backup says what will be there.
	Backup Summary
	// Former is the directory that the present database will be moved to; empty if
	// there is none.
	Former string

	dir, stamp string
	lock       *os.File
}

// PrepareRestore does all of a restore that can fail for a reason, and changes
// nothing. What it checks is its own copy, so what will be served is what was
// checked. The error is a *FileError if it is the file's fault, a *LockedError if
// a keygate has the directory, and wraps ErrOccupied if a database is there.
func PrepareRestore(ctx context.Context, o RestoreOptions) (*Restore, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if err := checkBackup(ctx, o); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, unusable(o.Dir, err)
	}
	lock, err := lockDirectory(o.Dir)
	if err != nil {
		return nil, err
	}
	r := &Restore{dir: o.Dir, lock: lock}
	if err := r.prepare(ctx, o); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Restore) prepare(ctx context.Context, o RestoreOptions) error {
	if err := giveToOwner(r.dir, r.lock.Name()); err != nil {
		return unusable(r.dir, err)
	}
	if err := finishRestore(r.dir); err != nil {
		return unusable(r.dir, err)
	}
	r.choose(time.Now())
	if r.Former != "" && !o.Overwrite {
		return fmt.Errorf("data directory %s: a database %w", r.dir, ErrOccupied)
	}
	if err := takeIn(ctx, o); err != nil {
		return err
	}
	incoming := filepath.Join(r.dir, incomingFile)
	var err error
	if r.Backup, err = checkCopy(ctx, incoming, o.Progress); err == nil {
		err = tryToWrite(ctx, incoming)
	}
	if err == nil {
		err = syncPath(incoming)
	}
	return explainBackup(ctx, o.File, err)
}

// tryToWrite finds what can be read and not be written, such as the format of an SQLite
// that is to come, in a change that is not kept.
func tryToWrite(ctx context.Context, file string) error {
	db, err := openAs(file, url.Values{"mode": {"rw"}, "_pragma": {"locking_mode(EXCLUSIVE)", "journal_mode(MEMORY)", "synchronous(OFF)"}})
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // which is what it is for
	_, err = tx.ExecContext(ctx, "CREATE TABLE tried (x)")
	return err
}

// choose names the directory for the present database, if there is one. An index
// or a log alone is none, but would be taken for the new one's.
func (r *Restore) choose(now time.Time) {
	base := now.UTC().Format("20060102T150405Z")
	r.stamp = base
	for n := 2; exists(filepath.Join(r.dir, formerPrefix+r.stamp)); n++ {
		r.stamp = fmt.Sprintf("%s-%d", base, n)
	}
	for _, name := range databaseFiles {
		if exists(filepath.Join(r.dir, name)) {
			r.Former = filepath.Join(r.dir, formerPrefix+r.stamp)
		}
	}
}

// databaseFiles are the database, its log and its index.
var databaseFiles = []string{databaseFile + "-shm", databaseFile + "-wal", databaseFile}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Commit puts the backup in place. It may be called once.
func (r *Restore) Commit() error {
	for _, step := range r.steps() {
		if err := step(); err != nil {
			return unusable(r.dir, err)
		}
	}
	return nil
}

// steps are those of Commit. After any of them the process or the machine may
// end: until the first is done, opening the store opens the old database, and
// then the new one.
func (r *Restore) steps() []func() error {
	accepted := acceptedPrefix + r.stamp
	accept := func() error {
		return os.Rename(filepath.Join(r.dir, incomingFile), filepath.Join(r.dir, accepted))
	}
	return append([]func() error{accept}, installation(r.dir, accepted)...)
}

// Close lets go of the data directory. Without a Commit nothing was changed.
func (r *Restore) Close() error {
	return errors.Join(removeIncoming(r.dir), r.lock.Close())
}

// removeIncoming removes what was copied and what SQLite keeps beside it while it is
// tried: a log that stayed would be applied to the next one.
func removeIncoming(dir string) error {
	for _, suffix := range []string{"-journal", "-wal", "-shm", ""} {
		if err := os.Remove(filepath.Join(dir, incomingFile+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// finishRestore puts in place what an interrupted restore has accepted, and
// removes what it has not. Whoever calls it holds the directory.
func finishRestore(dir string) error {
	if err := removeIncoming(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), acceptedPrefix) {
			continue
		}
		for _, step := range installation(dir, e.Name()) {
			if err := step(); err != nil {
				return err
			}
		}
	}
	return nil
}

// installation is what makes an accepted database the one in force, in steps that
// can be interrupted and done again. The old log must be out of the way, durably,
// before the new database has the name that SQLite would apply that log to.
func installation(dir, accepted string) []func() error {
	former := filepath.Join(dir, formerPrefix+strings.TrimPrefix(accepted, acceptedPrefix))
	syncDir := func() error { return syncPath(dir) }
	steps := []func() error{syncDir}
	for _, name := range databaseFiles {
		steps = append(steps, func() error { return moveAside(dir, former, name) })
	}
	return append(
		steps,
		func() error { return syncFormer(former) },
		syncDir,
		func() error { return os.Rename(filepath.Join(dir, accepted), filepath.Join(dir, databaseFile)) },
		syncDir,
	)
}

// moveAside keeps a file of the old database, if there is one.
func moveAside(dir, former, name string) error {
	if !exists(filepath.Join(dir, name)) {
		return nil
	}
	if err := os.MkdirAll(former, 0o700); err != nil {
		return err
	}
	if err := giveToOwner(dir, former); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, name), filepath.Join(former, name))
}

func syncFormer(former string) error {
	if !exists(former) {
		return nil
	}
	return syncPath(former)
}

// giveToOwner has root leave nothing behind that the user whose directory it is
// could not open, as SQLite does with its files.
func giveToOwner(dir, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Chown(path, int(owner.Uid), int(owner.Gid))
}

// checkBackup refuses what is no backup, at a cost that does not grow with it,
// before the data directory is so much as looked at.
func checkBackup(ctx context.Context, o RestoreOptions) error {
	info, err := os.Stat(o.File)
	if err != nil {
		return fileError(o.File, err)
	}
	if info.IsDir() {
		return &FileError{o.File, errors.New("is a directory: name a backup in it")}
	}
	if !info.Mode().IsRegular() {
		return &FileError{o.File, errors.New("is not a regular file")}
	}
	if present, err := os.Stat(filepath.Join(o.Dir, databaseFile)); err == nil && os.SameFile(present, info) {
		return &FileError{o.File, errors.New("is the database of the data directory itself, not a backup of it")}
	}
	// The file alone would lack what its log holds, or be half of a change.
	for _, suffix := range []string{"-wal", "-journal"} {
		if exists(o.File + suffix) {
			return &FileError{o.File, fmt.Errorf("is not whole without the file %s%s beside it: restore what 'keygate backup' has made of the two, with KEYGATE_DATA_DIR set to their directory",
				filepath.Base(o.File), suffix)}
		}
	}
	if err := checkHeader(o.File); err != nil {
		return err
	}
	_, err = inspect(ctx, o.File)
	return explainBackup(ctx, o.File, err)
}

// checkHeader looks for the first bytes of every SQLite database, and for those
// that say whose it is (https://www.sqlite.org/fileformat.html, 1.3).
func checkHeader(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fileError(file, err)
	}
	defer f.Close()
	header := make([]byte, 100)
	if _, err := io.ReadFull(f, header); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fileError(file, err)
	}
	if !bytes.HasPrefix(header, []byte("SQLite format 3\x00")) || binary.BigEndian.Uint32(header[68:]) != applicationID {
		return explainBackup(context.Background(), file, errForeign)
	}
	return nil
}

// explainBackup says what is wrong with the file that was to be restored.
func explainBackup(ctx context.Context, file string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errForeign):
		return &FileError{file, fmt.Errorf("is not a backup of keygate: %w", err)}
	case isBroken(err):
		return &FileError{file, fmt.Errorf("the backup is damaged: restore another (%w)", err)}
	}
	if engine, ok := errors.AsType[*sqlite.Error](err); ok {
		switch engine.Code() & 0xff {
		case sqlite3.SQLITE_ERROR: // no such table, or column
			return &FileError{file, fmt.Errorf("is not a backup of keygate: its tables are others (%w)", err)}
		case sqlite3.SQLITE_READONLY:
			return &FileError{file, fmt.Errorf("can be read but not served: its format is of a later SQLite than this keygate has (%w)", err)}
		}
	}
	if schema, ok := errors.AsType[*SchemaError](err); ok {
		return &FileError{file, &SchemaError{File: "the backup", Schema: schema.Schema, Know: schema.Know}}
	}
	return &FileError{file, err}
}

// takeIn copies the backup into the data directory, for the owner only.
func takeIn(ctx context.Context, o RestoreOptions) error {
	in, err := os.Open(o.File)
	if err != nil {
		return fileError(o.File, err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fileError(o.File, err)
	}
	incoming := filepath.Join(o.Dir, incomingFile)
	out, err := os.OpenFile(incoming, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return unusable(o.Dir, err)
	}
	defer out.Close()
	if err := giveToOwner(o.Dir, incoming); err != nil {
		return unusable(o.Dir, err)
	}
	_, err = io.Copy(out, &watched{ctx: ctx, in: in, progress: o.Progress, total: info.Size()})
	switch path, ok := errors.AsType[*fs.PathError](err); {
	case ctx.Err() != nil:
		return ctx.Err()
	case ok && path.Path == o.File:
		return fileError(o.File, err)
	case err != nil:
		return unusable(o.Dir, err)
	}
	if err := out.Sync(); err != nil {
		return unusable(o.Dir, err)
	}
	return unusableIf(o.Dir, out.Close())
}

func unusableIf(dir string, err error) error {
	if err == nil {
		return nil
	}
	return unusable(dir, err)
}

// watched is a file that is read as long as its context lasts.
type watched struct {
	ctx         context.Context
	in          io.Reader
	progress    Progress
	done, total int64
}

func (w *watched) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.in.Read(b)
	w.done += int64(n)
	w.progress("copying", w.done, w.total)
	return n, err
}
