package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stopped makes a data directory with a store, by serving from it once.
func stopped(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	if code := serve(t, dir)(); code != exitOK {
		t.Fatalf("serving ended with %d", code)
	}
	return dir
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	dir := stopped(t)
	env := []string{"KEYGATE_DATA_DIR=" + dir}
	file := filepath.Join(t.TempDir(), "backup.db")
	r := run(t, env, "backup", file)
	if r.code != exitOK || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "1 organization, ") || !strings.Contains(r.stderr, "schema ") {
		t.Errorf("%+v", r)
	}
	if r := run(t, env, "backup", file); r.code != exitFailure || !strings.Contains(r.stderr, "--force") {
		t.Errorf("a file that is there: %+v", r)
	}
	var s saved
	r = run(t, env, "backup", file, "--force", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || r.code != exitOK || r.stderr != "" || s.File != file || s.DataDir != dir || s.Keys == 0 || s.Organizations != 1 || s.Size == 0 || s.Schema == 0 || s.LastChange == nil {
		t.Errorf("%+v: %+v %v", r, s, err)
	}

	if r := run(t, env, "restore", file); r.code != exitUsage || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("nobody to ask: %+v", r)
	}
	if r := run(t, env, "restore", file, "--yes"); r.code != exitFailure || !strings.Contains(r.stderr, "--force") {
		t.Errorf("a database that is there: %+v", r)
	}
	r = run(t, env, "restore", file, "--yes", "--force")
	if r.code != exitOK || r.stdout != "" || !strings.Contains(r.stderr, "before-restore-") || !strings.Contains(r.stderr, "work again") {
		t.Errorf("%+v", r)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	r = run(t, []string{"KEYGATE_DATA_DIR=" + fresh}, "restore", file, "--yes", "-o", "json")
	var again saved
	if err := json.Unmarshal([]byte(r.stdout), &again); err != nil || again.Keys != s.Keys || again.Former != "" || again.DataDir != fresh {
		t.Errorf("%+v %v", r, err)
	}
	if code := serve(t, fresh)(); code != exitOK {
		t.Errorf("serving the restored store ended with %d", code)
	}
}

// Each refusal has its exit code and one line that says what to do.
func TestBackupAndRestoreRefuse(t *testing.T) {
	t.Parallel()
	dir := stopped(t)
	in := t.TempDir()
	file, data := filepath.Join(in, "backup.db"), "KEYGATE_DATA_DIR="+dir
	text := write(t, "text", "no database")
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		code int
		say  string
	}{
		{"no file", []string{data}, []string{"backup"}, exitUsage, "FILE is missing"},
		{"an empty name", []string{data}, []string{"backup", ""}, exitUsage, "FILE is empty"},
		{"standard output", []string{data}, []string{"backup", "-"}, exitUsage, "name a file"},
		{"standard input", []string{data}, []string{"restore", "-", "--yes"}, exitUsage, "name a file"},
		{"two files", []string{data}, []string{"backup", file, file}, exitUsage, "too many"},
		{"Redis, backup", []string{data, "REDIS_URL=redis://127.0.0.1:1"}, []string{"backup", file}, exitConfig, "BGSAVE"},
		{"Redis, restore", []string{data, "REDIS_URL=redis://127.0.0.1:1"}, []string{"restore", file, "--yes"}, exitConfig, "REDIS_URL"},
		{"a configuration that serving would refuse", []string{data, "KEYGATE_DATADIR=x"}, []string{"backup", file}, exitConfig, "KEYGATE_DATA_DIR"},
		{"no database", []string{"KEYGATE_DATA_DIR=" + in}, []string{"backup", file}, exitConfig, "KEYGATE_DATA_DIR"},
		{"its own name", []string{data}, []string{"backup", filepath.Join(dir, "control.db"), "--force"}, exitFailure, "choose another"},
		{"a directory", []string{data}, []string{"backup", in}, exitFailure, "is a directory"},
		{"no backup", []string{data}, []string{"restore", text, "--yes", "--force"}, exitFailure, "is not a backup of keygate"},
		{"nothing to restore", []string{data}, []string{"restore", file, "--yes"}, exitFailure, "no such file"},
		{"a directory that is none", []string{"KEYGATE_DATA_DIR=" + text}, []string{"backup", file}, exitConfig, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, tt.env, tt.args...)
			if r.code != tt.code || r.stdout != "" || !strings.Contains(r.stderr, tt.say) {
				t.Errorf("%+v, want code %d and %q", r, tt.code, tt.say)
			}
		})
	}

	end := serve(t, dir)
	if r := run(t, []string{data}, "backup", file); r.code != exitOK {
		t.Errorf("backup while it serves: %+v", r)
	}
	if r := run(t, []string{data}, "restore", file, "--yes", "--force"); r.code != exitConfig || !strings.Contains(r.stderr, "stop that one first") {
		t.Errorf("restore while it serves: %+v", r)
	}
	if code := end(); code != exitOK {
		t.Errorf("serving ended with %d", code)
	}
}

// A terminal is asked, after it was shown how far the work is; what is typed
// decides.
func TestRestoreOnATerminal(t *testing.T) {
	t.Parallel()
	dir := stopped(t)
	env := []string{"KEYGATE_DATA_DIR=" + dir}
	file := filepath.Join(t.TempDir(), "backup.db")
	for typed, code := range map[string]int{"": exitFailure, "n\n": exitFailure, "y\n": exitOK} {
		terminal := func(args ...string) (int, string) {
			var stderr bytes.Buffer
			a := &app{env: env, stdin: strings.NewReader(typed), stdout: io.Discard, stderr: &stderr, terminal: func(any) bool { return true }}
			return a.run(t.Context(), args), stderr.String()
		}
		if got, said := terminal("backup", file, "--force"); got != exitOK || !strings.Contains(said, "copying 100 %") || !strings.Contains(said, "\r\x1b[K"+file) {
			t.Errorf("backup: exit %d: %q", got, said)
		}
		got, said := terminal("restore", file, "--force")
		if got != code || !strings.Contains(said, "work again. [y/N] ") || !strings.Contains(said, "is moved to") {
			t.Errorf("typed %q: exit %d, want %d: %q", typed, got, code, said)
		}
		entries, err := os.ReadDir(dir)
		moved := err == nil && strings.HasPrefix(entries[0].Name(), "before-restore-")
		if moved != (code == exitOK) {
			t.Errorf("typed %q: %v %v", typed, entries, err)
		}
		if moved {
			if err := os.RemoveAll(filepath.Join(dir, entries[0].Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestInBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 KiB", 1: "1 KiB", 131072: "128 KiB", 5 << 20: "5.0 MiB", 3 << 29: "1.5 GiB"} {
		if got := inBytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
