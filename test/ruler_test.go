package test

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// ruler knows by how much a machine that has other things to do is late, so that tests
// can tell that from a gateway that is: it asks the gateway for a sign of life, which
// waits for nothing but a turn on a processor, again and again.
type ruler struct {
	mu     sync.Mutex
	marks  []mark // in the order of time
	asking time.Time
}

// mark is how long a sign of life took that was asked for then.
type mark struct {
	asked time.Time
	took  time.Duration
}

// rulerEvery lies between two marks.
const rulerEvery = 10 * time.Millisecond

func newRuler(t *testing.T, g *gateway) *ruler {
	t.Helper()
	r := &ruler{asking: time.Now()}
	c := newClient(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		for {
			due := r.begin()
			select {
			case <-stop:
				return
			case <-time.After(rulerEvery):
			}
			if _, err := try(c, http.MethodGet, g.management+"/livez", "", nil); err != nil {
				return // the gateway has ended
			}
			r.end(due)
		}
	}()
	return r
}

func (r *ruler) begin() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking = time.Now()
	return r.asking
}

func (r *ruler) end(asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks = append(r.marks, mark{asked, time.Since(asked) - rulerEvery})
}

// late is the longest that a sign of life took since then, the one under way included.
func (r *ruler) late(began time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	worst := max(0, time.Since(r.asking)-rulerEvery)
	for i := len(r.marks) - 1; i >= 0 && r.marks[i].asked.Add(r.marks[i].took).After(began); i-- {
		worst = max(worst, r.marks[i].took)
	}
	return worst
}
