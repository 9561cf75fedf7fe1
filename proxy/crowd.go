package proxy

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"keygate/internal/problem"
)

// crowdShards keeps keys from waiting for each other's lock.
const crowdShards = 64

// crowd counts the requests under way of each key in this process and bounds them,
// whatever the key's plan says: slow bodies, slow readers and open streams of one key
// must not take the connections of all. It has room for keys with a request under way
// and no others.
type crowd struct {
	most    int // 0: no bound
	seed    maphash.Seed
	shards  [crowdShards]crowdShard
	refused prometheus.Counter
}

type crowdShard struct {
	mu   sync.Mutex
	keys map[string]int
	_    [48]byte // a cache line of its own
}

func newCrowd(most int, r prometheus.Registerer) *crowd {
	c := &crowd{most: most, seed: maphash.MakeSeed(), refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "keygate_crowded_keys_refused_total", Help: "Requests answered 429 because their key had KEYGATE_MAX_REQUESTS_PER_KEY under way.",
	})}
	for i := range c.shards {
		c.shards[i].keys = make(map[string]int)
	}
	r.MustRegister(c.refused)
	return c
}

func (c *crowd) of(key string) *crowdShard {
	return &c.shards[maphash.String(c.seed, key)%crowdShards]
}

// join counts a request of the key unless there are too many.
func (c *crowd) join(key string) bool {
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.keys[key]
	if n >= c.most {
		return false
	}
	s.keys[key] = n + 1
	return true
}

func (c *crowd) leave(key string) {
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.keys[key] - 1; n > 0 {
		s.keys[key] = n
	} else {
		delete(s.keys, key)
	}
}

// join counts the request among its key's. It comes before the limits are asked: a
// request that is refused must not have spent them.
func (x *exchange) join() *refusal {
	c := x.proxy.crowd
	if c.most == 0 || x.crowded != "" { // counted at the look before
		return nil
	}
	if key := x.principal.Key.ID; c.join(key) {
		x.crowded = key
		return nil
	}
	c.refused.Inc()
	return c.refusal()
}

// full reports whether a request of the key would be refused.
func (c *crowd) full(key string) bool {
	if c.most == 0 {
		return false
	}
	s := c.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key] >= c.most
}

func (c *crowd) refusal() *refusal {
	return &refusal{decision: limited, retryAfter: 1, problem: problem.Problem{
		Type: problem.TypeQuotaExceeded, Status: http.StatusTooManyRequests, Error: "Too many requests under way",
		Detail:           fmt.Sprintf("This gateway takes %d requests of one API key at the same time, and that many are under way. Send the next one when one of them has ended.", c.most),
		ViolatedPolicies: []string{"under-way"},
	}}
}

// thinOut ends what join began.
func (x *exchange) thinOut() {
	if x.crowded != "" {
		x.proxy.crowd.leave(x.crowded)
		x.crowded = ""
	}
}
