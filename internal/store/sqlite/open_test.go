package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keygate/internal/keys"
)

// refusesToOpen wants one line that names the path and says what to do.
func refusesToOpen(t *testing.T, dir string, parts ...string) {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	for _, part := range append(parts, dir) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
	// Nothing is held: the reason, once removed, is the only one.
	var locked *LockedError
	if _, again := Open(t.Context(), Options{Dir: dir}); errors.As(again, &locked) {
		t.Error("the directory stays locked after the failure")
	}
}

// Tests may run as root, whom no permission stops: the obstacles are of kinds
// that stop root too.
func TestUnusableDirectory(t *testing.T) {
	write := func(path string) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a file in its place", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		write(dir)
		refusesToOpen(t, dir, "not a directory", "choose a directory that user")
	})
	t.Run("below a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		write(file)
		refusesToOpen(t, filepath.Join(file, "data"), "not a directory", "choose a directory that user")
	})
	t.Run("the database is a directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "control.db"), 0o700); err != nil {
			t.Fatal(err)
		}
		refusesToOpen(t, dir, "is a directory")
	})
	if _, err := Open(t.Context(), Options{}); err == nil {
		t.Error("opened without a directory")
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a?b", "100%&c=#d e") // characters that mean something in SQLite's URIs
	s := openStore(t, Options{Dir: dir})
	if _, err := s.Apply(t.Context(), keys.Mutation{Settings: []keys.Setting{{Name: "x"}}}); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]fs.FileMode)
	err := filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		seen[d.Name()] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"a?b": fs.ModeDir | 0o700, filepath.Base(dir): fs.ModeDir | 0o700,
		"lock": 0o600, "control.db": 0o600, "control.db-wal": 0o600, "control.db-shm": 0o600,
	} {
		if seen[name] != want {
			t.Errorf("%s has mode %v; want %v", name, seen[name], want)
		}
	}
	if len(seen) != 6 {
		t.Errorf("unexpected files: %v", seen)
	}
}

// filled makes a database of a few hundred keys and closes it.
func filled(t *testing.T, n int) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	s := openStore(t, Options{Dir: dir})
	m := keys.Mutation{Accounts: []keys.Account{{ID: "acc_1"}}}
	for i := range n {
		id := fmt.Sprintf("key_%06d", i)
		m.Keys = append(m.Keys, keys.Key{ID: id, Name: id, Account: "acc_1", Description: strings.Repeat("x", 500), Secrets: []keys.Secret{{Hash: keys.HashSecret(id)}}})
	}
	if _, err := s.Apply(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "control.db")
}

func TestDamagedDatabase(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(content []byte) []byte
		want   string
	}{
		"not a database":   {func([]byte) []byte { return bytes.Repeat([]byte("keys\n"), 1000) }, "is not a database of keygate"},
		"header gone":      {func(b []byte) []byte { clear(b[:100]); return b }, "is not a database of keygate"},
		"cut short":        {func(b []byte) []byte { return b[:len(b)/2] }, "the database is damaged"},
		"a page of zeros":  {func(b []byte) []byte { clear(b[len(b)/2&^4095:][:4096]); return b }, "the database is damaged"},
		"garbage inside":   {func(b []byte) []byte { copy(b[len(b)/2&^4095:], bytes.Repeat([]byte{0xa5}, 8192)); return b }, "the database is damaged"},
		"the schema's end": {func(b []byte) []byte { clear(b[200:4096]); return b }, "the database is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := filled(t, 300)
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, c.damage(content), 0o600); err != nil {
				t.Fatal(err)
			}
			refusesToOpen(t, dir, file, c.want, "restore the last backup")
		})
	}
}

// TestDamageFoundLater: what the probe at the start cannot see ends Ping too.
func TestDamageFoundLater(t *testing.T) {
	dir, file := filled(t, 300)
	s := openStore(t, Options{Dir: dir})
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(16 * 4096); at < info.Size(); at += 4096 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 100), at); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Keys(t.Context(), keys.KeyFilter{}, keys.Page{Limit: 300})
	if err == nil || !strings.Contains(err.Error(), "the database is damaged") || !strings.Contains(err.Error(), file) {
		t.Errorf("reading damaged pages: %v", err)
	}
	if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "the database is damaged") {
		t.Errorf("Ping after damage was seen: %v", err)
	}
}

func TestRemovedDatabase(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "control.db")); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "was removed or replaced") {
		t.Errorf("Ping: %v", err)
	}
}

func TestOtherDatabases(t *testing.T) {
	change := func(t *testing.T, file, statement string) {
		t.Helper()
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("newer schema", func(t *testing.T) {
		dir, file := filled(t, 1)
		change(t, file, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (42, 1)")
		refusesToOpen(t, dir, file, "has schema 42", "knows 2 at most", "start the newer version")
		_, err := Open(t.Context(), Options{Dir: dir})
		var schema *SchemaError
		if !errors.As(err, &schema) || schema.Schema != 42 {
			t.Errorf("error %v", err)
		}
	})
	t.Run("another program's", func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "control.db")
		change(t, file, "CREATE TABLE cookies (id INTEGER)")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		refusesToOpen(t, dir, file, "belongs to another program")
		after, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("the file was changed (%v)", err)
		}
	})
}

// TestProbeOfALargeDatabase: the queries of the cheap probe name tables and
// columns that exist.
func TestProbeOfALargeDatabase(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	for _, edge := range edges {
		for _, end := range []string{"min(", "max("} {
			if err := s.readers.QueryRowContext(t.Context(), "SELECT "+end+edge).Scan(new(any)); err != nil {
				t.Errorf("%s%s: %v", end, edge, err)
			}
		}
	}
}
