package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// mode of load.
type mode uint8

const (
	closedLoop mode = iota
	openLoop
	modes // how many there are
)

// maxLate is the part of the answers that may be 503 where that is counted: one
// in so many. A measurement with more is made again, lateTries times in all.
const (
	maxLate   = 20
	lateTries = 4
)

// errLate is about a measurement of something else than the work.
var errLate = errors.New("too many answers are 503")

// result is one measurement of a pair; index 0 is the reference, 1 the subject.
type result struct {
	loaded
	cpu   [2]time.Duration // per request
	redis redisUse
}

// ratio of the subject's CPU time to the reference's.
func (r result) ratio() float64 { return float64(r.cpu[1]) / float64(r.cpu[0]) }

// measure repeats all measurements in turn rather than each one at a stretch, so
// that a machine that changes changes for all.
func measure(ctx context.Context, o options, pairs []pair) error {
	for range o.repetitions {
		for i := range pairs {
			p := &pairs[i]
			for m := range modes {
				if m == openLoop && !p.open {
					continue
				}
				r, err := p.measure(ctx, o, m)
				for try := 1; try < lateTries && errors.Is(err, errLate); try++ {
					r, err = p.measure(ctx, o, m)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				p.results[m] = append(p.results[m], r)
			}
		}
	}
	return nil
}

// measure loads both subjects at once and reads their CPU times around it.
func (p *pair) measure(ctx context.Context, o options, m mode) (_ result, err error) {
	j := job{Targets: [2]target{p.reference.target, p.subject.target}, Connections: o.connections, Length: o.closed}
	if m == openLoop {
		j.Length, j.Rate = o.open, o.rate
	}
	load, stdin, err := startLoad(ctx, j)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()

	// Ready, or a result already if the warm-up failed.
	line, err := load.out.ReadBytes('\n')
	if err != nil {
		return result{}, fmt.Errorf("load: %w", err)
	}
	before, err := p.used(ctx)
	if err != nil {
		return result{}, err
	}
	var r result
	if string(line) == readyLine {
		if _, err := io.WriteString(stdin, "go\n"); err != nil {
			return result{}, err
		}
		if line, err = load.out.ReadBytes('\n'); err != nil {
			return result{}, fmt.Errorf("load: %w", err)
		}
	}
	after, err := p.used(ctx)
	if err != nil {
		return result{}, err
	}
	if err := json.Unmarshal(line, &r.loaded); err != nil {
		return result{}, fmt.Errorf("load: %w", err)
	}
	if r.Error != "" || r.Requests == 0 {
		return result{}, fmt.Errorf("load: %d requests, %s", r.Requests, r.Error)
	}
	if late := r.Late[1]; late > r.Requests/maxLate {
		return result{}, fmt.Errorf("%w: %d of %d", errLate, late, r.Requests)
	}
	r.redis = after.redis.since(before.redis)
	for i := range r.cpu {
		r.cpu[i] = (after.cpu[i] - before.cpu[i]) / time.Duration(r.Requests)
		if r.cpu[i] == 0 {
			return result{}, errors.New("too short to measure: less than 10 ms of CPU time")
		}
	}
	return r, nil
}

// used is what was used so far.
type used struct {
	cpu   [2]time.Duration
	redis redisUse
}

func (p *pair) used(ctx context.Context) (u used, err error) {
	for i, s := range []subject{p.reference, p.subject} {
		if u.cpu[i], err = s.child.cpu(); err != nil {
			return u, err
		}
	}
	if p.redis != nil {
		u.redis, err = p.redis.use(ctx)
	}
	return u, err
}

// startLoad starts a load generator, which ends by itself and with ctx.
func startLoad(ctx context.Context, j job) (*child, io.Writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self, roleLoad)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	c, err := startChild(roleLoad, cmd, true)
	if err != nil {
		return nil, nil, err
	}
	context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // its output then ends, and with it the measurement
	if err := json.NewEncoder(stdin).Encode(j); err != nil {
		return nil, nil, errors.Join(err, c.stop())
	}
	return c, stdin, nil
}
