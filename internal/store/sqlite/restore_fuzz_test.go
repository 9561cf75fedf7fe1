package sqlite

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keygate/internal/keys"
)

// FuzzRestore: whatever is given for a backup is refused with one line that names it,
// and the database that is there stays as it is; or it is restored, can be served, and
// the database before it is kept. An input is a whole file or, where that is empty,
// what was changed of a real backup, and to how many bytes it was cut.
func FuzzRestore(f *testing.F) {
	good, before := f.TempDir(), f.TempDir()
	for dir, name := range map[string]string{good: "new", before: "old"} {
		s, err := Open(f.Context(), Options{Dir: dir})
		if err != nil {
			f.Fatal(err)
		}
		o := keys.Organization{ID: "org_" + name, Slug: name, Name: name}
		a := keys.Account{ID: "acc_" + name, Organization: o.ID, Name: name}
		k := keys.Key{ID: "key_" + name, Name: name, Organization: o.ID, Account: a.ID, Permissions: []string{"read:all"}, Secrets: []keys.Secret{{Hash: keys.HashSecret(name)}}}
		entry := keys.AuditEntry{ID: "aud_" + name, Action: "key.create", Target: k.ID, Organization: o.ID}
		if _, err := s.Apply(f.Context(), keys.Mutation{Organizations: []keys.Organization{o}, Accounts: []keys.Account{a}, Keys: []keys.Key{k}, Audit: []keys.AuditEntry{entry}}); err != nil {
			f.Fatal(err)
		}
		if err := s.Close(); err != nil {
			f.Fatal(err)
		}
	}
	backup, err := os.ReadFile(filepath.Join(good, databaseFile))
	if err != nil {
		f.Fatal(err)
	}
	present, err := os.ReadFile(filepath.Join(before, databaseFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil), []byte(nil), uint32(0))
	f.Add([]byte("keys\n"), []byte(nil), uint32(0))
	f.Add(backup[:100], []byte(nil), uint32(0))
	f.Add([]byte(nil), []byte(nil), uint32(len(backup)/2))
	f.Add([]byte(nil), []byte{0, 0, 18, 3}, uint32(0))    // a version of the format that is to come
	f.Add([]byte(nil), []byte{0, 16, 0, 0}, uint32(0))    // a page of no kind
	f.Add([]byte(nil), []byte{0, 16, 3, 0xff}, uint32(0)) // more cells than it has room for
	f.Fuzz(func(t *testing.T, file, changes []byte, size uint32) {
		if len(file) == 0 {
			file = append(file, backup...)
			for ; len(changes) >= 4; changes = changes[4:] {
				at := binary.BigEndian.Uint32(changes) >> 8
				file[int(at)%len(file)] = changes[3]
			}
			if size > 0 {
				file = file[:min(int(size), len(file))]
			}
		}
		dir := t.TempDir()
		given := filepath.Join(t.TempDir(), "backup.db")
		for path, content := range map[string][]byte{given: file, filepath.Join(dir, databaseFile): present} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r, err := PrepareRestore(t.Context(), RestoreOptions{Dir: dir, File: given, Overwrite: true})
		if err != nil {
			var fault *FileError
			if text := err.Error(); !errors.As(err, &fault) || fault.File != given || strings.Contains(text, "\n") || len(text) > 1000 {
				t.Fatalf("the error is %q", err)
			}
			if now, err := os.ReadFile(filepath.Join(dir, databaseFile)); err != nil || string(now) != string(present) {
				t.Fatalf("a refused restore has changed the database: %v", err)
			}
			if got := strings.TrimSuffix(names(t, dir), " lock"); got != databaseFile {
				t.Fatalf("a refused restore has left %s", got)
			}
			return
		}
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(filepath.Join(r.Former, databaseFile))
		if err != nil || string(kept) != string(present) {
			t.Fatalf("the database before is not what it was: %v", err)
		}
		s, err := Open(t.Context(), Options{Dir: dir, Readers: 1})
		if err != nil {
			t.Fatalf("what was restored cannot be served: %v", err)
		}
		defer s.Close()
		// Records that make no sense are errors of who reads them, and no panic.
		_, _ = s.Keys(t.Context(), keys.KeyFilter{}, keys.Page{Limit: 10})
		_, _ = s.AuditLog(t.Context(), keys.AuditFilter{}, keys.Page{Limit: 10})
		_, _ = s.Lookup(t.Context(), keys.HashSecret("new"))
	})
}
