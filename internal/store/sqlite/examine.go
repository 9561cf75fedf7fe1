package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// Summary says what a database holds.
type Summary struct {
	Keys, Organizations int64
	// Size is in bytes.
	Size   int64
	Schema int64
	// LastChange is the time of the last entry in the audit log; zero if there
	// is none.
	LastChange time.Time
}

// Progress is told how far a long piece of work has come: bytes of how many. A
// total of 0 is work whose length nobody knows. It is called often.
type Progress func(doing string, done, total int64)

// FileError says what is wrong with a file that a backup is written to or read
// from, where the data directory itself is in order.
type FileError struct {
	File string
	Err  error
}

// Error is one line. SQLite repeats what it finds in a damaged file.
func (e *FileError) Error() string {
	text := strings.ReplaceAll(e.Err.Error(), "\n", " ")
	if len(text) > maxFileError {
		text = strings.ToValidUTF8(text[:maxFileError], "") + " …"
	}
	return e.File + ": " + text
}

const maxFileError = 500 // bytes

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// ErrOccupied says that what a backup or a restore would replace is there.
var ErrOccupied = errors.New("is there already")

var errForeign = errors.New("the mark of keygate's databases is missing")

// frozen opens a file that nobody writes to. Being immutable to SQLite it needs
// neither log nor index, so nothing appears beside it. What the schema of a file
// from elsewhere would call is not trusted.
func frozen(file string) (*sql.DB, error) {
	return openAs(file, url.Values{
		"mode": {"ro"}, "immutable": {"1"},
		"_pragma": {"query_only(1)", "trusted_schema(0)", "cell_size_check(1)", "cache_size(-16384)"},
	})
}

// openAs prepares a pool of one connection. SQLite's own parameters decide what
// that may do.
func openAs(file string, parameters url.Values) (*sql.DB, error) {
	name, err := uri(file, parameters)
	if err != nil {
		return nil, err
	}
	connector, err := sqlite.NewConnector(name)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// uri escapes the path: '?' and '%' mean something in SQLite's URIs.
func uri(file string, parameters url.Values) (string, error) {
	path, err := filepath.Abs(file)
	u := url.URL{Scheme: "file", Path: path, RawQuery: parameters.Encode()}
	return u.String(), err
}

// inspect reads what a file holds, and refuses one that is no database of
// keygate or a newer keygate's. It does not look for damage.
func inspect(ctx context.Context, file string) (Summary, error) {
	info, err := os.Stat(file)
	if err != nil {
		return Summary{}, err
	}
	db, err := frozen(file)
	if err != nil {
		return Summary{}, err
	}
	defer db.Close()
	var id int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return Summary{}, err
	}
	if id != applicationID {
		return Summary{}, errForeign
	}
	s := Summary{Size: info.Size()}
	if err := s.readSchema(ctx, db, file); err != nil {
		return s, err
	}
	return s, s.count(ctx, db)
}

// readSchema comes before anything that depends on it.
func (s *Summary) readSchema(ctx context.Context, db *sql.DB, file string) error {
	provider, err := migrator(db)
	if err != nil {
		return err
	}
	sources := provider.ListSources() // in the order of their versions
	known := sources[len(sources)-1].Version
	if err := db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&s.Schema); err != nil {
		return err
	}
	if s.Schema > known {
		return &SchemaError{File: file, Schema: s.Schema, Know: known}
	}
	if s.Schema < 1 {
		return &brokenError{"it names no schema"}
	}
	return nil
}

// checkTables wants all that the migrations up to a version make, though perhaps with
// more besides: a file that lacks some of it would be found out by the next start.
func checkTables(ctx context.Context, db *sql.DB, version int64) error {
	model, err := openAs("model", url.Values{"mode": {"memory"}})
	if err != nil {
		return err
	}
	defer model.Close()
	provider, err := migrator(model)
	if err != nil {
		return err
	}
	if _, err := provider.UpTo(ctx, version); err != nil {
		return err
	}
	wanted, err := tables(ctx, model)
	if err != nil {
		return err
	}
	found, err := tables(ctx, db)
	if err != nil {
		return err
	}
	for _, t := range wanted {
		if !slices.Contains(found, t) {
			return &brokenError{fmt.Sprintf("schema %d has %s, and the file does not", version, t)}
		}
	}
	return nil
}

// tables describes a database's tables with their columns, its indexes and triggers.
func tables(ctx context.Context, db *sql.DB) (all []string, err error) {
	rows, err := db.QueryContext(ctx, `SELECT s.type || ' ' || s.name || coalesce(' (' || group_concat(c.name || ' ' || c.type || iif(c."notnull", ' NOT NULL', ''), ', ' ORDER BY c.cid) || ')', '')
		FROM sqlite_schema s LEFT JOIN pragma_table_info(s.name) c ON s.type = 'table' WHERE s.name NOT LIKE 'sqlite!_%' ESCAPE '!' GROUP BY s.type, s.name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func (s *Summary) count(ctx context.Context, db *sql.DB) error {
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM keys").Scan(&s.Keys); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM organizations").Scan(&s.Organizations); err != nil {
		return err
	}
	var at int64
	err := db.QueryRowContext(ctx, "SELECT at FROM audit ORDER BY id DESC LIMIT 1").Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	s.LastChange = time.UnixMicro(at).UTC()
	return err
}

// checkWhole reads all of a file, every index against its table, and wants all that its
// schema has: about a second for 30 MB.
func checkWhole(ctx context.Context, file string, schema int64) error {
	db, err := frozen(file)
	if err != nil {
		return err
	}
	defer db.Close()
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return &brokenError{strings.ReplaceAll(result, "\n", " ")}
	}
	var dangling int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM pragma_foreign_key_check").Scan(&dangling); err != nil {
		return err
	}
	if dangling > 0 {
		return &brokenError{"records refer to others that are not there"}
	}
	return checkTables(ctx, db, schema)
}

// brokenError is damage that SQLite reads without an error.
type brokenError struct{ found string }

func (e *brokenError) Error() string { return e.found }

// isBroken also takes in what stops SQLite in the middle of reading.
func isBroken(err error) bool {
	_, broken := errors.AsType[*brokenError](err)
	return broken || isDamage(err)
}

// syncPath has the disk take what a file or a directory holds by now.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
