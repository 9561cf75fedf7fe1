package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
	"keygate/test/faultproxy"
)

// outagePlans are strict ones and one that goes on without Redis, each with a
// limit that the traffic exceeds and one that it does not.
const outagePlans = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
plans:
  strict:       { limits: [{ name: minute, requests: 1000000, per: 1m }] }
  strict-small: { limits: [{ name: second, requests: 5, per: 1s }] }
  unlimited:    { limits: [] }
  open:         { limits: [{ name: minute, requests: 1000000, per: 1m }], outage: { mode: open, keys: 5m } }
  open-small:   { limits: [{ name: second, requests: 5, per: 1s }], outage: { mode: open, keys: 5m } }
routes:
  - { match: "GET /{path...}", permission: any }
`

// measured are the answers to one plan's clients in one stretch of time.
type measured struct {
	statuses map[int]int
	degraded int
	took     spread
	wrong    string // the first answer that a fault must not cause
}

// measurements sort answers by plan; a new stretch begins with take.
type measurements struct {
	mu    sync.Mutex
	plans map[string]*measured
	// forgets: Redis may have lost something meanwhile, so that what is
	// remembered is dropped, and open plans get a 503 until keys are looked up.
	forgets bool
}

// ask is a client of a plan that pauses after each answer, until stop is closed.
func (m *measurements) ask(c *http.Client, g *gateway, plan, secret string, pause time.Duration, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
		began := time.Now()
		a, err := try(c, http.MethodGet, g.proxy+"/x", secret, nil)
		m.add(plan, a, err, time.Since(began))
	}
}

func (m *measurements) add(plan string, a answer, err error, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.plans[plan]
	if p == nil {
		p = &measured{statuses: make(map[int]int)}
		m.plans[plan] = p
	}
	p.statuses[a.status]++
	p.took = append(p.took, took)
	degraded := a.header.Get("X-Keygate-Degraded") != ""
	if degraded {
		p.degraded++
	}
	open := strings.HasPrefix(plan, "open")
	right := err == nil && (a.status == http.StatusOK || a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable && (!open || m.forgets))
	switch {
	case p.wrong != "":
	case !right, degraded && !open:
		p.wrong = fmt.Sprintf("%v, %d %s %v", err, a.status, a.body, a.header)
	case a.status >= 429 && a.header.Get("Retry-After") == "":
		p.wrong = fmt.Sprintf("%d without Retry-After", a.status)
	}
}

// felt is how many answers so far differ from what Redis alone would have had given.
func (m *measurements) felt() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.plans {
		n += p.statuses[http.StatusServiceUnavailable] + p.degraded
	}
	return n
}

func (m *measurements) take() map[string]*measured {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.plans
	m.plans = make(map[string]*measured)
	return taken
}

// Whatever the network does to the connections between gateway and Redis, no
// client is told that its key is wrong, strict plans say 503 and nothing worse,
// open ones go on, nobody waits, and afterwards all is as before.
func TestRedisFaults(t *testing.T) {
	length := 800 * time.Millisecond
	if full() {
		length = 6 * time.Second
	}
	server := redistest.Start(t, redistest.Options{})
	between := faultproxy.Start(t, server.Addr())
	backend := newUpstream(t, nil)
	g := startReplicas(t, settings{"KEYGATE_POLICY": inFrontOf(backend, outagePlans), "LOG_LEVEL": "info"}, "redis://"+between.Addr())[0]
	plans := []string{"strict", "strict-small", "unlimited", "open", "open-small"}
	keys := make(map[string]string)
	for _, plan := range plans {
		k := g.created(admin.NewKey{Name: plan, Plan: plan})
		eventually(t, "the key is known", func() bool { return g.get("/x", k.Secret).status == http.StatusOK })
		keys[plan] = k.Secret
	}
	answers := &measurements{plans: make(map[string]*measured)}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	c := newClient(t)
	for _, plan := range plans {
		for range 2 {
			clients.Go(func() {
				answers.ask(c, g, plan, keys[plan], 5*time.Millisecond, stop)
			})
		}
	}
	healthy := func() bool {
		got := answers.take()
		for _, plan := range plans {
			m := got[plan]
			if m == nil || m.statuses[http.StatusServiceUnavailable] > 0 || m.degraded > 0 || m.statuses[http.StatusOK]+m.statuses[http.StatusTooManyRequests] == 0 {
				return false
			}
		}
		return true
	}
	normal := func() time.Duration {
		began := time.Now()
		answers.take()
		eventually(t, "all is normal", func() bool { time.Sleep(100 * time.Millisecond); return healthy() })
		return time.Since(began)
	}
	check := func(t *testing.T, got map[string]*measured) {
		t.Helper()
		for _, plan := range plans {
			m := got[plan]
			if m == nil {
				t.Errorf("%s: no answer in %v", plan, length)
				continue
			}
			t.Logf("%-12s %v, %d degraded; %v", plan, m.statuses, m.degraded, m.took)
			if m.wrong != "" {
				t.Errorf("%s: %s", plan, m.wrong)
			}
			if p99 := m.took[(len(m.took)-1)*99/100]; p99 > time.Second {
				t.Errorf("%s: 1 %% of the answers took %v or more", plan, p99)
			}
		}
	}
	normal()
	time.Sleep(length)
	t.Run("none", func(t *testing.T) { check(t, answers.take()) })
	before := g.footprint()
	for _, fault := range []faultproxy.Fault{
		faultproxy.Delay, faultproxy.Drop, faultproxy.Reset, faultproxy.HalfOpen, faultproxy.Cut, faultproxy.Slow, faultproxy.BlackHole,
	} {
		t.Run(fault.String(), func(t *testing.T) {
			answers.take()
			between.Set(fault)
			time.Sleep(length)
			// Leases and remembered denials outlast a short outage, and a busy machine sends
			// little: it goes on until somebody has met it.
			eventually(t, "the fault is felt", func() bool { return answers.felt() > 0 })
			got := answers.take()
			if a := g.do(http.MethodGet, g.management+"/livez", "", ""); a.status != http.StatusOK {
				t.Errorf("/livez: %d", a.status)
			}
			between.Heal()
			after := normal()
			check(t, got)
			t.Logf("normal %v after it ended", after.Round(time.Millisecond))
			if after > recovery {
				t.Errorf("it took %v until all was normal", after)
			}
		})
	}
	close(stop)
	clients.Wait()
	c.CloseIdleConnections()
	g.settles(t, before)
	t.Logf("%v decisions late, %v degraded, %d connections to Redis", g.metric("keygate_limit_late_total"), g.metric("keygate_limit_degraded_total"), between.Connections())
	g.stop()
	eventually(t, "no connection to Redis is left", func() bool { return between.Connections() == 0 })
}
