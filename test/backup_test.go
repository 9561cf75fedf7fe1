package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"keygate/internal/admin"
)

// store executes a command on a gateway's data directory.
func (g *gateway) store(args ...string) result {
	g.t.Helper()
	return run(g.t, []string{"KEYGATE_DATA_DIR=" + g.dir}, args...)
}

// Backups are made while keys are, by the same gateway. Every key acknowledged
// before a backup began works where that is restored.
func TestBackupWhileServing(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_DEFAULT_PLAN": "enterprise"})
	revoked := g.newKey("revoked since")
	var (
		mu   sync.Mutex
		made []admin.CreatedKey
		all  sync.WaitGroup
	)
	stop := make(chan struct{})
	c := newClient(t)
	for w := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k, err := create(c, g.management, g.key, admin.NewKey{Name: fmt.Sprint("worker ", w, " key ", i)})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				made = append(made, k)
				mu.Unlock()
			}
		})
	}
	acknowledged := func() []admin.CreatedKey {
		mu.Lock()
		defer mu.Unlock()
		return made[:len(made):len(made)]
	}
	eventually(t, "some keys are made", func() bool { return len(acknowledged()) > 10 })
	file := filepath.Join(t.TempDir(), "backup.db")
	var before []admin.CreatedKey
	for range 3 {
		before = acknowledged()
		if r := g.store("backup", file, "--force"); r.code != 0 || strings.Count(r.stderr, "\n") != 1 {
			t.Fatalf("%+v", r)
		}
	}
	close(stop)
	all.Wait()
	late := g.newKey("made since")
	g.cli("keys", "revoke", revoked.ID, "--yes")
	g.wants(http.StatusUnauthorized, "/x", revoked.Secret)
	if r := g.store("restore", file, "--force", "--yes"); r.code != 3 || !strings.Contains(r.stderr, "process "+strconv.Itoa(g.cmd.Process.Pid)) {
		t.Errorf("restore while it serves: %+v", r)
	}
	g.allWork(c, acknowledged())

	// On another machine; the administrator's key is the one that was saved.
	other := prepare(t, nil)
	other.key = g.key
	delete(other.env, "KEYGATE_BOOTSTRAP_KEY")
	if r := other.store("restore", file, "--yes"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	other.start()
	other.allWork(c, append(before, revoked))
	other.wants(http.StatusUnauthorized, "/x", late.Secret)
	var listed []admin.Key
	other.must(&listed, "keys", "list", "--organization", "default")
	other.allWork(c, []admin.CreatedKey{other.newKey("made after the restore")})
	other.stop()
	checkDatabase(t, other.dir, listed)

	// In place, where the gateway was killed.
	g.kill9()
	if r := g.store("backup", file); r.code != 1 || !strings.Contains(r.stderr, "--force") {
		t.Errorf("%+v", r)
	}
	if r := g.store("restore", file, "--yes"); r.code != 1 || !strings.Contains(r.stderr, "--force") {
		t.Errorf("%+v", r)
	}
	r := g.store("restore", file, "--yes", "--force")
	former, _ := filepath.Glob(filepath.Join(g.dir, "before-restore-*"))
	if r.code != 0 || len(former) != 1 || !strings.Contains(r.stderr, former[0]) {
		t.Fatalf("%+v %v", r, former)
	}
	g.start()
	g.allWork(c, append(before, revoked))
	g.wants(http.StatusUnauthorized, "/x", late.Secret)
	g.stop()

	// What was moved aside is a data directory itself.
	g.dir, g.env["KEYGATE_DATA_DIR"] = former[0], former[0]
	g.start()
	g.allWork(c, append(acknowledged(), late))
	g.wants(http.StatusUnauthorized, "/x", revoked.Secret)
}

// A restore that is killed, at whatever moment, leaves the old keys or the new
// ones.
func TestKillDuringRestore(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	old := g.newKey("in the backup")
	file := filepath.Join(t.TempDir(), "backup.db")
	if r := g.store("backup", file); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	current := g.newKey("made since")
	c := newClient(t)
	kept, replaced := 0, 0
	// What a restore makes, in this order; the last one it never does, so it ends.
	for round, moment := range strings.Fields(strings.Repeat("control.db.incoming control.db.accepted-* before-restore-* none ", 2)) {
		g.kill9()
		before, _ := filepath.Glob(filepath.Join(g.dir, moment))
		p := launch(t, t.TempDir(), []string{"KEYGATE_DATA_DIR=" + g.dir}, program(t), "restore", file, "--force", "--yes")
		for now := before; p.running() && len(now) == len(before); {
			now, _ = filepath.Glob(filepath.Join(g.dir, moment))
		}
		p.kill9()
		g.start()
		g.allWork(c, []admin.CreatedKey{old})
		switch a := g.get("/x", current.Secret); a.status {
		case http.StatusOK:
			kept++
		case http.StatusUnauthorized:
			replaced++
			current = g.newKey("made since")
		default:
			t.Errorf("round %d, at %s: %d %s", round, moment, a.status, a.body)
		}
	}
	if kept == 0 || replaced == 0 {
		t.Errorf("%d restores were killed before they were decided, %d after: the moments prove little", kept, replaced)
	}
	t.Logf("the old store was kept %d times and replaced %d times", kept, replaced)
}

// A full disk leaves no half of a backup under its name, nor of a restore. The
// limit of a file's size stands in for the disk, which a test cannot fill.
func TestNoRoomForABackup(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	k := g.newKey("safe")
	dir := t.TempDir()
	file, full := filepath.Join(dir, "backup.db"), filepath.Join(dir, "full.db")
	if r := g.store("backup", file); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	limited := func(args ...string) *process {
		argv := append([]string{tool(t, "bash", "bash"), "-c", `ulimit -f 32 && exec "$@"`, "bash", program(t)}, args...) // of 1 KiB
		return launch(t, t.TempDir(), []string{"KEYGATE_DATA_DIR=" + g.dir}, argv...)
	}
	p := limited("backup", full)
	if code := p.wait(); code != 1 || !strings.Contains(p.stderr.String(), "is the disk full?") {
		t.Errorf("backup: exit %d: %s", code, p.said())
	}
	g.kill9()
	p = limited("restore", file, "--force", "--yes")
	if code := p.wait(); code != 3 || !strings.Contains(p.stderr.String(), "file too large") {
		t.Errorf("restore: exit %d: %s", code, p.said())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside the backup there is %v (%v)", left, err)
	}
	g.start()
	g.allWork(newClient(t), []admin.CreatedKey{k})
}
