package test

import (
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	_ "modernc.org/sqlite" // to look at the database with something that is not keygate

	"keygate/internal/admin"
)

// Keys that the management API has acknowledged outlive a kill -9 that comes
// while others are being made, every time.
func TestKillDuringCreation(t *testing.T) {
	t.Parallel()
	const rounds, workers = 30, 16
	g := start(t, settings{"KEYGATE_DEFAULT_PLAN": "enterprise"})
	var acknowledged []admin.CreatedKey
	for round := range rounds {
		c := newClient(t)
		// Rounds end at various depths of the storm, all of them before the API's
		// limit of 50 a second.
		fresh := g.storm(c, workers, 5+round, func(worker, i int) string {
			return fmt.Sprintf("round %d worker %d key %d", round, worker, i)
		})
		g.start()
		g.allWork(c, fresh)
		acknowledged = append(acknowledged, fresh...)
		if t.Failed() {
			t.Fatalf("after round %d", round)
		}
	}
	t.Logf("%d keys were acknowledged in %d rounds", len(acknowledged), rounds)
	g.allWork(newClient(t), acknowledged)

	var listed []admin.Key
	g.must(&listed, "keys", "list", "--organization", "default")
	known := make(map[string]bool)
	for _, k := range listed {
		known[k.ID] = true
	}
	for _, k := range acknowledged {
		if !known[k.ID] {
			t.Errorf("key %s is not listed", k.ID)
		}
	}
	// What was under way at a kill may be there or not, and nothing else.
	if extra := len(listed) - len(acknowledged); len(known) != len(listed) || extra < 0 || extra > rounds*workers {
		t.Errorf("%d keys are listed (%d different ones), %d were acknowledged", len(listed), len(known), len(acknowledged))
	}
	g.stop()
	checkDatabase(t, g.dir, listed)
}

// storm makes keys from many clients at once, kills the gateway as soon as so
// many are acknowledged, and returns all that were by the end.
func (g *gateway) storm(c *http.Client, workers, enough int, name func(worker, i int) string) []admin.CreatedKey {
	g.t.Helper()
	var (
		mu     sync.Mutex
		made   []admin.CreatedKey
		killed bool
		all    sync.WaitGroup
	)
	reached, over := make(chan struct{}), make(chan struct{})
	for w := range workers {
		all.Go(func() {
			for i := 0; ; i++ {
				k, err := create(c, g.management, g.key, admin.NewKey{Name: name(w, i)})
				mu.Lock()
				if err == nil {
					if made = append(made, k); len(made) == enough {
						close(reached)
					}
				} else if !killed {
					g.t.Errorf("before the kill: %v", err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	go func() { all.Wait(); close(over) }()
	select {
	case <-reached:
	case <-over: // every client failed
	}
	mu.Lock()
	killed = true
	mu.Unlock()
	g.kill9()
	<-over
	return made
}

func (g *gateway) allWork(c *http.Client, all []admin.CreatedKey) {
	g.t.Helper()
	for _, k := range all {
		if a, err := try(c, http.MethodGet, g.proxy+"/hello", k.Secret, nil); err != nil || a.status != http.StatusOK {
			g.t.Errorf("acknowledged key %s: %v, %d %s", k.ID, err, a.status, a.body)
		}
	}
}

// checkDatabase reads the file of a stopped gateway: it is whole, and each key
// has its entry in the audit log and its secret.
func checkDatabase(t *testing.T, dir string, all []admin.Key) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "control.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var result string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("integrity_check: %v %s", err, result)
	}
	var broken int
	if err := db.QueryRow("SELECT count(*) FROM pragma_foreign_key_check").Scan(&broken); err != nil || broken != 0 {
		t.Errorf("foreign_key_check: %v, %d broken references", err, broken)
	}
	for _, k := range all {
		var entries, secrets int
		if err := db.QueryRow("SELECT count(*) FROM audit WHERE action = 'key.create' AND target = ?", k.ID).Scan(&entries); err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRow("SELECT count(*) FROM secrets WHERE key = ?", k.ID).Scan(&secrets); err != nil {
			t.Fatal(err)
		}
		if entries != 1 || secrets != 1 {
			t.Errorf("key %s has %d entries in the audit log and %d secrets", k.ID, entries, secrets)
		}
	}
}
