package upstream

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// TimeoutError is a wait for the upstream that went beyond its bound.
type TimeoutError struct {
	Phase string // as the policy calls it
	Bound time.Duration
}

// phaseTotal is the one that is not over when the upstream is waited for alone.
const phaseTotal = "total"

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the upstream took longer than timeouts.%s (%s)", e.Phase, e.Bound)
}

// Timeout makes it a net.Error's time-out.
func (e *TimeoutError) Timeout() bool { return true }

// stall bounds how long something stands still while the upstream is waited for,
// and not the client: only then it runs. A nil one has no bound.
type stall struct {
	bound time.Duration

	mu      sync.Mutex
	timer   *time.Timer
	running bool
	over    bool
}

// newStall returns one that does not run yet.
func newStall(phase string, bound time.Duration, cut func(error)) *stall {
	s := &stall{bound: bound, timer: time.AfterFunc(bound, func() { cut(&TimeoutError{phase, bound}) })}
	s.timer.Stop()
	return s
}

// run begins to wait for the upstream.
func (s *stall) run() { s.set(true, false) }

// pause ends that until the next run.
func (s *stall) pause() { s.set(false, false) }

// end ends it for good.
func (s *stall) end() { s.set(false, true) }

func (s *stall) set(running, over bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = s.over || over
	s.running = running && !s.over
	if s.running {
		s.timer.Reset(s.bound)
	} else {
		s.timer.Stop()
	}
}

// moved begins the wait anew if it runs.
func (s *stall) moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		s.timer.Reset(s.bound)
	}
}

// steady is an answer's body that may not stand still.
type steady struct {
	io.ReadCloser
	stall *stall
}

func (b *steady) Read(p []byte) (int, error) {
	b.stall.run()
	n, err := b.ReadCloser.Read(p)
	b.stall.pause()
	return n, err
}

// steadyStream is a connection that was taken over, such as WebSocket's.
type steadyStream struct {
	steady
	io.Writer
}

func (b *steadyStream) Write(p []byte) (int, error) {
	n, err := b.Writer.Write(p)
	b.stall.moved()
	return n, err
}

// CloseWrite passes on that the client has finished sending.
func (b *steadyStream) CloseWrite() error {
	if half, ok := b.Writer.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
