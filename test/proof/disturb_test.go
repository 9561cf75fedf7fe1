package proof

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/store/redis/redistest"
	"keygate/test/faultproxy"
)

// A disturbance happens in the midst of the load, and is over when run returns.
type disturbance struct {
	name     string
	gateways int
	redis    func(t testing.TB, b *backing, gateways int) (urls []string)
	run      func(w *world, b *backing)
	// lost: what was spent may be lost, so that a hold follows.
	lost bool
	// representative ones run in "make test-full" too.
	representative bool
}

// backing is the Redis that the gateways share: one of these.
type backing struct {
	server   *redistest.Server
	sentinel *redistest.Sentinel
	cluster  *redistest.Cluster
	proxies  []*faultproxy.Proxy // one for each gateway, in front of server
}

func repeat(url string, n int) (urls []string) {
	for range n {
		urls = append(urls, url)
	}
	return urls
}

func single(aof string) func(testing.TB, *backing, int) []string {
	return func(t testing.TB, b *backing, gateways int) []string {
		b.server = redistest.Start(t, redistest.Options{AOF: aof})
		return repeat(b.server.URL(), gateways)
	}
}

func behindProxies(t testing.TB, b *backing, gateways int) (urls []string) {
	b.server = redistest.Start(t, redistest.Options{})
	for range gateways {
		p := faultproxy.Start(t, b.server.Addr())
		b.proxies = append(b.proxies, p)
		urls = append(urls, "redis://"+p.Addr())
	}
	return urls
}

func behindSentinel(t testing.TB, b *backing, gateways int) []string {
	b.sentinel = redistest.StartSentinel(t, 3, redistest.Options{})
	return repeat(b.sentinel.URL(), gateways)
}

func onCluster(t testing.TB, b *backing, gateways int) []string {
	b.cluster = redistest.StartCluster(t, "--appendonly", "yes", "--appendfsync", "always")
	return repeat(b.cluster.URL(), gateways)
}

// disturbances are what must not matter, or no more than documented.
var disturbances = []disturbance{
	{name: "nothing", gateways: 3, redis: single(""), run: func(*world, *backing) { time.Sleep(time.Second) }},
	{name: "gateways killed", gateways: 3, redis: single(""), run: killGateways, representative: true},
	{name: "gateways stopped", gateways: 3, redis: single(""), run: stopGateways, representative: true},
	{name: "Redis killed, synced log", gateways: 3, redis: single("always"), run: killRedis, representative: true},
	{name: "Redis killed, log synced every second", gateways: 3, redis: single("everysec"), run: killRedis},
	{name: "Redis killed, no log", gateways: 3, redis: single(""), run: killRedis, lost: true, representative: true},
	{name: "limits evicted", gateways: 3, redis: single(""), run: evictLimits, lost: true},
	{name: "Redis frozen", gateways: 3, redis: single(""), run: freezeRedis, representative: true},
	{name: "Redis slow", gateways: 3, redis: behindProxies, run: fault(faultproxy.Delay), representative: true},
	{name: "1 KB a second to and from Redis", gateways: 3, redis: behindProxies, run: fault(faultproxy.Slow)},
	{name: "answers lost", gateways: 3, redis: behindProxies, run: fault(faultproxy.Drop)},
	{name: "connections reset", gateways: 3, redis: behindProxies, run: fault(faultproxy.Reset)},
	{name: "connections half-open", gateways: 3, redis: behindProxies, run: fault(faultproxy.HalfOpen)},
	{name: "one gateway cut off", gateways: 3, redis: behindProxies, run: cutOffOne},
	{name: "failover by Sentinel", gateways: 3, redis: behindSentinel, run: failOver, lost: true, representative: true},
	{name: "slot of a cluster moved", gateways: 3, redis: onCluster, run: moveSlot, representative: true},
	{name: "all at once", gateways: 10, redis: single("always"), run: allAtOnce},
}

// killGateways kills each gateway but the last, and starts it again.
func killGateways(w *world, _ *backing) {
	for i := range w.gateways[:len(w.gateways)-1] {
		w.killed(i, 300*time.Millisecond)
	}
}

// killed has a gateway dead for a while, and waits until it serves again.
func (w *world) killed(i int, dead time.Duration) {
	from := w.now()
	w.gateways[i].kill()
	time.Sleep(dead)
	w.gateways[i].launch()
	w.gateways[i].awaitReady()
	w.absent(absence{gateway: i, from: from, to: w.now(), dead: true})
}

// stopped has a gateway stand still for a while.
func (w *world) stopped(i int, still time.Duration) {
	from := w.now()
	w.gateways[i].signal(syscall.SIGSTOP)
	time.Sleep(still)
	w.gateways[i].signal(syscall.SIGCONT)
	w.absent(absence{gateway: i, from: from, to: w.now()})
}

func (w *world) absent(a absence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = append(w.away, a)
}

// stopGateways stops one gateway after the other: for less than a lease, for
// longer than one, and for longer than a window.
func stopGateways(w *world, _ *backing) {
	for i, still := range []time.Duration{200 * time.Millisecond, 1200 * time.Millisecond, 4500 * time.Millisecond} {
		w.stopped(i, still)
	}
}

// killRedis has it start again from the file that it has: its log, or the
// snapshot that was made before the load.
func killRedis(_ *world, b *backing) {
	b.server.Kill()
	time.Sleep(500 * time.Millisecond)
	b.server.Start()
}

// evictLimits removes all that the ledger keeps, in one step, as no memory policy
// should.
func evictLimits(_ *world, b *backing) {
	b.server.Do("EVAL", `local n = 0
		for _, p in ipairs({'kg:l:*', 'kg:m:*'}) do for _, k in ipairs(redis.call('KEYS', p)) do n = n + redis.call('DEL', k) end end
		return n`, 0)
}

func freezeRedis(_ *world, b *backing) {
	b.server.Pause()
	time.Sleep(1500 * time.Millisecond)
	b.server.Resume()
}

func fault(f faultproxy.Fault) func(*world, *backing) {
	return func(_ *world, b *backing) {
		for _, p := range b.proxies {
			p.Set(f)
		}
		time.Sleep(2 * time.Second)
		for _, p := range b.proxies {
			p.Heal()
		}
	}
}

// cutOffOne leaves one gateway without Redis, with what it holds, while the others
// go on.
func cutOffOne(_ *world, b *backing) {
	b.proxies[0].Set(faultproxy.BlackHole)
	time.Sleep(3 * time.Second)
	b.proxies[0].Heal()
}

// failOver is over when the replica has become the master.
func failOver(w *world, b *backing) {
	b.sentinel.Master.Kill()
	await(w.t, "the replica is promoted", b.sentinel.Replica.Promoted)
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited until %s", what)
		}
	}
}

// moveSlot moves the slot of the limits in use to another master, key by key, as
// an operator's tool does while the cluster serves.
func moveSlot(w *world, b *backing) {
	ctx := context.Background()
	var from, to *redistest.Server
	var slot int64
	for i, s := range b.cluster.Servers[:3] {
		for _, k := range s.Do("KEYS", "kg:l:*").([]any) {
			if strings.HasSuffix(k.(string), w.cells[0].id) {
				slot = s.Do("CLUSTER", "KEYSLOT", k).(int64)
				from, to = s, b.cluster.Servers[(i+1)%3]
			}
		}
	}
	if from == nil {
		w.t.Fatal("no master has the limits in use")
	}
	source, target := from.Do("CLUSTER", "MYID").(string), to.Do("CLUSTER", "MYID").(string)
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	c := from.Client()
	defer c.Close()
	moved := 0
	for {
		names, err := c.ClusterGetKeysInSlot(ctx, int(slot), 100).Result()
		if err != nil {
			w.t.Fatal(err)
		}
		if len(names) == 0 {
			break
		}
		for _, name := range names {
			if err := c.Migrate(ctx, "127.0.0.1", strconv.Itoa(to.Port), name, 0, 5*time.Second).Err(); err != nil && err != goredis.Nil {
				w.t.Fatalf("MIGRATE %s: %v", name, err)
			}
			moved++
		}
	}
	for _, s := range []*redistest.Server{to, from, b.cluster.Servers[0], b.cluster.Servers[1], b.cluster.Servers[2]} {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", target)
	}
	w.t.Logf("moved slot %d with %d keys", slot, moved)
}

// allAtOnce kills and stops gateways at random, and freezes and kills Redis
// meanwhile.
func allAtOnce(w *world, b *backing) {
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 10 {
		switch random.IntN(4) {
		case 0:
			w.killed(random.IntN(len(w.gateways)), 100*time.Millisecond)
		case 1, 2:
			w.stopped(random.IntN(len(w.gateways)), time.Duration(random.IntN(1500))*time.Millisecond)
		case 3:
			b.server.Pause()
			time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
			b.server.Resume()
		}
		if i == 5 {
			killRedis(w, b)
		}
	}
}
