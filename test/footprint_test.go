package test

import (
	"fmt"
	"testing"
)

// footprint is what a gateway holds: its goroutines, and its descriptors as the
// kernel counts them (proc_pid_fd(5)).
type footprint struct {
	goroutines, files float64
}

func (g *gateway) footprint() footprint {
	g.t.Helper()
	return footprint{g.metric("go_goroutines"), g.metric("process_open_fds")}
}

// footprintSlack is for connections that pools keep, at two goroutines for each, and
// those of the requests that ask.
const footprintSlack = 20

// settles waits until a gateway holds no more than it did before a disturbance.
func (g *gateway) settles(t *testing.T, before footprint) {
	t.Helper()
	var now footprint
	eventually(t, fmt.Sprintf("there are about %v goroutines and %v descriptors again", before.goroutines, before.files), func() bool {
		now = g.footprint()
		return now.goroutines <= before.goroutines+footprintSlack && now.files <= before.files+footprintSlack
	})
	t.Logf("%v goroutines and %v descriptors before, %v and %v after", before.goroutines, before.files, now.goroutines, now.files)
}
