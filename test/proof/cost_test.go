package proof

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/store/redis/redistest"
)

// shape is a limit as people write it, what is run in its place, and the figures
// to reach: those of the algorithm's simulation, by how many times the limit is offered.
type shape struct {
	limit   string
	quota   int
	per     time.Duration
	targets map[float64]target
}

type target struct{ trips, admitted string }

// shapes are the limits to prove. The last is run at a tenth of its rate, which
// clients on the same machine can offer; TestCostOfBusyKey runs it as it is. Targets
// are those of what is run.
var shapes = []shape{
	{"5/s", 5, time.Second, nil},
	{"100/min", 100, time.Minute, map[float64]target{0.95: {"1.0", "0.98–1.00"}}},
	{"1,000/min", 1000, time.Minute, map[float64]target{0.95: {"0.20", "1.00"}, 10: {"0.016", "1.00"}}},
	{"60,000/min", 6000, time.Minute, map[float64]target{0.95: {"0.030", "1.00"}}},
}

var factors = []float64{0.5, 0.95, 2, 10}

// at is what is run to offer a limit so many times: where that would be too much,
// 60 a second in windows of half the length.
func (s shape) at(factor float64) shape {
	if factor*float64(s.quota)/s.per.Seconds() > 200 {
		s.quota, s.per, s.targets = 1800, 30*time.Second, nil
	}
	return s
}

// TestCost offers every limit from half of it to ten times as much, over one,
// three and ten gateways, for longer than the longest window.
func TestCost(t *testing.T) {
	if !whole() {
		t.Skip("KEYGATE_TEST_PROOF runs it")
	}
	var rows []row
	for _, gateways := range []int{1, 3, 10} {
		t.Run(fmt.Sprint(gateways, " gateways"), func(t *testing.T) {
			var cells []*cell
			for _, s := range shapes {
				for _, f := range factors {
					s := s.at(f)
					rate := f * float64(s.quota) / s.per.Seconds()
					cells = append(cells, &cell{name: fmt.Sprintf("%d-%.0f-%.2f", s.quota, s.per.Seconds(), f), quota: s.quota, per: s.per, rate: rate})
				}
			}
			w, asks := measured(t, gateways, 70*time.Second, cells)
			for i, c := range cells {
				f := factors[i%len(factors)]
				rows = append(rows, w.row(shapes[i/len(factors)].at(f), f, c, asks[c.id]))
			}
		})
	}
	printRows(rows)
}

// TestCostOfBusyKey is the figure that the algorithm is for.
func TestCostOfBusyKey(t *testing.T) {
	if !whole() {
		t.Skip("KEYGATE_TEST_PROOF runs it")
	}
	s := shape{"60,000/min", 60_000, time.Minute, map[float64]target{0.9: {"0.007", "1.00"}}}
	c := &cell{name: "busy", quota: s.quota, per: s.per, rate: 900}
	w, asks := measured(t, 3, 15*time.Second, []*cell{c})
	printRows([]row{w.row(s, 0.9, c, asks[c.id])})
}

// measured runs cells without disturbance, and counts the calls of the ledger's
// script for each key.
func measured(t *testing.T, gateways int, length time.Duration, cells []*cell) (*world, map[string]int) {
	w := newWorld(t, cells)
	server := redistest.Start(t, redistest.Options{})
	w.serve(repeat(server.URL(), gateways)...)
	counted := countAsks(t, server, cells)
	w.load(seed)
	time.Sleep(length)
	w.end()
	w.checkLimits()
	w.checkAnswers()
	return w, counted()
}

// countAsks watches what Redis is asked, and counts for each key how often the
// ledger is: by MONITOR, since commandstats do not tell keys apart. Questions of several
// keys that leave in one trip are counted for each of them.
func countAsks(t *testing.T, server *redistest.Server, cells []*cell) (counts func() map[string]int) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	n := make(map[string]int)
	var done sync.WaitGroup
	done.Go(func() {
		for lines := bufio.NewReader(conn); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return // closed
			}
			if _, asked, ok := strings.Cut(strings.ToLower(line), `"evalsha" `); ok {
				for _, c := range cells {
					if strings.Contains(asked, `kg:l:{`) && strings.Contains(asked, strings.ToLower(":"+c.id+`"`)) {
						n[c.id]++
					}
				}
			}
		}
	})
	return func() map[string]int {
		conn.Close()
		done.Wait()
		return n
	}
}

// row is one line of the table.
type row struct {
	gateways        int
	shape           shape
	factor          float64
	cell            *cell
	requests, asks  int
	admitted, ideal int
	least, most     int
	target          target
}

func (w *world) row(s shape, factor float64, c *cell, asks int) row {
	all := c.admissions()
	r := row{gateways: len(w.gateways), shape: s, factor: factor, cell: c, requests: len(c.calls), asks: asks, admitted: len(all), ideal: c.ideal()}
	r.least, r.most = most(all, c.per)
	r.target = s.targets[factor]
	return r
}

func printRows(rows []row) {
	fmt.Printf("%8s %11s %11s %8s %9s %14s %16s %22s\n", "gateways", "limit", "run as", "offered", "requests", "fullest window", "calls/request", "admitted/exact log")
	for _, r := range rows {
		trips, admitted := "", ""
		if r.target.trips != "" {
			trips, admitted = " ("+r.target.trips+")", " ("+r.target.admitted+")"
		}
		fmt.Printf("%8d %11s %11s %7.2fx %9d %14s %16s %22s\n", r.gateways, r.shape.limit, fmt.Sprintf("%d/%s", r.shape.quota, short(r.shape.per)), r.factor, r.requests,
			fmt.Sprintf("%d–%d", r.least, r.most), fmt.Sprintf("%.3f%s", share(r.asks, r.requests), trips), fmt.Sprintf("%.3f%s", share(r.admitted, r.ideal), admitted))
	}
	fmt.Println("in brackets: what the specification of the algorithm gives for three gateways")
}

func short(d time.Duration) string {
	if d == time.Minute {
		return "min"
	}
	return d.String()
}
