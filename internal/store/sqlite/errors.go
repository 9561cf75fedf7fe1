package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"keygate/internal/keys"
)

// ErrClosed is what a closed store answers.
var ErrClosed = errors.New("the store is closed")

// SchemaError says that a newer keygate wrote the database.
type SchemaError struct {
	File         string
	Schema, Know int64
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("%s has schema %d and this version of keygate knows %d at most: start the newer version, or restore a backup made before the upgrade", e.File, e.Schema, e.Know)
}

// unusable explains why the data directory, or a file in it, cannot be used.
func unusable(dir string, err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		err = fmt.Errorf("%s %s: %w", path.Op, path.Path, path.Err) // "open" also for openat
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("data directory %s: the disk is full (%w): free some space and start again", dir, err)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, os.ErrExist), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("data directory %s cannot be used (%w): choose a directory that user %d may write to", dir, err, os.Getuid())
	}
	return fmt.Errorf("data directory %s cannot be used: %w", dir, err)
}

// explain turns an error of the engine into one line that names the file and
// what to do about it. Errors of the domain and of contexts pass unchanged.
func explain(file string, err error) error {
	var engine *sqlite.Error
	if !errors.As(err, &engine) {
		return err
	}
	dir := filepath.Dir(file)
	switch engine.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: the disk is full, nothing of this change was stored: free some space in %s (%w)", file, dir, err)
	case sqlite3.SQLITE_CORRUPT:
		return damaged(file, err)
	case sqlite3.SQLITE_NOTADB:
		return foreign(file, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%s: cannot be written: check that user %d owns %s and that the disk is not mounted read-only (%w)", file, os.Getuid(), dir, err)
	case sqlite3.SQLITE_IOERR:
		return fmt.Errorf("%s: the disk failed or is full: check the system's log and the space left in %s (%w)", file, dir, err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("%s: another program holds the database locked: close it, such as a sqlite3 shell (%w)", file, err)
	}
	return fmt.Errorf("%s: %w", file, err)
}

func isDamage(err error) bool {
	var engine *sqlite.Error
	if !errors.As(err, &engine) {
		return false
	}
	code := engine.Code() & 0xff
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

func damaged(file string, err error) error {
	return fmt.Errorf("%s: the database is damaged: stop keygate, keep a copy of %s and restore the last backup (%w)", file, filepath.Dir(file), err)
}

func foreign(file string, err error) error {
	return fmt.Errorf("%s: is not a database of keygate, or its beginning is damaged: check the data directory, or restore the last backup (%w)", file, err)
}

// refused turns a broken constraint into the domain's error for it; value is
// what was to be stored under the column that the constraint names.
func refused(err error, kind, id string, value func(column string) string) error {
	var engine *sqlite.Error
	if !errors.As(err, &engine) {
		return err
	}
	switch engine.Code() {
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return fmt.Errorf("what %s %s refers to: %w", kind, id, keys.ErrNotFound)
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		// "…: UNIQUE constraint failed: spaces.organization, spaces.slug (2067)"
		text := engine.Error()
		text = text[strings.LastIndexByte(text, '.')+1:]
		column, _, _ := strings.Cut(text, " ")
		return &keys.ExistsError{Kind: kind, Field: column, Value: value(column)}
	}
	return err
}

// refusal reports whether an error is one that Apply's contract names, so that
// the transaction around it is still whole.
func refusal(err error) bool {
	var exists *keys.ExistsError
	var inUse *keys.InUseError
	var tooMany *keys.TooManyKeysError
	return errors.Is(err, keys.ErrConflict) || errors.Is(err, keys.ErrNotFound) ||
		errors.As(err, &exists) || errors.As(err, &inUse) || errors.As(err, &tooMany)
}
