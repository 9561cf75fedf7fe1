package ratelimit

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// maxBatch bounds the asks of one call: at some 30 µs each Redis is busy
	// with them for 2 ms.
	maxBatch = 64
	// maxCalls bounds the calls under way. What comes meanwhile waits and
	// leaves together.
	maxCalls = 8
	// maxReturns bounds the leases waiting to be given back; above, they are
	// left to expire.
	maxReturns = 1 << 17
)

// A courier carries asks to the ledger. While there are fewer than maxCalls
// under way an ask leaves at once; what waits then leaves in one call.
type courier struct {
	client  *client
	ledger  Ledger
	timeout time.Duration

	mu      sync.Mutex
	queue   []*holder // to be composed
	returns []Ask     // leases to give back: nobody waits for them
	calls   int
	idle    chan struct{} // closed when there is nothing left, if anybody asked
	loads   sync.Pool     // of *load
}

// load is the memory of one call.
type load struct {
	asks   []Ask
	grants []Grant
	from   []passenger
}

// passenger is whom an answer is for; nobody if the holder is nil.
type passenger struct {
	holder *holder
	round  *round
}

// send has a holder asked for by another goroutine.
func (c *courier) send(h *holder) {
	if c.enqueue(h) {
		go c.work()
	}
}

// carry has a holder asked for by this goroutine if there is need of one more: a
// request that waits anyway makes the way itself. The answer may come later.
func (c *courier) carry(h *holder) {
	if !c.enqueue(h) {
		return
	}
	ld := c.loads.Get().(*load)
	if c.pack(ld) {
		c.call(ld)
		if c.more() {
			go c.work() // for others; the request has its answer, as a rule
		}
	}
	c.put(ld)
}

// enqueue reports whether the caller is to work.
func (c *courier) enqueue(h *holder) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, h)
	return c.begin()
}

func (c *courier) begin() bool {
	if c.calls == maxCalls {
		return false
	}
	c.calls++
	return true
}

// end is the counterpart of begin.
func (c *courier) end() {
	if c.calls--; c.calls == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// release is [client.release].
func (c *courier) release(a Ask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.returns) == maxReturns {
		return
	}
	c.returns = append(c.returns, a)
	if c.begin() {
		go c.work()
	}
}

// work makes calls until nothing waits.
func (c *courier) work() {
	ld := c.loads.Get().(*load)
	for c.pack(ld) {
		c.call(ld)
	}
	c.put(ld)
}

// more reports whether something waits; if not, it ends the work.
func (c *courier) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue)+len(c.returns) > 0 {
		return true
	}
	c.end()
	return false
}

// pack takes what leaves with the next call; if there is nothing it ends the
// work and reports false. Leases go back first, so that those who wait find what
// was in them. A holder whose last call failed travels alone: a stored value
// that the ledger cannot read fails the whole call, and must not do so to others
// twice.
func (c *courier) pack(ld *load) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ld.clear()
	n := min(len(c.returns), maxBatch)
	if len(c.queue) > 0 {
		n = min(n, maxBatch/2) // many leases going back must not keep requests waiting
	}
	ld.asks = append(ld.asks, c.returns[:n]...)
	c.returns = slices.Delete(c.returns, 0, n)
	ld.from = append(ld.from, make([]passenger, n)...)
	n = 0
	for n < len(c.queue) && len(ld.from) < maxBatch {
		h := c.queue[n]
		if h.alone.Load() && len(ld.from) > 0 {
			break
		}
		ld.from = append(ld.from, passenger{holder: h})
		if n++; h.alone.Load() {
			break
		}
	}
	c.queue = slices.Delete(c.queue, 0, n)
	if len(ld.from) == 0 {
		c.end()
		return false
	}
	return true
}

// call makes one call and hands out the answers.
func (c *courier) call(ld *load) {
	sent := c.client.now()
	ld.compose(c.client)
	if len(ld.asks) == 0 {
		return
	}
	ctx := context.Background()
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	c.client.stats.Trips.Add(1)
	c.client.stats.Asks.Add(uint64(len(ld.asks)))
	err := c.ledger.Lease(ctx, ld.asks, ld.grants)
	if err != nil {
		c.client.stats.Failures.Add(1)
	} else if loss := c.client.watch.note(sent, c.client.now(), &ld.asks[0], &ld.grants[0]); loss.Step != 0 {
		c.client.stats.ClockSteps.Add(1)
		c.client.lost(loss)
	}
	for i := range ld.from {
		if p := &ld.from[i]; p.holder != nil {
			c.deliver(p, &ld.grants[i], err)
		}
	}
}

func (c *courier) deliver(p *passenger, g *Grant, err error) {
	h := p.holder
	h.mu.Lock()
	if err != nil {
		h.fail(c.client, p.round, err)
	} else {
		h.receive(c.client, p.round, g)
	}
	again := len(h.waiting) > 0 && !h.queued
	h.queued = h.queued || again
	h.mu.Unlock()
	if again {
		c.send(h)
	}
}

// compose asks the holders what they have to ask, as late as possible: whoever
// came until now travels with it.
func (ld *load) compose(c *client) {
	n := len(ld.asks)
	for _, p := range ld.from[n:] {
		p.holder.mu.Lock()
		p.round = p.holder.compose(c)
		p.holder.mu.Unlock()
		if p.round != nil {
			ld.asks = append(ld.asks, p.round.ask)
			ld.from[n] = p
			n++
		}
	}
	ld.from = ld.from[:n]
	ld.grants = slices.Grow(ld.grants[:0], n)[:n]
}

// clear lets go of what the asks refer to; the grants keep their memory.
func (ld *load) clear() {
	clear(ld.asks)
	clear(ld.from)
	ld.asks, ld.from = ld.asks[:0], ld.from[:0]
}

// drain waits until nothing waits or is under way.
func (c *courier) drain(ctx context.Context) {
	c.mu.Lock()
	if c.calls == 0 {
		c.mu.Unlock()
		return
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

func (c *courier) put(ld *load) {
	ld.clear()
	c.loads.Put(ld)
}
