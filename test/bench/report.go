package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints everything at the end, so that nothing else stands in between.
func report(w io.Writer, b *bed, o options) error {
	var out strings.Builder
	fmt.Fprintf(&out, "command   go run ./test/bench %s\n", strings.Join(os.Args[1:], " "))
	fmt.Fprintf(&out, "machine   %d × %s, Linux %s, load average %s\n", runtime.NumCPU(), processor(), firstWord("/proc/sys/kernel/osrelease"), firstWord("/proc/loadavg"))
	fmt.Fprintf(&out, "versions  %s\n\n", strings.Join(b.versions, "; "))

	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CPU per request\tload\treference\tsubject\tratio\tmin–max\trequests/s")
	for i := range b.all {
		p := &b.all[i]
		for m := range modes {
			if len(p.results[m]) > 0 {
				p.row(table, m, o)
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if slices.ContainsFunc(b.all, func(p pair) bool { return p.redis != nil }) {
		out.WriteString("\nOn Redis, for a request\n")
		fmt.Fprintln(table, "\tload\tkeygate CPU\tRedis CPU\ttrips\tscripts\tper script\t503")
		for i := range b.all {
			for m := range modes {
				if p := &b.all[i]; p.redis != nil && len(p.results[m]) > 0 {
					p.onRedis(table, m, o)
				}
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	out.WriteString("\nLatency in the open loop, from the instant a request was due (context only, the load shares the machine)\n")
	fmt.Fprintln(table, "\treference p50\tp99\tsubject p50\tp99")
	for i := range b.all {
		if p := &b.all[i]; len(p.results[openLoop]) > 0 {
			p.latencies(table)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	out.WriteString(notes)
	_, err := io.WriteString(w, out.String())
	return err
}

const notes = `
Reference: a bare httputil.ReverseProxy that sets X-Forwarded-*, unless the row
names another. A ratio is the subject's CPU time (user and system, from
/proc/PID/stat) per request over the reference's, both loaded with the same
number of requests at the same moment; medians of all repetitions, which take
turns. How far the reference against itself is from 1.00 is how far any ratio
can be off. keygate checks the key, a permission and the limits, and counts its
metrics; the access log is JSON, written to /dev/null. All figures are of
HTTP/1.1 with keep-alive, an answer of 206 bytes and 100 keys in rotation.

On Redis: the CPU time of the redis-server process, with an append-only file.
Trips are what it read from connections: decisions, lookups and the change feed.
Scripts are those of INFO commandstats, with the time that it gives them, the
least of the repetitions: it goes on while other processes have the processor.
503 are decisions that took longer than they may, which a busy machine causes;
a measurement with more than one in 20 is made again.
`

// microseconds is what all times in the tables are in.
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (m mode) load(o options) string {
	if m == openLoop {
		return fmt.Sprintf("open, %d/s", o.rate)
	}
	return fmt.Sprintf("closed, %d connections", o.connections)
}

// onRedis is a row of what a request costs on both sides of the connection.
func (p *pair) onRedis(w io.Writer, m mode, o options) {
	const keygate, redis, trips, scripts, script, late = 0, 1, 2, 3, 4, 5
	var of [6][]float64
	for _, r := range p.results[m] {
		n := float64(r.Requests)
		of[keygate] = append(of[keygate], microseconds(r.cpu[1]))
		of[redis] = append(of[redis], microseconds(r.redis.cpu)/n)
		of[trips] = append(of[trips], float64(r.redis.reads)/n)
		of[scripts] = append(of[scripts], float64(r.redis.scripts)/n)
		of[script] = append(of[script], microseconds(r.redis.scriptTime)/float64(max(1, r.redis.scripts)))
		of[late] = append(of[late], 100*float64(r.Late[1])/n)
	}
	fmt.Fprintf(w, "%s\t%s\t%.1f µs\t%.1f µs\t%.3f\t%.3f\t%.1f µs\t%.2f %%\n", p.name, m.load(o),
		median(of[keygate]), median(of[redis]), median(of[trips]), median(of[scripts]), slices.Min(of[script]), median(of[late]))
}

func (p *pair) row(w io.Writer, m mode, o options) {
	length := [modes]time.Duration{o.closed, o.open}[m]
	var ratios, rates []float64
	var cpu [2][]float64
	for _, r := range p.results[m] {
		ratios = append(ratios, r.ratio())
		rates = append(rates, float64(r.Requests)/length.Seconds())
		for i := range cpu {
			cpu[i] = append(cpu[i], microseconds(r.cpu[i]))
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%.1f µs\t%.1f µs\t%.2f\t%.2f–%.2f\t%.0f\n", p.name, m.load(o),
		median(cpu[0]), median(cpu[1]), median(ratios), slices.Min(ratios), slices.Max(ratios), median(rates))
}

func (p *pair) latencies(w io.Writer) {
	var of [4][]float64
	for _, r := range p.results[openLoop] {
		for i, d := range []time.Duration{r.P50[0], r.P99[0], r.P50[1], r.P99[1]} {
			of[i] = append(of[i], float64(d)/float64(time.Millisecond))
		}
	}
	fmt.Fprintf(w, "%s\t%.2f ms\t%.2f ms\t%.2f ms\t%.2f ms\n", p.name, median(of[0]), median(of[1]), median(of[2]), median(of[3]))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// processor is the model's name; not every platform tells it.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

func firstWord(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "?"
	}
	word, _, _ := strings.Cut(string(text), " ")
	return strings.TrimSpace(word)
}
