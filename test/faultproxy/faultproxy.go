// Package faultproxy stands between a gateway and Redis, or an upstream, and
// disturbs what passes, in the ways in which networks do: at run time, and only the
// connections that ask Redis for certain things if so desired.
package faultproxy

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// Fault is what happens to a connection.
type Fault int

const (
	// None lets everything pass.
	None Fault = iota
	// Delay holds every piece back for DelayTime, in both directions.
	Delay
	// Drop loses the answers, and all later ones of the same connection: what was
	// asked for takes effect.
	Drop
	// Reset ends connections, also new ones, with a reset.
	Reset
	// HalfOpen is a server that is gone and a client that was not told: what it
	// sends is lost, also on new connections.
	HalfOpen
	// Cut ends a connection in the middle of an answer, after CutAfter bytes.
	Cut
	// Slow passes SlowRate bytes a second in each direction.
	Slow
	// BlackHole passes nothing in either direction. What was sent meanwhile
	// arrives when it is over, as TCP has it.
	BlackHole
)

const (
	// DelayTime is above every time-out of a decision.
	DelayTime = 150 * time.Millisecond
	CutAfter  = 200
	SlowRate  = 1024
)

// String is the fault's name in tests.
func (f Fault) String() string {
	return [...]string{"none", "delay", "answers lost", "reset", "half-open", "cut after 200 bytes", "1 KB a second", "black hole"}[f]
}

// Class is what a connection last asked for.
type Class int

const (
	// Greeting: nothing so far but what a new connection begins with.
	Greeting Class = iota
	// Feed waits for changes.
	Feed
	// Ledger decides over limits, or marks stopped keys.
	Ledger
	// Control is everything else: looking up keys, changing them.
	Control
	classes
)

// classOf knows the class by what is asked. A client sends what belongs together
// in one piece.
func classOf(asked []byte, before Class) Class {
	asked = bytes.ToLower(asked)
	has := func(text string) bool { return bytes.Contains(asked, []byte(text)) }
	switch {
	case has("xread"):
		return Feed
	case has("kg:l:{"), has("kg:s:{"):
		return Ledger
	case has("kg:{kg}"), has("info"):
		return Control
	}
	return before
}

// Proxy passes on to one address.
type Proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	faults  [classes]Fault
	changed chan struct{} // closed at each change of faults
	links   map[*link]bool
	closed  bool
}

// Start listens on a free port of 127.0.0.1 until the test ends.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), links: make(map[*link]bool)}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set makes a fault begin for the connections of these classes, or for all where
// none is named; a fault of other classes goes on.
func (p *Proxy) Set(f Fault, only ...Class) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(only) == 0 {
		only = []Class{Greeting, Feed, Ledger, Control}
	}
	for _, c := range only {
		p.faults[c] = f
	}
	close(p.changed)
	p.changed = make(chan struct{})
	for l := range p.links {
		// Connections on which nothing moves must notice too.
		switch p.faults[l.class] {
		case Reset:
			l.reset()
		case HalfOpen:
			l.halfOpen()
		}
	}
}

// Heal ends all faults.
func (p *Proxy) Heal() { p.Set(None) }

// Connections is how many are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		reset(client) // as if nobody listened
		return
	}
	defer server.Close()
	l := &link{proxy: p, client: client, server: server, ended: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.links[l] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	}()
	var both sync.WaitGroup
	both.Go(func() { l.pass(client, server, true) })
	both.Go(func() { l.pass(server, client, false) })
	both.Wait()
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.end()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// link is one connection of a client and the one to the server that belongs to it.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	ended          chan struct{}
	endOnce        sync.Once

	// These are guarded by proxy.mu.
	class Class
	dead  bool // nothing that the server says arrives any more
	gone  bool // nor what the client says
	cut   int  // bytes of answers since the fault began
}

func (l *link) end() {
	l.endOnce.Do(func() {
		close(l.ended)
		l.client.Close()
		l.server.Close()
	})
}

func (l *link) reset() {
	reset(l.client)
	l.end()
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only if it is closed already
	}
	c.Close()
}

func (l *link) halfOpen() {
	l.dead, l.gone = true, true
	l.server.Close()
}

// pass copies one direction until an end closes or a fault says so.
func (l *link) pass(from, to net.Conn, up bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !l.piece(buf[:n], to, up) {
			l.end()
			return
		}
		if err != nil {
			if up || !l.isDead() { // a client must not learn that a lost server has closed
				l.end()
			}
			return
		}
	}
}

func (l *link) isDead() bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	return l.dead
}

// now returns the fault that the link has at the moment, and a channel that is
// closed when that may have changed.
func (l *link) now(asked []byte, up bool) (Fault, <-chan struct{}) {
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if up && asked != nil {
		l.class = classOf(asked, l.class)
	}
	f := p.faults[l.class]
	switch {
	case f == HalfOpen && !l.dead:
		l.halfOpen()
	case f == Drop && !up:
		l.dead = true
	case f != Cut:
		l.cut = 0
	}
	return f, p.changed
}

// piece passes on what was read, or does not; false ends the connection.
func (l *link) piece(b []byte, to net.Conn, up bool) bool {
	f, changed := l.now(b, up)
	for f == BlackHole {
		if !l.wait(changed, 0) {
			return false
		}
		f, changed = l.now(nil, up)
	}
	if f == Reset {
		l.reset()
		return false
	}
	l.proxy.mu.Lock()
	lost := l.gone || l.dead && !up
	room := CutAfter - l.cut
	if f == Cut && !up {
		l.cut += len(b)
	}
	l.proxy.mu.Unlock()
	if lost {
		return true
	}
	switch {
	case f == Delay:
		if !l.wait(nil, DelayTime) {
			return false
		}
	case f == Slow:
		return l.slowly(b, to, changed)
	case f == Cut && !up && len(b) > room:
		_, _ = to.Write(b[:room]) // it ends in any case
		return false
	}
	_, err := to.Write(b)
	return err == nil
}

// slowly passes on as much as fits into a tenth of a second at a time, and the
// rest at once when the fault is over.
func (l *link) slowly(b []byte, to net.Conn, changed <-chan struct{}) bool {
	const part, parts = SlowRate / 10, 10
	for len(b) > 0 {
		n := min(part, len(b))
		if !l.wait(changed, time.Second/parts) {
			return false
		}
		if f, next := l.now(nil, false); f != Slow {
			n = len(b)
		} else {
			changed = next
		}
		if _, err := to.Write(b[:n]); err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

// wait waits for a change or, if d is not 0, for so long; false means that the
// link has ended.
func (l *link) wait(changed <-chan struct{}, d time.Duration) bool {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-l.ended:
		return false
	case <-changed:
	case <-timer:
	}
	return true
}
