package cli

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

// serve starts an instance and returns when it is ready; end stops it and
// returns its exit code.
func serve(t *testing.T, dir string, args ...string) (end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	env := []string{"KEYGATE_ADDR=127.0.0.1:0", "KEYGATE_ADMIN_ADDR=127.0.0.1:0", "KEYGATE_DATA_DIR=" + dir, "KEYGATE_DRAIN_TIMEOUT=1s"}
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, args, env, strings.NewReader(""), io.Discard, w)
		w.Close()
	}()
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "is ready") {
				ready <- true
			}
		}
		close(ready)
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("it ended with %d", <-code)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it did not become ready")
	}
	return func() int { cancel(); return <-code }
}

func TestServeIsTheDefault(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"serve"}} {
		if code := serve(t, t.TempDir(), args...)(); code != exitOK {
			t.Errorf("keygate %v ended with %d", args, code)
		}
	}
}

func TestServeWithALockedDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	end := serve(t, dir)
	r := run(t, []string{"KEYGATE_ADDR=127.0.0.1:0", "KEYGATE_ADMIN_ADDR=127.0.0.1:0", "KEYGATE_DATA_DIR=" + dir}, "serve")
	if r.code != exitConfig || !strings.Contains(r.stderr, dir) {
		t.Errorf("%+v", r)
	}
	if code := end(); code != exitOK {
		t.Errorf("the first one ended with %d", code)
	}
}
