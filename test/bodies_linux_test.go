package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// endless is a body of so many bytes.
type endless struct{ left int64 }

var piece = bytes.Repeat([]byte("0123456789abcdef"), 4<<10)

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), e.left)], piece)
	e.left -= int64(n)
	return n, nil
}

// resident is the memory that a process has, in bytes (proc_pid_status(5)).
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestLargeBodies: a body passes through in the memory of its buffers, however
// large it is, in both directions at once; whether it has a length or not, and
// whether or not a retry could want it again.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	size := int64(64 << 20)
	if full() {
		size = 1 << 30
	}
	const growth = 16 << 20
	var received atomic.Int64
	api := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/1.1 can, if asked
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "warm")
			return
		}
		n, err := io.Copy(w, r.Body) // back as it comes
		if err == nil {
			received.Add(n)
		}
	})
	g := prepare(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise", "LOG_LEVEL": "info"})
	g.release = true // the race detector remembers what memory was used for
	g.start()
	key := g.newKey("large").Secret
	c := newClient(t)
	c.Timeout = 10 * patience
	pid := g.cmd.Process.Pid

	send := func(method string, length, size int64) error {
		r, err := http.NewRequest(method, g.proxy+"/x", &endless{size})
		if err != nil {
			return err
		}
		r.ContentLength = length
		r.Header.Set("Authorization", "Bearer "+key)
		res, err := c.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if n, err := io.Copy(io.Discard, res.Body); err != nil || n != size || res.StatusCode != http.StatusOK {
			return fmt.Errorf("%d: %d of %d bytes, %w", res.StatusCode, n, size, err)
		}
		return nil
	}
	for range 4 { // so that what grows with the first requests has grown
		if err := send(http.MethodPost, -1, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	received.Store(0)
	before, most := resident(t, pid), int64(0)
	stop := make(chan struct{})
	var watching, sending sync.WaitGroup
	watching.Go(func() {
		for {
			most = max(most, resident(t, pid))
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		for _, length := range []int64{size, -1} {
			sending.Go(func() {
				if err := send(method, length, size); err != nil {
					t.Errorf("%s with length %d: %v", method, length, err)
				}
			})
		}
	}
	sending.Wait()
	close(stop)
	watching.Wait()
	t.Logf("4 bodies of %d MiB, there and back: %.1f MiB before, at most %.1f MiB", size>>20, float64(before)/(1<<20), float64(most)/(1<<20))
	if received.Load() != 4*size {
		t.Errorf("the upstream received %d bytes, want %d", received.Load(), 4*size)
	}
	if most-before > growth {
		t.Errorf("memory grew by %d MiB", (most-before)>>20)
	}
}
