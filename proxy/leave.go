package proxy

import (
	"errors"
	"time"
)

// dismissEvery lies between two looks at who has not gone yet.
const dismissEvery = 20 * time.Millisecond

// errStopping is why the context of a request ends that was cut by Dismiss.
var errStopping = errors.New("keygate stops")

// Leave has every answer from now on say that its connection ends with it, so that
// clients which keep theirs open send the next request elsewhere, and none into a
// connection that is being closed.
func (p *Proxy) Leave() { p.leaving.Store(true) }

// Tunnels is how many WebSocket connections are open.
func (p *Proxy) Tunnels() int64 { return p.tunnels.Load() }

// Dismiss ends whatever is under way, a second later at most: the WebSocket
// connections and gRPC calls whose clients can be told that the gateway stops, and
// then, by closeAll, which closes all connections, the rest. It returns when nothing is
// left, so that all of it is in the log, another second later at most.
func (p *Proxy) Dismiss(closeAll func()) {
	gone(func() int { return p.dismiss(true) })
	p.dismiss(false)
	closeAll()
	gone(func() int {
		p.dismiss(false) // what has come meanwhile
		return int(p.dismissed.Load())
	})
}

// gone waits until there are none left.
func gone(left func() int) {
	for end := time.Now().Add(farewell); left() > 0 && time.Now().Before(end); {
		time.Sleep(dismissEvery)
	}
}

// dismiss returns how many requests are under way. With a farewell it is about those
// alone whose clients can be told, and ends them.
func (p *Proxy) dismiss(withFarewell bool) (n int) {
	for i := range p.streams.shards {
		s := &p.streams.shards[i]
		s.mu.Lock()
		for x := s.first; x != nil; x = x.stream.next {
			f := x.stream.flow
			if withFarewell && (f == nil || !f.saysFarewell() || x.stream.cut != nil) {
				continue
			}
			n++
			if !x.stream.late {
				x.stream.late = true
				p.dismissed.Add(1)
			}
			if withFarewell && !x.stream.told {
				x.stream.told = true
				x.sever(stopping, errStopping, farewell)
			}
		}
		s.mu.Unlock()
	}
	return n
}
