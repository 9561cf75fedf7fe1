package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keygate/internal/keys"
)

// add stores a key under a name; its secret is the name.
func add(t *testing.T, s *Store, name string) {
	t.Helper()
	k := keys.Key{ID: "key_" + name, Name: name, Account: "acc_1", Secrets: []keys.Secret{{Hash: keys.HashSecret(name)}}}
	if _, err := s.Apply(t.Context(), keys.Mutation{Keys: []keys.Key{k}, Audit: []keys.AuditEntry{{ID: "aud_" + name, At: time.UnixMicro(1_700_000_000_000_000)}}}); err != nil {
		t.Error(err)
	}
}

func has(t *testing.T, s *Store, name string) bool {
	t.Helper()
	_, err := s.Lookup(t.Context(), keys.HashSecret(name))
	if err != nil && !errors.Is(err, keys.ErrNotFound) {
		t.Error(err)
	}
	return err == nil
}

// newStore has an account for add.
func newStore(t *testing.T, dir string) *Store {
	t.Helper()
	s := openStore(t, Options{Dir: dir})
	if _, err := s.Apply(t.Context(), keys.Mutation{Accounts: []keys.Account{{ID: "acc_1"}}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func backup(t *testing.T, o BackupOptions) Summary {
	t.Helper()
	summary, err := Backup(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return summary
}

// restored opens a backup as the store of a directory of its own.
func restored(t *testing.T, file string) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	restore(t, RestoreOptions{Dir: dir, File: file})
	return openStore(t, Options{Dir: dir})
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// A backup is one moment: what was acknowledged before it is in it, what is
// acknowledged while it is being made is not held up and is not in it.
func TestBackupIsOneMoment(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	fill(t, s, 4500)
	add(t, s, "before")
	file := filepath.Join(t.TempDir(), "backup.db")
	during := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	summary, err := Backup(ctx, BackupOptions{Dir: dir, File: file, Progress: func(doing string, done, total int64) {
		if doing == "copying" && done < total {
			add(t, s, fmt.Sprint("during ", during))
			during++
		}
		if during > 100 { // a copy that starts over at every change would never end
			cancel()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if during == 0 {
		t.Fatal("the copy was made in one step, which proves nothing")
	}
	check(t, s.readers, "SELECT max(version_id) FROM goose_db_version", fmt.Sprint(summary.Schema))
	want := Summary{Keys: 4501, Organizations: 100, Size: summary.Size, Schema: summary.Schema, LastChange: time.UnixMicro(1_700_000_000_000_000).UTC()}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 || info.Size() != summary.Size || summary != want {
		t.Errorf("%+v, want %+v; the file is %v (%v)", summary, want, info, err)
	}
	if got := names(t, filepath.Dir(file)); got != "backup.db" {
		t.Errorf("beside the backup there are %s", got)
	}
	if err := s.Ping(t.Context()); err != nil || !has(t, s, "during 0") {
		t.Errorf("the store that was saved: %v", err)
	}
	r := restored(t, file)
	if !has(t, r, "before") || has(t, r, "during 0") {
		t.Error("the backup is of another moment")
	}
	check(t, r.readers, "PRAGMA integrity_check", "ok")
}

// Writers race with backups: each has whole changes, and all that were
// acknowledged when it began.
func TestBackupUnderWriters(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	const writers = 4
	var mu sync.Mutex
	var acknowledged []string
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer all.Wait()
	defer stop()
	for w := range writers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprint(w, " ", i)
				add(t, s, name)
				mu.Lock()
				acknowledged = append(acknowledged, name)
				mu.Unlock()
			}
		})
	}
	for n := range 5 {
		mu.Lock()
		before := acknowledged[:len(acknowledged):len(acknowledged)]
		mu.Unlock()
		file := filepath.Join(t.TempDir(), "backup.db")
		summary := backup(t, BackupOptions{Dir: dir, File: file})
		r := restored(t, file)
		for _, name := range before {
			if !has(t, r, name) {
				t.Errorf("backup %d lacks the acknowledged key %s", n, name)
			}
		}
		check(t, r.readers, "SELECT count(*) - (SELECT count(*) FROM audit) FROM keys", "0")
		check(t, r.readers, "SELECT count(*) - (SELECT count(*) FROM secrets) FROM keys", "0")
		if int(summary.Keys) < len(before) {
			t.Errorf("%d keys, %d were acknowledged before", summary.Keys, len(before))
		}
	}
}

// Where nobody serves, the file that is saved is not written to.
func TestBackupOfAStoppedStore(t *testing.T) {
	dir, file := filled(t, 300)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0))
	target := filepath.Join(dir, "kept.db") // in a container there may be no other place
	backup(t, BackupOptions{Dir: dir, File: target})
	if err := os.Chmod(target, 0o644); err != nil {
		t.Fatal(err)
	}
	if summary := backup(t, BackupOptions{Dir: dir, File: target, Overwrite: true}); summary.Keys != 300 {
		t.Errorf("%+v", summary)
	}
	if info, err := os.Stat(target); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the database was changed (%v)", err)
	}
	if s := openStore(t, Options{Dir: dir}); !has(t, s, "key_000001") {
		t.Error("a key is gone")
	}
}

func TestBackupRefuses(t *testing.T) {
	dir, file := filled(t, 10)
	elsewhere := t.TempDir()
	path := func(name string) string { return filepath.Join(elsewhere, name) }
	for name, make := range map[string]func(path string) error{
		"there":     func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"symlink":   func(p string) error { return os.Symlink("there", p) },
		"hard":      func(p string) error { return os.Link(file, p) },
	} {
		if err := make(path(name)); err != nil {
			t.Fatal(err)
		}
	}
	before := names(t, elsewhere)
	for _, tt := range []struct {
		name, file string
		force      bool
		say        string
	}{
		{"a file that is there", path("there"), false, "is there already"},
		{"a directory", path("directory"), true, "is a directory"},
		{"a pipe", path("fifo"), true, "is not a regular file"},
		{"a device", "/dev/full", true, "is not a regular file"},
		{"a symbolic link", path("symlink"), true, "is not a regular file"},
		{"no such directory", path("none/x.db"), true, "no such file or directory"},
		{"below a file", path("there/x.db"), true, "not a directory"},
		{"the database itself", file, true, "keygate itself uses this name"},
		{"the database through a link", path("hard"), true, "is control.db of the data directory itself"},
		{"its log", file + "-wal", false, "keygate itself uses this name"},
		{"the directory's lock", filepath.Join(dir, "lock"), true, "keygate itself uses this name"},
		{"a name of a restore's", filepath.Join(dir, acceptedPrefix+"x"), true, "keygate itself uses this name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Backup(t.Context(), BackupOptions{Dir: dir, File: tt.file, Overwrite: tt.force})
			var fault *FileError
			if !errors.As(err, &fault) || fault.File != tt.file || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("error %v, want %q", err, tt.say)
			}
		})
	}
	if after := names(t, elsewhere); after != before {
		t.Errorf("%s became %s", before, after)
	}
	if _, err := Backup(t.Context(), BackupOptions{Dir: elsewhere, File: path("x")}); err == nil || !strings.Contains(err.Error(), "has no database") {
		t.Errorf("a directory without a database: %v", err)
	}
	if _, err := Backup(t.Context(), BackupOptions{Dir: path("none"), File: path("x")}); err == nil || !strings.Contains(err.Error(), "has no database") {
		t.Errorf("no directory: %v", err)
	}
}

// Damage is found when the backup is made, not when it is needed.
func TestBackupOfADamagedDatabase(t *testing.T) {
	dir, file := filled(t, 300)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"a page of zeros": func(b []byte) []byte { clear(b[len(b)/2&^4095:][:4096]); return b },
		"cut short":       func(b []byte) []byte { return b[:len(b)/2] },
		"not a database":  func(b []byte) []byte { clear(b[:100]); return b },
	} {
		if err := os.WriteFile(file, damage(append([]byte{}, content...)), 0o600); err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		_, err := Backup(t.Context(), BackupOptions{Dir: dir, File: filepath.Join(to, "b.db")})
		if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
		if left := names(t, to); left != "" {
			t.Errorf("%s: there is %s", name, left)
		}
	}
}

func TestBackupOfANewerDatabase(t *testing.T) {
	dir, file := filled(t, 1)
	db, err := openAs(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (4242, 1)"); err != nil {
		t.Fatal(err)
	}
	var schema *SchemaError
	if _, err := Backup(t.Context(), BackupOptions{Dir: dir, File: filepath.Join(dir, "b.db")}); !errors.As(err, &schema) || schema.File != file {
		t.Errorf("error %v", err)
	}
}

// Somebody who stops a backup finds nothing of it.
func TestInterruptedBackup(t *testing.T) {
	dir, _ := filled(t, 300)
	for _, at := range []string{"copying", "checking"} {
		to := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Backup(ctx, BackupOptions{Dir: dir, File: filepath.Join(to, "b.db"), Progress: func(doing string, _, _ int64) {
			if doing == at {
				cancel()
			}
		}})
		if left := names(t, to); !errors.Is(err, context.Canceled) || left != "" {
			t.Errorf("%s: %v, there is %q", at, err, left)
		}
	}
}
