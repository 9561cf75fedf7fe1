// Package proof puts the promise of docs/limits.md to the test from outside: real
// gateways on a real Redis, clients and an upstream that note when a request was
// sent and when it arrived, and a judge who knows nothing else. "make proof" runs
// all of it and prints what came out.
package proof

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"keygate/internal/store/redis/redistest"
)

// How much is asked for. They are functions because go test knows that a test
// looked at the environment only if the test itself does.
func whole() bool { return os.Getenv("KEYGATE_TEST_PROOF") != "" }
func full() bool  { return whole() || os.Getenv("KEYGATE_TEST_FULL") != "" }

// seed makes the same requests at the same gaps in each run. What processes make
// of it is their own.
const seed = 1

// roomy is the cell that is never near its limit.
const roomy = "roomy"

// disturbed are the cells of a world with disturbances: one that is taken from
// request by request, one that is leased, both offered twice as much, and one that
// shows when all is normal. Windows are short, so that several pass.
func disturbed() []*cell {
	return []*cell{
		{name: "taken", quota: 5, per: time.Second, rate: 10},
		{name: "leased", quota: 200, per: 4 * time.Second, rate: 100},
		{name: roomy, quota: 20_000, per: 2 * time.Second, rate: 20},
	}
}

// TestDisturbed: whatever happens, no window is above its quota.
func TestDisturbed(t *testing.T) {
	var lines results
	t.Run("scenarios", func(t *testing.T) {
		for _, d := range disturbances {
			if whole() || full() && d.representative {
				t.Run(d.name, func(t *testing.T) {
					t.Parallel()
					w, outcome := d.test(t)
					lines.add(t, d.name, w, outcome)
				})
			}
		}
	})
	lines.print("The fullest window of each limit, at least and at most, of its quota:")
}

func (d *disturbance) test(t *testing.T) (*world, string) {
	w := newWorld(t, disturbed())
	var b backing
	w.serve(d.redis(t, &b, d.gateways)...)
	if b.server != nil {
		b.server.Do("SAVE") // so that one without a log has the keys when it is back
	}
	w.load(seed)
	time.Sleep(2500 * time.Millisecond)
	from := w.now()
	d.run(w, &b)
	healed := w.now()
	after := recovery
	if d.lost {
		after += w.cells[1].per + leaseTime(w.cells[1].per)
	}
	time.Sleep(after)
	w.end()
	w.checkLimits()
	w.checkAnswers()
	normal := w.normalAfter(healed)
	outcome := fmt.Sprintf("normal after %v", normal.Round(time.Millisecond))
	if d.lost {
		w.checkHold(healed)
		outcome = fmt.Sprintf("held; normal after %v", normal.Round(time.Millisecond))
	} else if normal > recovery*9/10 {
		t.Errorf("not normal %v after it", normal)
	}
	t.Logf("it lasted %v; %s", (healed - from).Round(time.Millisecond), outcome)
	return w, outcome
}

// TestShared is what every run of the tests tries, for a few seconds.
func TestShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []*cell{
		{name: "taken", quota: 5, per: time.Second, rate: 50},
		{name: "leased", quota: 60, per: 2 * time.Second, rate: 100},
	})
	w.serve(repeat(redistest.Start(t, redistest.Options{}).URL(), 2)...)
	w.load(seed)
	time.Sleep(3 * time.Second)
	w.end()
	w.checkLimits()
	w.checkAnswers()
	for _, c := range w.cells {
		if n := c.statuses(); n[200] == 0 || n[429] == 0 {
			t.Errorf("%s: answers %v; some are admitted, and twice the quota is refused", c.name, n)
		}
	}
}

// The judge would notice: plans that go on without Redis admit the quota on each
// gateway by itself, as documented, which is three times as much.
func TestJudgeNotices(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it")
	}
	t.Parallel()
	w := newWorld(t, []*cell{{name: "open", quota: 40, per: 4 * time.Second, rate: 80, open: true}})
	server := redistest.Start(t, redistest.Options{})
	w.serve(repeat(server.URL(), 3)...)
	w.load(seed)
	time.Sleep(time.Second)
	server.Pause()
	time.Sleep(4 * time.Second)
	server.Resume()
	w.end()
	c := w.cells[0]
	if atLeast, atMost := most(c.admissions(), c.per); atLeast <= c.quota {
		t.Errorf("three gateways that share nothing admitted %d to %d, which is no more than one would", atLeast, atMost)
	}
}

// results are the lines of a table, in the order of their coming.
type results struct {
	mu    sync.Mutex
	lines []string
}

func (r *results) add(t *testing.T, name string, w *world, outcome string) {
	line := fmt.Sprintf("%-40s", name)
	for _, c := range w.cells {
		atLeast, atMost := most(c.admissions(), c.per)
		line += fmt.Sprintf("%14s", fmt.Sprintf("%d–%d/%d", atLeast, atMost, c.quota))
	}
	verdict := "   "
	if t.Failed() {
		verdict = "   FAILED, "
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line+verdict+outcome)
}

func (r *results) print(title string) {
	if len(r.lines) == 0 {
		return
	}
	fmt.Println(title)
	fmt.Printf("%-40s%14s%14s%14s\n", "in the way", "5 per 1s", "200 per 4s", "never near")
	for _, line := range r.lines {
		fmt.Println(line)
	}
}
