package test

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
)

// descriptors counts what a process has open (proc_pid_fd(5)).
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A gateway that has seen a storm of clients, of broken-off requests and of an
// upstream that goes away is as light afterwards as after the first one.
func TestNoLeak(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k := g.newKey("storm")
	pid := g.cmd.Process.Pid

	storm := func() {
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				c := newClient(t)
				defer c.CloseIdleConnections()
				for j := range 10 {
					path, key, status := fmt.Sprintf("/%d/%d", i, j), k.Secret, http.StatusOK
					switch j {
					case 3:
						key, status = "", http.StatusUnauthorized
					case 6:
						path, status = "/a//b", http.StatusBadRequest
					}
					if a, err := try(c, http.MethodGet, g.proxy+path, key, nil); err != nil || a.status != status {
						t.Errorf("GET %s: %v, %d, want %d", path, err, a.status, status)
					}
				}
			})
		}
		all.Wait()
		api.CloseClientConnections() // else the gate keeps them for their next use
	}
	storm() // opens the store's connections for reading, which stay
	settled, goroutines := 0, 0.0
	eventually(t, "the first storm is over", func() bool {
		before := settled
		settled, goroutines = descriptors(t, pid), g.metric("go_goroutines")
		return settled == before && settled < 100
	})
	for range 4 {
		storm()
	}
	const slack = 5 // connections of the requests that ask
	eventually(t, fmt.Sprintf("there are no more than %d descriptors and %v goroutines again", settled, goroutines), func() bool {
		return descriptors(t, pid) <= settled+slack && g.metric("go_goroutines") <= goroutines+2*slack
	})
}
