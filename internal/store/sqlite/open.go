package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
)

// applicationID marks a database as keygate's in its header ("kgat").
const applicationID = 0x6b676174

// Milliseconds that a connection waits for a program outside, such as a
// sqlite3 shell, to let go of the database.
const busyTimeout = "busy_timeout(5000)"

// synchronous(FULL) syncs the log on every commit; it is moved into the database
// every 1,000 pages of 4 KiB and cut back to 64 MiB. With recursive_triggers a
// REPLACE counts as the deletion that it is, which the audit log refuses.
var (
	writerPragmas = []string{busyTimeout, "synchronous(FULL)", "foreign_keys(1)", "recursive_triggers(1)", "journal_size_limit(67108864)", "cache_size(-16384)"}
	readerPragmas = []string{busyTimeout, "query_only(1)", "cache_size(-8192)"}
)

// connect prepares a pool; connections are made when they are first needed and
// kept. The path is escaped: '?' and '%' mean something in SQLite's URIs.
func connect(file string, connections int, pragmas []string) (*sql.DB, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	connector, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// createFile makes an empty database for its owner only, where SQLite would go
// by the umask; its log and index take the mode over. It reports whether the
// database is empty.
func createFile(file string) (fresh bool, err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() > 0 {
		return false, nil
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return true, dir.Sync()
}

// claim refuses another program's database before anything is written to it,
// marks a fresh one as keygate's and has it keep a log. Writing the mark each
// time also finds a disk that takes no writes.
func (s *Store) claim(ctx context.Context, fresh bool) error {
	var id, tables int
	if err := s.writing.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if err := s.writing.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if !fresh && tables > 0 && id != applicationID {
		return foreign(s.file, errors.New("it belongs to another program"))
	}
	var mode string
	if err := s.writing.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("%s: the file system cannot share memory between connections, as network file systems cannot: choose a data directory on a local disk", s.file)
	}
	_, err := s.writing.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	return err
}

// smallDatabase is the size up to which the whole database is checked at the
// start: about a tenth of a second.
const smallDatabase = 16 << 20

// probe looks for damage at a cost that does not grow with the number of keys.
// A small database is read whole. Of a larger one both edges of each tree are
// read, from the root to the leaves; SQLite itself notices at the first read
// that a file was cut short. Damage elsewhere shows when it is read.
func (s *Store) probe(ctx context.Context) error {
	info, err := os.Stat(s.file)
	if err != nil {
		return unusable(filepath.Dir(s.file), err)
	}
	if info.Size() <= smallDatabase {
		var result string
		if err := s.writing.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
			return err
		}
		if result != "ok" {
			return damaged(s.file, errors.New(strings.ReplaceAll(result, "\n", " ")))
		}
		return nil
	}
	for _, edge := range edges {
		for _, end := range []string{"min(", "max("} {
			if err := s.writing.QueryRowContext(ctx, "SELECT "+end+edge).Scan(new(any)); err != nil {
				return err
			}
		}
	}
	return nil
}

// edges complete "SELECT min(" and "SELECT max(": tables and their indexes.
var edges = []string{
	"rowid) FROM organizations", "slug) FROM organizations", "rowid) FROM spaces", "rowid) FROM accounts", "rowid) FROM grants", "account) FROM grants",
	"rowid) FROM keys", "id) FROM keys", "organization) FROM keys", "name) FROM keys", "account) FROM keys",
	"hash) FROM secrets", "key) FROM secrets", "name) FROM settings", "seq) FROM changes", "id) FROM remembered", "until) FROM remembered",
	"rowid) FROM audit", "id) FROM audit", "at) FROM audit", "organization) FROM audit", "target) FROM audit",
}
