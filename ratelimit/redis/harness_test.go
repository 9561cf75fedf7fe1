package redis

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/store/redis/redistest"
	"keygate/ratelimit"
	"keygate/ratelimit/ledgertest"
)

const databases = 4096

// A bench is one server for all tests beneath one; each gets a database.
type bench struct {
	*redistest.Server
	used atomic.Int64
}

func startBench(t testing.TB) *bench {
	return &bench{Server: redistest.Start(t, redistest.Options{Args: []string{"--databases", fmt.Sprint(databases)}})}
}

// patient are the ledger's options but for the time-outs, which a busy machine
// that runs tests may exceed.
func patient(o *goredis.UniversalOptions) *goredis.UniversalOptions {
	o = Options(o)
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = 10*time.Second, 10*time.Second, 10*time.Second, 10*time.Second
	return o
}

// client is one of an empty database.
func (b *bench) client(t testing.TB) goredis.UniversalClient {
	n := b.used.Add(1)
	if n >= databases {
		t.Fatalf("more than %d databases in use", databases)
	}
	c := goredis.NewUniversalClient(patient(&goredis.UniversalOptions{Addrs: []string{b.Addr()}, DB: int(n)}))
	t.Cleanup(func() { c.Close() })
	return c
}

// The clock of a test, in microseconds, and what each decision moves it by.
const (
	nowKey  = "test:now"
	stepKey = "test:step"
)

// onTestClock is the script with another clock, and with values that do not end
// before the test does: their time to live is the server's.
func onTestClock(t testing.TB, s script) script {
	t.Helper()
	source := s.source
	if !strings.Contains(source, "local SLACK") {
		source = "local SLACK = 1000 \n" + source // the rest of it has no values that end
	}
	for _, change := range [][2]string{
		{"redis.call('TIME')", `(function()
			local now = redis.call('INCRBY', 'test:now', redis.call('GET', 'test:step'))
			return {math.floor(now / 1000000), now % 1000000}
		end)()`},
		{"local SLACK = 1000 ", "local SLACK = 3600000 "},
	} {
		if strings.Count(source, change[0]) != 1 {
			t.Fatalf("the script has not one %q", change[0])
		}
		source = strings.Replace(source, change[0], change[1], 1)
	}
	return newScript(source)
}

// A world is a ledger on a clock that moves only when told.
type world struct {
	*Ledger
	t      testing.TB
	client goredis.UniversalClient
}

const start = 1_790_000_000_000_000

func (b *bench) world(t testing.TB) *world {
	w := &world{t: t, client: b.client(t)}
	w.Ledger = New(w.client)
	w.Ledger.lease = onTestClock(t, w.Ledger.lease)
	w.Ledger.mark = onTestClock(t, w.Ledger.mark)
	w.reset()
	return w
}

// reset empties the world. It is as new to the ledger as an empty Redis is.
func (w *world) reset() {
	w.t.Helper()
	w.do("FLUSHDB")
	w.do("MSET", nowKey, start, stepKey, 0)
	w.mark(First)
}

// mark is what Ledger.Mark does, for the few tags that tests use.
func (w *world) mark(as Marking) {
	w.t.Helper()
	for _, place := range []string{"org_a", "org_b", "org_x", "key_a", "key_b", "key_c"} {
		w.do("EVAL", w.Ledger.mark.source, 1, newNames(place, "").marker(), string(as))
	}
}

// used makes a ledger on a database as it is after the first start.
func used(t testing.TB, client goredis.UniversalClient) *Ledger {
	t.Helper()
	l := New(client)
	if err := l.Mark(context.Background(), First); err != nil {
		t.Fatal(err)
	}
	return l
}

// lose takes the markers away, as FLUSHALL would.
func (w *world) lose() {
	w.t.Helper()
	for _, name := range w.keys("kg:m:*") {
		w.do("DEL", name)
	}
}

func (w *world) do(args ...any) any {
	w.t.Helper()
	v, err := w.client.Do(context.Background(), args...).Result()
	if err != nil {
		w.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// advance moves the decisions' clock; marks follow the server's and are aged.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	w.do("INCRBY", nowKey, d.Microseconds())
	for _, name := range w.keys("kg:s:*") {
		ttl := w.client.PTTL(context.Background(), name).Val()
		w.do("PEXPIRE", name, (ttl - d).Milliseconds())
	}
}

func (w *world) keys(pattern string) []string {
	w.t.Helper()
	names, err := w.client.Keys(context.Background(), pattern).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

func (w *world) ask(a ratelimit.Ask) ratelimit.Grant {
	w.t.Helper()
	grants := make([]ratelimit.Grant, 1)
	if err := w.Lease(context.Background(), []ratelimit.Ask{a}, grants); err != nil {
		w.t.Fatalf("Lease: %v", err)
	}
	return grants[0]
}

func limit(name string, quota int64, per time.Duration) ratelimit.Limit {
	return ratelimit.Limit{Name: name, Holder: "key_a", Quota: quota, Per: per}
}

func takeAsk(n int64, limits ...ratelimit.Limit) ratelimit.Ask {
	return ratelimit.Ask{Organization: "org_a", Key: "key_a", Limits: limits, Take: n, Cost: 1}
}

func TestContract(t *testing.T) {
	b := startBench(t)
	ledgertest.Run(t, func(t *testing.T) ledgertest.Harness {
		w := b.world(t)
		return ledgertest.Harness{
			Ledger: w, Advance: w.advance,
			Holders: func() int { return len(w.keys("kg:[lc]:*")) },
			Lose:    w.lose,
		}
	})
}
