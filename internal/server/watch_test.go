package server

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// watched is a policyWatch at work over a file that starts as "0".
type watched struct {
	t     *testing.T
	file  string
	logs  *observer.ObservedLogs
	tells chan struct{}
	seen  atomic.Value // what the file held when it was looked at last
}

func watchFile(t *testing.T, lookEvery time.Duration) *watched {
	t.Helper()
	before := goleak.IgnoreCurrent()
	core, logs := observer.New(zap.InfoLevel)
	w := &watched{t: t, file: filepath.Join(t.TempDir(), "policy", "policy.yaml"), logs: logs, tells: make(chan struct{})}
	if err := os.Mkdir(filepath.Dir(w.file), 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("0")
	w.seen.Store("0")
	watch := &policyWatch{
		file: w.file, tell: w.tells, log: zap.New(core), lookEvery: lookEvery,
		changed: func() bool { return w.read() != w.seen.Load() },
	}
	stop := inBackground(watch.run)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, before)
	})
	return w
}

func (w *watched) read() string {
	b, err := os.ReadFile(w.file)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (w *watched) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// told waits for the next change.
func (w *watched) told() {
	w.t.Helper()
	select {
	case <-w.tells:
		w.seen.Store(w.read())
	case <-time.After(time.Minute):
		w.t.Fatal("the change is not noticed")
	}
}

func (w *watched) logged(message string) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); w.logs.FilterMessageSnippet(message).Len() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%q is not logged: %v", message, w.logs.All())
		}
	}
}

// Events alone are enough: nothing is looked at without one.
func TestWatchHearsOfChanges(t *testing.T) {
	w := watchFile(t, time.Hour)
	w.write("1")
	w.told()
	next := w.file + "~"
	if err := os.WriteFile(next, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, w.file); err != nil {
		t.Fatal(err)
	}
	w.told()
}

// A directory that is never quiet does not hide a change.
func TestWatchInABusyDirectory(t *testing.T) {
	w := watchFile(t, time.Hour)
	busy, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(end)
		for {
			select {
			case <-busy:
				return
			case <-time.After(10 * time.Millisecond):
				_ = os.WriteFile(w.file+".log", []byte("line\n"), 0o600)
			}
		}
	}()
	w.write("1")
	w.told()
	close(busy)
	<-end
}

// A file behind a link, like one on a network file system, sends no event.
func TestWatchLooksWithoutAnEvent(t *testing.T) {
	w := watchFile(t, 20*time.Millisecond)
	elsewhere := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(elsewhere, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, w.file); err != nil {
		t.Fatal(err)
	}
	w.told()
	if err := os.WriteFile(elsewhere, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.told()
}

// A directory that vanishes is a change, and said once; when it is back it is
// watched again.
func TestWatchOfADirectoryThatVanishes(t *testing.T) {
	w := watchFile(t, 20*time.Millisecond)
	dir := filepath.Dir(w.file)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	w.told()
	w.logged("cannot be watched: bring it back; meanwhile the file is looked at every few seconds, and SIGHUP reloads it at once")
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	w.told()
	w.logged("is watched again")
	if n := w.logs.FilterMessageSnippet("cannot be watched").Len(); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// The watch ends also while nobody listens to what it tells.
func TestWatchEndsWhileItTells(t *testing.T) {
	w := watchFile(t, time.Hour)
	w.write("1")
	time.Sleep(2 * settleFor) // by then it tells; if not, this tests less
}

func TestRemedy(t *testing.T) {
	seen := make(map[string]bool)
	for _, err := range []error{syscall.ENOSPC, syscall.EMFILE, syscall.ENOENT, fsnotify.ErrClosed, context.Canceled} {
		seen[remedy(err)] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d remedies: %v", len(seen), seen)
	}
}
