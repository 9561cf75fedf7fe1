package proof

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// cell is one key with one limit, and what is offered to it.
type cell struct {
	name  string // of the plan and of the key
	quota int
	per   time.Duration
	rate  float64 // requests a second, at random instants (Poisson)
	open  bool    // outage.mode

	id, secret string
	calls      []*call
}

// call is one request. Instants are those of the world's clock.
type call struct {
	gateway    int
	sent       time.Duration
	answered   time.Duration
	arrived    time.Duration // at the upstream; 0: never
	status     int           // 0: no answer
	retryAfter int           // seconds; 0: none
	failure    string        // why there was no answer
}

// world is one Redis, the gateways on it, and the clients and the upstream of
// both, which are this process.
type world struct {
	t        testing.TB
	began    time.Time
	upstream *httptest.Server
	gateways []*gateway
	cells    []*cell
	client   *http.Client

	mu    sync.Mutex
	calls []*call // the number of each is in its request
	twice int     // requests that the upstream got a second time
	away  []absence

	stop    chan struct{}
	clients sync.WaitGroup
}

// absence is a time in which a gateway cannot answer, since it is stopped or dead.
type absence struct {
	gateway  int
	from, to time.Duration
	dead     bool
}

func newWorld(t testing.TB, cells []*cell) *world {
	t.Helper()
	w := &world{t: t, began: time.Now(), cells: cells, stop: make(chan struct{})}
	w.upstream = httptest.NewServer(http.HandlerFunc(w.arrive))
	t.Cleanup(func() {
		w.upstream.CloseClientConnections()
		w.upstream.Close()
	})
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	w.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return w
}

// serve starts the gateways and makes the keys.
func (w *world) serve(urls ...string) {
	w.t.Helper()
	w.gateways = startGateways(w.t, policyOf(w.upstream.URL, w.cells), urls...)
	for _, c := range w.cells {
		k := w.gateways[0].newKey(c.name, c.name)
		c.id, c.secret = k.ID, k.Secret
	}
}

func (w *world) now() time.Duration { return time.Since(w.began) }

const callHeader = "X-Call"

// arrive is the upstream.
func (w *world) arrive(_ http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.Header.Get(callHeader))
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || n >= len(w.calls) || w.calls[n].arrived != 0 {
		w.twice++
		return
	}
	w.calls[n].arrived = now
}

// load has clients ask for every cell until w.stop is closed. The same seed gives
// the same gaps and the same choice of gateways.
func (w *world) load(seed uint64) {
	for i, c := range w.cells {
		w.clients.Go(func() { w.offer(c, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
}

// inFlight bounds the requests of one cell that are under way: a gateway that is
// stopped must not collect them without end.
const inFlight = 200

func (w *world) offer(c *cell, random *rand.Rand) {
	var all sync.WaitGroup
	defer all.Wait()
	room := make(chan struct{}, inFlight)
	next := w.now()
	for {
		next += time.Duration(random.ExpFloat64() / c.rate * float64(time.Second))
		select {
		case <-w.stop:
			return
		case <-time.After(next - w.now()):
		}
		g := random.IntN(len(w.gateways))
		select {
		case room <- struct{}{}:
			all.Go(func() {
				w.ask(c, g)
				<-room
			})
		default: // the machine, or a gateway, is behind: what it cannot take is not offered
		}
	}
}

// ask sends one request. It is a POST, which neither the client nor a gateway
// sends again once something of it was sent: each arrival is one admission.
func (w *world) ask(c *cell, g int) {
	x := &call{gateway: g}
	w.mu.Lock()
	n := len(w.calls)
	w.calls = append(w.calls, x)
	w.mu.Unlock()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, w.gateways[g].proxy+"/", nil)
	if err != nil {
		panic(err) // of a URL that is well-formed
	}
	r.Header.Set("Authorization", "Bearer "+c.secret)
	r.Header.Set(callHeader, strconv.Itoa(n))
	sent := w.now()
	resp, err := w.client.Do(r)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	answered := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	x.sent, x.answered = sent, answered
	if err != nil {
		x.failure = strings.ReplaceAll(err.Error(), w.gateways[g].proxy, "the gateway")
	} else {
		x.status = resp.StatusCode
		x.retryAfter, _ = strconv.Atoi(resp.Header.Get("Retry-After")) // 0 where there is none
	}
	c.calls = append(c.calls, x)
}

// end waits for the last answers.
func (w *world) end() {
	close(w.stop)
	w.clients.Wait()
	for _, c := range w.cells {
		slices.SortFunc(c.calls, func(a, b *call) int { return int(a.sent - b.sent) })
	}
}

// admissions are the requests that reached the upstream, whatever the client was
// told: a gateway may have died in between.
func (c *cell) admissions() (all []admission) {
	for _, x := range c.calls {
		if x.arrived != 0 {
			all = append(all, admission{x.sent, x.arrived})
		}
	}
	return all
}

// ideal is how many an exact log would have admitted of what was offered.
func (c *cell) ideal() (n int) {
	var l log
	for _, x := range c.calls {
		if l.admits(x.sent, c.quota, c.per) {
			n++
		}
	}
	return n
}
