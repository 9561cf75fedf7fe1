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
`

func (p *pair) row(w io.Writer, m mode, o options) {
	load := fmt.Sprintf("closed, %d connections", o.connections)
	if m == openLoop {
		load = fmt.Sprintf("open, %d/s", o.rate)
	}
	length := [modes]time.Duration{o.closed, o.open}[m]
	var ratios, rates []float64
	var cpu [2][]float64
	for _, r := range p.results[m] {
		ratios = append(ratios, r.ratio())
		rates = append(rates, float64(r.Requests)/length.Seconds())
		for i := range cpu {
			cpu[i] = append(cpu[i], float64(r.cpu[i])/float64(time.Microsecond))
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%.1f µs\t%.1f µs\t%.2f\t%.2f–%.2f\t%.0f\n", p.name, load,
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
