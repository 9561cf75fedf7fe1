package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A job is what one load generator does, once. It loads two targets with the
// same number of requests at the same time.
type job struct {
	Targets     [2]target
	Connections int           // to each target
	Length      time.Duration // of the measurement
	Rate        int           // requests per second to each target; 0: as many as the slower one answers
}

type target struct {
	Addr     string
	Requests []string // sent in rotation, as they are
	// MayBeLate has an answer of 503 counted rather than end the measurement: on a
	// busy machine, Redis sometimes takes longer than a decision may.
	MayBeLate bool
}

// loaded is what came of a job.
type loaded struct {
	Requests int // answered by each target
	// Latency quantiles of each target, from the instant at which a request was
	// due, so that waiting for a connection counts. Only in the open loop.
	P50, P99 [2]time.Duration
	// Late answers, of those that may be.
	Late  [2]int
	Error string
}

// warmUp opens the connections and lets both sides settle before each measurement.
const warmUp = 200 * time.Millisecond

// readyLine says that the warm-up is over.
const readyLine = "ready\n"

// generateLoad reads a job, warms up, prints a line, waits for one, does the
// job and prints the result: whoever started it reads CPU times in between.
func generateLoad(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var j job
	if err := json.Unmarshal(line, &j); err != nil {
		return err
	}
	g := &generator{job: j}
	defer g.close()
	result, err := g.dial(ctx)
	if err == nil {
		result, err = g.closedLoop(warmUp)
	}
	for t := range g.conns {
		for _, c := range g.conns[t] {
			c.late = 0 // in the warm-up it is no matter
		}
	}
	if err == nil {
		if _, err := io.WriteString(stdout, readyLine); err != nil {
			return err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
		if j.Rate > 0 {
			result, err = g.openLoop()
		} else {
			result, err = g.closedLoop(j.Length)
		}
	}
	if err != nil {
		result.Error = err.Error()
	}
	for t := range g.conns {
		for _, c := range g.conns[t] {
			result.Late[t] += c.late
		}
	}
	return json.NewEncoder(stdout).Encode(result)
}

type generator struct {
	job   job
	conns [2][]*client
}

func (g *generator) dial(ctx context.Context) (loaded, error) {
	var d net.Dialer
	for t := range g.job.Targets {
		for range g.job.Connections {
			c, err := d.DialContext(ctx, "tcp", g.job.Targets[t].Addr)
			if err != nil {
				return loaded{}, err
			}
			g.conns[t] = append(g.conns[t], &client{conn: c, in: bufio.NewReader(c), requests: g.job.Targets[t].Requests, next: len(g.conns[t]), mayBeLate: g.job.Targets[t].MayBeLate})
		}
	}
	// Nothing here takes that long; a target that hangs must not hang us.
	context.AfterFunc(ctx, g.close)
	time.AfterFunc(g.job.Length+30*time.Second, g.close)
	return loaded{}, nil
}

func (g *generator) close() {
	for t := range g.conns {
		for _, c := range g.conns[t] {
			_ = c.conn.Close()
		}
	}
}

// closedLoop sends to both targets at once and goes on when both have answered:
// at every instant both have done the same work, under the same noise.
func (g *generator) closedLoop(length time.Duration) (loaded, error) {
	end := time.Now().Add(length)
	counts := make([]int, g.job.Connections)
	err := each(g.job.Connections, func(i int) error {
		for first := i % 2; time.Now().Before(end); first = 1 - first {
			a, b := g.conns[first][i], g.conns[1-first][i]
			if err := errors.Join(a.send(), b.send()); err != nil {
				return err
			}
			if err := errors.Join(a.receive(), b.receive()); err != nil {
				return err
			}
			counts[i]++
		}
		return nil
	})
	result := loaded{}
	for _, n := range counts {
		result.Requests += n
	}
	return result, err
}

// openLoop sends to both targets at the same fixed instants, however fast they answer.
func (g *generator) openLoop() (loaded, error) {
	n := g.job.Connections
	total := int(g.job.Length.Seconds() * float64(g.job.Rate))
	result := loaded{Requests: total}
	took := [2][]time.Duration{make([]time.Duration, total), make([]time.Duration, total)}
	start := time.Now().Add(time.Millisecond)
	err := each(2*n, func(worker int) error {
		t, c := worker%2, worker/2
		for i := c; i < total; i += n {
			due := start.Add(time.Duration(float64(i) / float64(g.job.Rate) * float64(time.Second)))
			time.Sleep(time.Until(due))
			if err := g.conns[t][c].send(); err != nil {
				return err
			}
			if err := g.conns[t][c].receive(); err != nil {
				return err
			}
			took[t][i] = time.Since(due)
		}
		return nil
	})
	for t := range took {
		if total > 0 {
			slices.Sort(took[t])
			result.P50[t], result.P99[t] = took[t][total/2], took[t][total*99/100]
		}
	}
	return result, err
}

// each runs n workers and returns their errors.
func each(n int, work func(int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = work(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// client is one keep-alive connection. It does no more than the measurement
// needs, so that the load takes little of the machine.
type client struct {
	conn     net.Conn
	in       *bufio.Reader
	requests []string
	next     int
	buf      []byte

	mayBeLate bool
	late      int
}

func (c *client) send() error {
	c.buf = append(c.buf[:0], c.requests[c.next%len(c.requests)]...)
	c.next++
	_, err := c.conn.Write(c.buf)
	return err
}

// receive reads one answer, which must be 200 and as long as the upstream's, or
// 503 where that is expected.
func (c *client) receive() error {
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	late := c.mayBeLate && bytes.HasPrefix(status, []byte("HTTP/1.1 503"))
	if late {
		c.late++
	} else if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answer is %q", bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return err
			}
		}
	}
	if length < 0 || !late && length != len(body) {
		return fmt.Errorf("answer has length %d, not %d", length, len(body))
	}
	_, err = c.in.Discard(length)
	return err
}
