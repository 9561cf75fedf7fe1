package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

// The test binary runs itself as another process: childRole says what as.
const (
	childRole = "STORE_TEST_CHILD"
	childDir  = "STORE_TEST_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case "open":
		os.Exit(childOpen())
	case "write":
		os.Exit(childWrite())
	}
	os.Exit(m.Run())
}

func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir)
	c.Stderr = os.Stderr
	return c
}

// childOpen says how opening the directory went.
func childOpen() int {
	s, err := Open(context.Background(), Options{Dir: os.Getenv(childDir)})
	var locked *LockedError
	switch {
	case errors.As(err, &locked):
		fmt.Printf("locked by %d: %v\n", locked.PID, err)
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println("opened")
		s.Close()
	}
	return 0
}

// childWrite creates keys from several goroutines until it is killed and prints
// each id once the store has acknowledged it.
func childWrite() int {
	ctx := context.Background()
	s, err := Open(ctx, Options{Dir: os.Getenv(childDir)})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	account := keys.Account{ID: "acc_1", Name: "owner"}
	if _, err := s.Apply(ctx, keys.Mutation{Accounts: []keys.Account{account}}); err != nil {
		var exists *keys.ExistsError
		if !errors.As(err, &exists) {
			fmt.Println("error:", err)
			return 1
		}
	}
	for worker := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("key_%d_%d_%d", os.Getpid(), worker, i)
				k := keys.Key{ID: id, Name: id, Account: account.ID, Secrets: []keys.Secret{{Hash: keys.HashSecret(id)}}}
				if _, err := s.Apply(ctx, keys.Mutation{Keys: []keys.Key{k}, Audit: []keys.AuditEntry{{ID: "aud_" + id}}}); err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
				os.Stdout.WriteString(id + "\n") // one write: not torn, not buffered
			}
		}()
	}
	select {}
}

func TestSecondProcessIsLockedOut(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir})
	out, err := child(t, "open", dir).Output()
	if want := fmt.Sprintf("locked by %d: data directory %s is in use by process %[1]d: stop that one first, or choose another directory\n", os.Getpid(), dir); err != nil || string(out) != want {
		t.Errorf("the second process says %q, %v; want %q", out, err, want)
	}
	var locked *LockedError
	if _, err := Open(t.Context(), Options{Dir: dir}); !errors.As(err, &locked) || locked.Dir != dir || locked.PID != os.Getpid() {
		t.Errorf("opening twice in one process: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := child(t, "open", dir).Output(); err != nil || string(out) != "opened\n" {
		t.Errorf("after Close the other process says %q, %v", out, err)
	}
}

// TestKilled: what was acknowledged survives a process that is killed in the
// middle of writing, several times over, and the database stays whole.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for round := range 3 {
		c := child(t, "write", dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Fatal(lines.Text())
			}
			acknowledged = append(acknowledged, lines.Text())
			if n == 50*(round+1) {
				c.Process.Kill() // SIGKILL; what it has printed until then is still read
			}
		}
		c.Wait()
	}
	if len(acknowledged) < 300 {
		t.Fatalf("only %d keys were acknowledged", len(acknowledged))
	}

	start := time.Now()
	s := openStore(t, Options{Dir: dir})
	t.Logf("%d keys acknowledged; opened in %v after the kill", len(acknowledged), time.Since(start))
	for _, id := range acknowledged {
		if f, err := s.Lookup(t.Context(), keys.HashSecret(id)); err != nil || f.Key.ID != id {
			t.Errorf("key %s was acknowledged and is lost: %v", id, err)
		}
	}
	check(t, s.readers, "PRAGMA integrity_check", "ok")
	// Each change is whole: as many audit and change entries as keys (and one account).
	check(t, s.readers, "SELECT count(*) - (SELECT count(*) FROM audit) FROM keys", "0")
	check(t, s.readers, "SELECT count(*) - (SELECT count(*) FROM changes WHERE kind='key') FROM keys", "0")
	check(t, s.readers, "SELECT count(*) - (SELECT count(*) FROM secrets) FROM keys", "0")
}

func check(t *testing.T, db *sql.DB, query, want string) {
	t.Helper()
	var got string
	if err := db.QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != want {
		t.Errorf("%s: %q, %v; want %q", query, got, err, want)
	}
}
