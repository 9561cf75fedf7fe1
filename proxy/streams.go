package proxy

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keygate/auth"
)

// Requests that are under way for long (server-sent events, WebSocket, gRPC, large
// bodies) are judged again whenever their key, its owner or its organization
// changes, or ends by itself, and are cut if they would be refused now. They keep
// the policy that they began with. Those on public routes are among them for their
// client's pace alone.

const (
	// streamsEvery lies between two looks at what is under way: it is what cutting
	// adds to the time in which a change arrives.
	streamsEvery = 250 * time.Millisecond
	// doubtFor is how long a stream whose key cannot be asked of the store goes on.
	doubtFor = time.Minute
	// verifyEvery lies between two questions about the key of one stream while the
	// change feed is silent, and nobody says whether it changed.
	verifyEvery = time.Second
	// recheckers bounds the questions to the store at one time.
	recheckers = 16
	// streamAge is from when on a request is counted as a stream.
	streamAge = time.Second
	// farewell bounds the time in which a client is told that its stream is cut.
	farewell = time.Second

	streamShards = 32
)

// streams are the requests under way that were admitted with a key. They hold
// together by links of their own, in several lists so that requests do not wait for
// each other: to open and to close one takes an uncontended lock each and no memory.
type streams struct {
	shards [streamShards]streamShard
	next   atomic.Uint32 // shard of the next exchange that is made
	open   atomic.Int64  // at the last look, older than streamAge
	cut    *prometheus.CounterVec
}

type streamShard struct {
	mu    sync.Mutex
	first *exchange
	_     [40]byte // a cache line of its own
}

// stream is an exchange's part in it. Its shard's lock guards it.
type stream struct {
	prev, next *exchange
	linked     bool
	number     uint64          // of the request, among those of the exchange
	held       *auth.Principal // that the last look found in force; nil: a public route
	checked    time.Time       // when that was asked of the store, the feed being silent
	doubted    time.Time       // since when the store cannot be asked
	cut        *auth.Refusal   // why it was cut; nil: it was not
	flow       flow            // the answer, once it flows; nil: not yet, or it is short
	late       bool            // the program stops, and its time is over
	told       bool            // its client is told so
	lifted     bool            // the server's time-out was taken off
	slow       bool            // it was ended because its client did not take the answer
}

// flow is an answer that can be cut.
type flow interface {
	// end has the answer end with the next Read that returns, for the first reason
	// that it is given. Close has one that waits return.
	end(why *goodbye)
	io.Closer
	// saysFarewell reports whether the client is told more than that it ended.
	saysFarewell() bool
}

func newStreams(r prometheus.Registerer) *streams {
	s := &streams{cut: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "keygate_streams_cut_total", Help: "Requests under way that were cut, because of their key, of what it may do, or because that could not be asked.",
	}, []string{"reason"})}
	for _, reason := range cutReasons {
		s.cut.WithLabelValues(reason)
	}
	r.MustRegister(s.cut, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keygate_open_streams", Help: "Requests with a key that are under way for more than a second.",
	}, func() float64 { return float64(s.open.Load()) }))
	return s
}

var cutReasons = [...]string{"key", "access", "unavailable"}

func cutReason(r *auth.Refusal) string {
	switch r.Reason {
	case auth.Unavailable:
		return cutReasons[2]
	case auth.Address, auth.BadBinding, auth.Tenant, auth.Scope:
		return cutReasons[1]
	}
	return cutReasons[0]
}

func (p *Proxy) shardOf(x *exchange) *streamShard { return &p.streams.shards[x.shard] }

// enter makes the exchange one that can be cut.
func (x *exchange) enter() {
	s := x.proxy.shardOf(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	x.stream = stream{held: x.principal, linked: true, number: x.stream.number + 1}
	if x.stream.next = s.first; s.first != nil {
		s.first.stream.prev = x
	}
	s.first = x
}

// flows makes the answer one that can be cut; it may have been already.
func (x *exchange) flows(f flow) {
	s := x.proxy.shardOf(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.stream.flow = f; x.stream.cut != nil {
		f.end(noLonger)
		go f.Close()
	}
}

// leave ends what enter began. From then on nobody else touches the exchange.
func (x *exchange) leave() {
	if !x.stream.linked { // only this goroutine sets it
		return
	}
	if x.unlink() {
		x.lower()
	}
}

func (x *exchange) unlink() (lifted bool) {
	s := x.proxy.shardOf(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	prev, next := x.stream.prev, x.stream.next
	if prev == nil {
		s.first = next
	} else {
		prev.stream.next = next
	}
	if next != nil {
		next.stream.prev = prev
	}
	x.late = (x.late || x.stream.slow) && x.stream.cut == nil && !x.stream.late
	lifted, x.dismissed = x.stream.lifted, x.stream.late
	if x.stream.cut != nil {
		x.reason = "It was cut while it was under way. " + x.stream.cut.Words()
		x.proxy.streams.cut.WithLabelValues(cutReason(x.stream.cut)).Inc()
	} else if x.stream.told || x.stream.late && (!x.done || x.r.Context().Err() != nil) { // or it ended by itself
		x.reason = "It was cut while it was under way. keygate stops, and the time to end by itself was over."
	}
	x.stream = stream{number: x.stream.number}
	return lifted
}

// WatchStreams looks after the requests under way until ctx ends.
func (p *Proxy) WatchStreams(ctx context.Context) {
	tick := time.NewTicker(streamsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.CheckStreams(ctx)
		}
	}
}

// suspect is an exchange that must be judged again, with what that takes. The
// request may end meanwhile and the exchange be another one's.
type suspect struct {
	x      *exchange
	number uint64
	judge  func() (*auth.Principal, *auth.Refusal)
}

// CheckStreams looks at the requests under way once.
func (p *Proxy) CheckStreams(ctx context.Context) {
	now, silent := p.now(), p.auth.Silent()
	var suspects []suspect
	var open int64
	for i := range p.streams.shards {
		s := &p.streams.shards[i]
		s.mu.Lock()
		for x := s.first; x != nil; x = x.stream.next {
			x.look(now)
			if x.stream.held != nil && now.Sub(x.start) >= streamAge {
				open++
			}
			if p.isSuspect(x, now, silent) {
				suspects = append(suspects, p.suspect(ctx, x))
			}
		}
		s.mu.Unlock()
	}
	p.streams.open.Store(open)
	p.judge(suspects, now)
}

func (p *Proxy) isSuspect(x *exchange, now time.Time, silent bool) bool {
	switch held := x.stream.held; {
	case x.stream.cut != nil || held == nil:
		return false
	case !p.auth.Holds(held) || held.Ended(now):
		return true
	}
	return silent && now.Sub(x.stream.checked) >= verifyEvery && now.Sub(x.start) >= verifyEvery
}

func (p *Proxy) suspect(ctx context.Context, x *exchange) suspect {
	r, rule, client, policy := x.r, x.rule.Rule, x.client, x.policy.keys
	return suspect{x: x, number: x.stream.number, judge: func() (*auth.Principal, *auth.Refusal) {
		return p.auth.Recheck(ctx, r, rule, client, policy)
	}}
}

// judge asks about each suspect and acts on the answer.
func (p *Proxy) judge(suspects []suspect, now time.Time) {
	var asking sync.WaitGroup
	room := make(chan struct{}, recheckers)
	for _, s := range suspects {
		room <- struct{}{}
		asking.Go(func() {
			defer func() { <-room }()
			principal, refused := s.judge()
			p.act(s, now, principal, refused)
		})
	}
	asking.Wait()
}

// act cuts the exchange if it was refused and is still the one that was asked about.
func (p *Proxy) act(s suspect, now time.Time, principal *auth.Principal, refused *auth.Refusal) {
	shard := p.shardOf(s.x)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	of := &s.x.stream
	if !of.linked || of.number != s.number {
		return
	}
	of.checked = now
	switch {
	case refused == nil:
		of.held, of.doubted = principal, time.Time{}
	case refused.Reason != auth.Unavailable:
		s.x.cutOff(refused)
	case of.doubted.IsZero():
		of.doubted = now
	case now.Sub(of.doubted) >= doubtFor:
		s.x.cutOff(refused)
	}
}

// cutOff ends a request that is under way and would be refused now.
func (x *exchange) cutOff(why *auth.Refusal) {
	x.stream.cut = why
	f, wait := x.stream.flow, time.Duration(0)
	heard := f == nil && x.stop == nil && x.r.ProtoMajor == 1
	if f != nil && f.saysFarewell() || f == nil && x.stop != nil || heard { // or an answer is yet to be given
		wait = farewell
	}
	x.sever(noLonger, errCut, wait)
	if heard {
		// Nothing ends the request at its upstream but its client, whom net/http listens
		// to meanwhile. Over HTTP/2 the stream is reset, which ends it as well.
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Unix(1, 0))
	}
}

// wasCut returns why the request was cut; nil: it was not.
func (x *exchange) wasCut() *auth.Refusal {
	s := x.proxy.shardOf(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	return x.stream.cut
}

// sever ends a request that is under way. What is written to its client from now on
// fails, at once or after the time for a farewell.
func (x *exchange) sever(why *goodbye, cause error, wait time.Duration) {
	f := x.stream.flow
	if f != nil {
		f.end(why)
	}
	if x.stop != nil {
		x.stop(cause)
	}
	if f != nil {
		go f.Close() // over HTTP/2 it may wait for a body that the client is sending
	} else {
		x.call.Body.GiveUp() // or the transport would not come back before the client has sent more
	}
	// Of the real clock; writers of tests have no deadline.
	_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(wait))
}
