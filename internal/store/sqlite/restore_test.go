package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keygate/internal/keys"
)

func restore(t *testing.T, o RestoreOptions) (former string) {
	t.Helper()
	r, err := PrepareRestore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Commit(), r.Close()); err != nil {
		t.Fatal(err)
	}
	return r.Former
}

// killed makes a directory as a killed keygate leaves it: its newest change, a
// key of that name, is in the log only.
func killed(t *testing.T, name string) (dir string) {
	t.Helper()
	from, dir := t.TempDir(), t.TempDir()
	s := newStore(t, from)
	add(t, s, name)
	for _, file := range []string{"control.db", "control.db-wal", "control.db-shm"} {
		content, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// backupOf is a backup of a database with a key of that name.
func backupOf(t *testing.T, name string) (file string) {
	t.Helper()
	dir := t.TempDir()
	add(t, newStore(t, dir), name)
	file = filepath.Join(t.TempDir(), "backup.db")
	backup(t, BackupOptions{Dir: dir, File: file})
	return file
}

// A revoked key is active again, and one made since is unknown: a restore is the
// moment of the backup, for better or worse. What was there is kept, usable.
func TestRestore(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	add(t, s, "old")
	file := filepath.Join(t.TempDir(), "backup.db")
	backup(t, BackupOptions{Dir: dir, File: file})
	k, err := s.Lookup(t.Context(), keys.HashSecret("old"))
	if err != nil {
		t.Fatal(err)
	}
	k.Key.RevokedAt = k.Key.CreatedAt.AddDate(1, 0, 0)
	if _, err := s.Apply(t.Context(), keys.Mutation{Keys: []keys.Key{k.Key}}); err != nil {
		t.Fatal(err)
	}
	add(t, s, "new")
	seq, err := s.Changes(t.Context(), keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}

	var locked *LockedError
	if _, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: file, Overwrite: true}); !errors.As(err, &locked) {
		t.Errorf("while it is served: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: file}); !errors.Is(err, ErrOccupied) {
		t.Errorf("where a database is: %v", err)
	}
	former := restore(t, RestoreOptions{Dir: dir, File: file, Overwrite: true})
	if filepath.Dir(former) != dir || names(t, dir) != filepath.Base(former)+" control.db lock" {
		t.Errorf("the directory has %s, and the database is in %s", names(t, dir), former)
	}
	if info, err := os.Stat(filepath.Join(dir, "control.db")); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}

	s = openStore(t, Options{Dir: dir})
	if k, err := s.Lookup(t.Context(), keys.HashSecret("old")); err != nil || !k.Key.RevokedAt.IsZero() {
		t.Errorf("the revoked key: %+v %v", k.Key, err)
	}
	if has(t, s, "new") {
		t.Error("the key that was made since is there")
	}
	if b, err := s.Changes(t.Context(), seq.Next, 0); err != nil || !b.Gap {
		t.Errorf("whoever read the feed further than it now goes is not told: %+v %v", b, err)
	}
	was := openStore(t, Options{Dir: former})
	if k, err := was.Lookup(t.Context(), keys.HashSecret("old")); err != nil || k.Key.RevokedAt.IsZero() || !has(t, was, "new") {
		t.Errorf("the database that was moved aside: %+v %v", k.Key, err)
	}
}

// Wherever a restore ends, the next start has the old database with all that was
// acknowledged, or the new one, and the log of the one is never applied to the
// other.
func TestCrashDuringRestore(t *testing.T) {
	file := backupOf(t, "new")
	for n := 0; ; n++ {
		dir := killed(t, "old")
		r, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: file, Overwrite: true})
		if err != nil {
			t.Fatal(err)
		}
		steps := r.steps()
		if n > len(steps) {
			r.Close()
			return
		}
		for _, step := range steps[:n] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		r.lock.Close() // as the kernel does for a process that is killed
		t.Run(fmt.Sprint("after step ", n), func(t *testing.T) {
			if _, err := Backup(t.Context(), BackupOptions{Dir: dir, File: filepath.Join(t.TempDir(), "b.db")}); n > 0 && n < len(steps)-1 && (err == nil || !strings.Contains(err.Error(), "interrupted")) {
				t.Errorf("a backup of the half: %v", err)
			}
			s := openStore(t, Options{Dir: dir})
			if old, new := has(t, s, "old"), has(t, s, "new"); old == new || new != (n > 0) {
				t.Errorf("the old key is there: %v; the new one: %v", old, new)
			}
			check(t, s.readers, "PRAGMA integrity_check", "ok")
			want := "control.db control.db-shm control.db-wal lock"
			if n > 0 {
				want = filepath.Base(r.Former) + " " + want
				if was := openStore(t, Options{Dir: r.Former}); !has(t, was, "old") {
					t.Error("the database that was moved aside has lost what was in its log")
				}
			}
			if got := names(t, dir); got != want {
				t.Errorf("the directory has %s, want %s", got, want)
			}
		})
	}
}

// Two restores within a second keep both databases.
func TestRestoreTwice(t *testing.T) {
	dir, file := killed(t, "old"), backupOf(t, "new")
	seen := make(map[string]bool)
	for range 3 {
		seen[restore(t, RestoreOptions{Dir: dir, File: file, Overwrite: true})] = true
	}
	if len(seen) != 3 {
		t.Errorf("three databases were moved to %v", seen)
	}
}

// A log without its database would be applied to the new one.
func TestRestoreBesideAStaleLog(t *testing.T) {
	dir := killed(t, "old")
	if err := os.Remove(filepath.Join(dir, "control.db")); err != nil {
		t.Fatal(err)
	}
	file := backupOf(t, "new")
	if _, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: file}); !errors.Is(err, ErrOccupied) {
		t.Errorf("without the word to overwrite: %v", err)
	}
	restore(t, RestoreOptions{Dir: dir, File: file, Overwrite: true})
	if s := openStore(t, Options{Dir: dir}); !has(t, s, "new") || has(t, s, "old") {
		t.Error("the store is a mix")
	}
}

// The copy of a stopped keygate's file, and what the sqlite3 shell saves, are
// backups too.
func TestRestoreOfACopy(t *testing.T) {
	_, file := filled(t, 20)
	if s := restored(t, file); !has(t, s, "key_000019") {
		t.Error("a key is gone")
	}
	if _, err := os.Stat(file + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the check has left something beside the copy: %v", err)
	}
}

// What is no backup is refused before there is so much as a directory.
func TestRestoreRefuses(t *testing.T) {
	good, err := os.ReadFile(backupOf(t, "new"))
	if err != nil {
		t.Fatal(err)
	}
	_, large := filled(t, 300)
	content, err := os.ReadFile(large)
	if err != nil {
		t.Fatal(err)
	}
	in := t.TempDir()
	put := func(name string, content []byte) string {
		file := filepath.Join(in, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	changed := func(statement string) string {
		file := put(fmt.Sprintf("%x.db", statement), good)
		db, err := openAs(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		return file
	}
	withLog := put("withlog.db", good)
	put("withlog.db-wal", nil)
	half := append([]byte{}, content...)
	copy(half[len(half)/2&^4095:], bytes.Repeat([]byte{0xa5}, 8192))
	later := append([]byte{}, good...)
	later[18] = 3 // https://www.sqlite.org/fileformat.html, 1.3.3: to be read and not written
	for _, tt := range []struct {
		name, file, say string
		late            bool // found in the copy
	}{
		{"nothing", filepath.Join(in, "none"), "no such file or directory", false},
		{"a directory", in, "is a directory", false},
		{"a device", "/dev/null", "is not a regular file", false},
		{"an empty file", put("empty", nil), "is not a backup of keygate", false},
		{"text", put("text", bytes.Repeat([]byte("keys\n"), 1000)), "is not a backup of keygate", false},
		{"a few bytes", put("few", good[:60]), "is not a backup of keygate", false},
		{"one page", put("page", good[:4096]), "damaged", false},
		{"half", put("half", good[:len(good)/2]), "damaged", false},
		{"garbage inside", put("garbage", half), "damaged", true},
		{"another program's", changed("PRAGMA application_id = 7"), "is not a backup of keygate", false},
		{"a newer keygate's", changed("INSERT INTO goose_db_version (version_id, is_applied) VALUES (4242, 1)"), "schema 4242", false},
		{"an index that lies", changed("PRAGMA writable_schema=1; DELETE FROM sqlite_schema WHERE name='keys_by_name'; PRAGMA writable_schema=0"), "damaged", true},
		// These were restored, and the next start could not serve them.
		{"without a table", changed("DROP TABLE remembered"), "has index remembered_until", true},
		{"without a column", changed("ALTER TABLE keys DROP COLUMN lifetime"), "has table keys (", true},
		{"without its own table", changed("DROP TABLE goose_db_version"), "its tables are others", false},
		{"without a schema", changed("DELETE FROM goose_db_version"), "names no schema", false},
		{"the format of a later SQLite", put("later", later), "of a later SQLite", true},
		{"a log beside it", withLog, "withlog.db-wal", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			_, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: tt.file})
			var fault *FileError
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), tt.say) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, tt.say)
			}
			if !tt.late {
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the data directory was made: %v", err)
				}
			} else if got := names(t, dir); got != "lock" {
				t.Errorf("the data directory has %s", got)
			}
		})
	}

	dir := killed(t, "old")
	for _, file := range []string{filepath.Join(dir, "control.db"), put("broken", half)} {
		if _, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: file, Overwrite: true}); err == nil {
			t.Errorf("%s was restored", file)
		}
	}
	if s := openStore(t, Options{Dir: dir}); !has(t, s, "old") {
		t.Error("a refused restore has changed the database")
	}
}

func TestInterruptedRestore(t *testing.T) {
	file := backupOf(t, "new")
	for _, at := range []string{"copying", "checking"} {
		dir := killed(t, "old")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := PrepareRestore(ctx, RestoreOptions{Dir: dir, File: file, Overwrite: true, Progress: func(doing string, _, _ int64) {
			if doing == at {
				cancel()
			}
		}})
		if got := names(t, dir); !errors.Is(err, context.Canceled) || got != "control.db control.db-shm control.db-wal lock" {
			t.Errorf("%s: %v, there is %s", at, err, got)
		}
	}
}
