package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// A worst case is what an adversary gets out of a limiter: the most admissions
// that any window of one window's length held, by the pattern of requests that
// got the most. Time is simulated, so that the same comes out each time.
type worstCase struct {
	limiter string
	most    int
	pattern pattern
}

// contender is one way to limit; make returns it fresh, with nothing spent.
type contender struct {
	name  string
	nodes int
	make  func() gate
}

// gate admits requests: at never goes back, and node is the replica that is asked.
type gate interface {
	admits(at time.Duration, node int) bool
}

// What is compared: 100 requests per minute, over three nodes where there are
// several. Nodes that tell each other do so once a second.
const (
	compareQuota = 100
	comparePer   = time.Minute
	compareNodes = 3
	compareSync  = time.Second
	compareStep  = 100 * time.Millisecond // between two requests of a flood
)

// compareLimiters prints the worst case of each limiter as a table in Markdown.
func compareLimiters(w io.Writer) error {
	if _, err := io.WriteString(w, "| limiter | most in a window | by asking with |\n|---|---|---|\n"); err != nil {
		return err
	}
	for _, c := range contenders() {
		worst := c.worst()
		if _, err := fmt.Fprintf(w, "| %s | %.2f L | %s |\n", worst.limiter, float64(worst.most)/compareQuota, worst.pattern); err != nil {
			return err
		}
	}
	return nil
}

// A pattern is how the adversary asks: a burst after some time, then nothing for
// some time, then again and again for a window. Every burst asks every node until
// it refuses. Boundaries of fixed windows, the refill of buckets and the silence
// between nodes are all met by one of them.
type pattern struct {
	burst time.Duration // after the limiter's start
	pause time.Duration
}

func (p pattern) String() string {
	return fmt.Sprintf("a burst at %.2f s, and again and again from %.2f s", p.burst.Seconds(), (p.burst + p.pause).Seconds())
}

// patterns are all that are tried, the simplest first.
func patterns() (all []pattern) {
	fractions := []time.Duration{0, 1, 250, 500, 750, 999}
	for _, burst := range append(fractions, 1000, 1500, 1999) {
		for _, pause := range append(fractions[1:], 1000) {
			all = append(all, pattern{burst * comparePer / 1000, pause * comparePer / 1000})
		}
	}
	return all
}

// worst tries all patterns.
func (c contender) worst() worstCase {
	worst := worstCase{limiter: c.name}
	for _, p := range patterns() {
		if most := p.play(c.make(), c.nodes); most > worst.most {
			worst.most, worst.pattern = most, p
		}
	}
	return worst
}

// play returns the most admissions in any window.
func (p pattern) play(g gate, nodes int) int {
	var admitted []time.Duration
	ask := func(at time.Duration) {
		for refused := 0; refused < nodes; {
			refused = 0
			for node := range nodes {
				if g.admits(at, node) {
					admitted = append(admitted, at)
				} else {
					refused++
				}
			}
		}
	}
	ask(p.burst)
	for at := p.burst + p.pause; at < p.burst+p.pause+comparePer; at += compareStep {
		ask(at)
	}
	return fullest(admitted, comparePer)
}

// fullest is the most in any window that has its beginning and not its end.
func fullest(admitted []time.Duration, per time.Duration) (most int) {
	for i, begin := range admitted {
		end, _ := slices.BinarySearch(admitted, begin+per)
		most = max(most, end-i)
	}
	return most
}
