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

// Dismiss ends the WebSocket connections and gRPC calls whose clients can be told that
// the gateway stops, and returns when they are gone, a second later at most. Whatever
// else is under way is left to whoever closes the connections.
func (p *Proxy) Dismiss() {
	for end := time.Now().Add(farewell); p.dismiss() > 0 && time.Now().Before(end); {
		time.Sleep(dismissEvery)
	}
}

// dismiss returns how many there are.
func (p *Proxy) dismiss() (n int) {
	for i := range p.streams.shards {
		s := &p.streams.shards[i]
		s.mu.Lock()
		for x := s.first; x != nil; x = x.stream.next {
			f := x.stream.flow
			if f == nil || !f.saysFarewell() || x.stream.cut != nil {
				continue
			}
			n++
			if !x.stream.late {
				x.stream.late = true
				x.sever(stopping, errStopping, farewell)
			}
		}
		s.mu.Unlock()
	}
	return n
}
