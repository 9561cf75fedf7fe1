package upstream

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"keygate/internal/pace"
)

// patience bounds how long a client is waited for while its body is read, until the
// answer begins: from then on request and answer are one conversation, and either side
// may be silent for as long as it likes. An upstream that reads slowly costs the client
// nothing: nobody waits for it meanwhile.
//
// It has a timer of its own because a deadline that is only set aside is not free of
// consequences: over HTTP/2 one that passes while nobody reads breaks the body, and
// over HTTP/1.1 one that is left behind ends the wait for the upstream.
type patience struct {
	pace    pace.Pace
	control *http.ResponseController // of the client's connection

	mu      sync.Mutex
	timer   *time.Timer
	left    time.Duration // of pace.Wait
	began   time.Time     // the wait
	waits   bool
	expired bool
	over    bool
}

// wait begins one.
func (p *patience) wait() {
	if p.pace.Wait == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	p.waits, p.began = true, time.Now()
	if p.timer == nil {
		p.left = p.pace.Wait
		p.timer = time.AfterFunc(p.left, p.expire)
	} else {
		p.timer.Reset(p.left)
	}
}

// heard ends the wait, with what the reading gave, and reports whether it failed
// because it took too long. The error alone does not say so: one between the last
// chunk and the trailers looks like the connection's end.
func (p *patience) heard(bytes int, err error) (late bool) {
	if p.pace.Wait == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return false
	}
	if p.waits {
		p.left = p.pace.Left(p.left, time.Since(p.began), bytes)
	}
	p.waits = false
	p.timer.Stop()
	if p.expired && (err == nil || errors.Is(err, io.EOF)) { // it came in the same moment
		p.expired = false
		_ = p.control.SetReadDeadline(time.Time{}) // what has none never expired
	}
	return p.expired
}

// end is called when the answer begins, or nobody reads any more.
func (p *patience) end() {
	if p.pace.Wait == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

func (p *patience) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waits || p.over || time.Since(p.began) < p.left { // of a wait that has ended meanwhile
		return
	}
	p.expired = p.control.SetReadDeadline(time.Now()) == nil // writers of tests have none
}
