package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process that was started here and is ended here, by its id.
type child struct {
	name  string
	cmd   *exec.Cmd
	pipe  io.Closer     // its stdout, if that is read
	out   *bufio.Reader // of the pipe
	done  chan struct{} // closed when it has ended
	state *os.ProcessState
}

// stopTimeout is how long a child may take to end when it is asked to.
const stopTimeout = 5 * time.Second

func startChild(name string, cmd *exec.Cmd, readOutput bool) (*child, error) {
	c := &child{name: name, cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = dieWithParent()
	if readOutput {
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		c.pipe, c.out = out, bufio.NewReader(out)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		defer close(c.done)
		// Not cmd.Wait, which would close the pipe before all was read.
		c.state, _ = cmd.Process.Wait()
	}()
	return c, nil
}

// startSelf starts this program in one of its roles.
func startSelf(role string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{role}, args...)...)
	cmd.Stderr = os.Stderr
	return startChild(role, cmd, true)
}

// startServer starts this program as a server that prints its address.
func startServer(role string, args ...string) (c *child, addr string, err error) {
	if c, err = startSelf(role, args...); err != nil {
		return nil, "", err
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("%s did not start: %w", role, err), c.stop())
	}
	return c, strings.TrimSpace(line), nil
}

func (c *child) stop() error {
	if c.pipe != nil {
		defer c.pipe.Close()
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-c.done:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = c.cmd.Process.Kill()
	<-c.done
	return fmt.Errorf("%s did not end within %s and was killed", c.name, stopTimeout)
}

// alive returns an error once the child has ended.
func (c *child) alive() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended: %s", c.name, c.state)
	default:
		return nil
	}
}

// tick is the unit of CPU times in /proc: USER_HZ is 100 on all platforms that
// Go supports.
const tick = 10 * time.Millisecond

// cpu is the time that the child and its own children have computed so far.
func (c *child) cpu() (time.Duration, error) {
	pid := strconv.Itoa(c.cmd.Process.Pid)
	sum, err := cpuTime(pid)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	workers, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	for worker := range strings.FieldsSeq(string(workers)) {
		t, err := cpuTime(worker)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
		sum += t
	}
	return sum, nil
}

// cpuTime reads utime and stime, fields 14 and 15 of /proc/PID/stat (proc(5)).
func cpuTime(pid string) (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, err
	}
	// The second field is the name, in parentheses, and may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%s/stat has %d fields after the name", pid, len(fields))
	}
	var ticks uint64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// waitUntil tries until there is no error, the child has ended, or it takes too long.
func (c *child) waitUntil(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", c.name, err)
		case <-c.done:
			return c.alive()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
