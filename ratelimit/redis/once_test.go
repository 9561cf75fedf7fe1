package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/store/redis/redistest"
	"keygate/ratelimit"
)

// A cutter loses answers: while it cuts, a connection that a script was sent on
// is closed as soon as the answer is there, so that it did run.
type cutter struct{ cuts atomic.Bool }

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return &cutConn{Conn: conn, c: c}, err
}

type cutConn struct {
	net.Conn
	c   *cutter
	ran atomic.Bool
}

func (c *cutConn) Write(p []byte) (int, error) {
	if strings.Contains(strings.ToLower(string(p)), "eval") {
		c.ran.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.ran.Load() && c.c.cuts.Load() {
		c.Close()
		return 0, io.EOF
	}
	return n, err
}

// oneNodeCluster is a cluster of a single node, which has all slots.
func oneNodeCluster(t *testing.T) *redistest.Server {
	s := redistest.Start(t, redistest.Options{Args: []string{"--cluster-enabled", "yes"}})
	s.Do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(fmt.Sprint(s.Do("CLUSTER", "INFO")), "cluster_state:ok"); {
		if time.Now().After(deadline) {
			t.Fatal("no cluster after 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return s
}

var calls = regexp.MustCompile(`(?m)^cmdstat_eval(?:sha)?:calls=(\d+)`)

// executions is how many scripts a server has run so far.
func executions(s *redistest.Server) (n int) {
	for _, m := range calls.FindAllStringSubmatch(fmt.Sprint(s.Do("INFO", "commandstats")), -1) {
		calls, _ := strconv.Atoi(m[1])
		n += calls
	}
	return n
}

// An ask whose answer is lost has run once, whatever the client was made with:
// its budget is charged once, and the caller hears of an error.
func TestAskIsSentOnce(t *testing.T) {
	servers := map[string]*redistest.Server{"single": redistest.Start(t, redistest.Options{}), "cluster": oneNodeCluster(t)}
	for kind, server := range servers {
		base := goredis.UniversalOptions{Addrs: []string{server.Addr()}, IsClusterMode: kind == "cluster"}
		retrying := base
		retrying.MaxRetries, retrying.MaxRetryBackoff = 5, time.Millisecond
		for name, o := range map[string]*goredis.UniversalOptions{"options": patient(&base), "retrying client": &retrying} {
			for batch := 1; batch <= 3; batch += 2 {
				t.Run(fmt.Sprintf("%s/%s/batch of %d", kind, name, batch), func(t *testing.T) {
					server.Flush()
					cut := &cutter{}
					o.Dialer = cut.dial
					client := goredis.NewUniversalClient(o)
					defer client.Close()
					l := used(t, client)
					ctx := context.Background()
					asks, grants := make([]ratelimit.Ask, batch), make([]ratelimit.Grant, batch)
					for i := range asks {
						asks[i] = takeAsk(1, limit("minute", 100, time.Minute))
					}
					if err := l.Lease(ctx, asks, grants); err != nil {
						t.Fatal(err)
					}
					before := executions(server)
					cut.cuts.Store(true)
					err := l.Lease(ctx, asks, grants)
					cut.cuts.Store(false)
					if !errors.Is(err, io.EOF) {
						t.Errorf("error %v", err)
					}
					if n := executions(server) - before; n != batch {
						t.Errorf("%d executions of %d asks", n, batch)
					}
					g, err := l.Peek(ctx, asks[0])
					if err != nil || g.Limits[0].Remaining != int64(100-2*batch) {
						t.Errorf("%+v, %v", g, err)
					}
					// The test would notice: another command is sent again.
					if name == "retrying client" {
						before := executions(server)
						cut.cuts.Store(true)
						client.Process(ctx, goredis.NewIntSliceCmd(ctx, l.lease.asked(&asks[0], modePeek)...))
						cut.cuts.Store(false)
						if n := executions(server) - before; n < 2 {
							t.Errorf("a command that may be repeated ran %d times", n)
						}
					}
				})
			}
		}
	}
}

// A script that Redis does not know is sent in full, once, and then by its hash.
func TestUnknownScript(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	client := goredis.NewUniversalClient(patient(&goredis.UniversalOptions{Addrs: []string{server.Addr()}}))
	defer client.Close()
	l := used(t, client)
	minute := limit("minute", 100, time.Minute)
	asks := []ratelimit.Ask{takeAsk(1, minute), takeAsk(1, minute), takeAsk(1, minute)}
	grants := make([]ratelimit.Grant, 3)
	for round := range int64(2) {
		for i, n := range []int{1, 1, 3, 3} { // unknown, known, both as a batch
			if i%2 == 0 {
				server.Do("SCRIPT", "FLUSH")
			}
			server.Do("CONFIG", "RESETSTAT")
			if err := l.Lease(context.Background(), asks[:n], grants[:n]); err != nil {
				t.Fatal(err)
			}
			stats := fmt.Sprint(server.Do("INFO", "commandstats"))
			full := strings.Contains(stats, fmt.Sprintf("cmdstat_eval:calls=%d,", n))
			if full != (i%2 == 0) || !strings.Contains(stats, fmt.Sprintf("cmdstat_evalsha:calls=%d,", n)) {
				t.Errorf("round %d, %d asks, unknown %v:\n%s", round, n, i%2 == 0, stats)
			}
		}
	}
	if got := grants[2].Limits[0].Remaining; got != 100-16 {
		t.Errorf("%d left after 16", got)
	}
	server.Do("SCRIPT", "FLUSH")
	if err := l.Stop(context.Background(), "org_a", "key_a", 1); err != nil {
		t.Error(err)
	}
	server.Do("SCRIPT", "FLUSH")
	if g, err := l.Peek(context.Background(), asks[0]); err != nil || g.Status != ratelimit.Stopped {
		t.Errorf("%+v, %v", g, err)
	}
}

// A Redis that is away is an error within the time-outs, without what was sent.
func TestAway(t *testing.T) {
	const secret = "hunter2hunter2"
	server := redistest.Start(t, redistest.Options{Password: secret})
	calm := goredis.NewUniversalClient(patient(&goredis.UniversalOptions{Addrs: []string{server.Addr()}, Password: secret}))
	defer calm.Close()
	used(t, calm)
	connect := func(password string) *Ledger {
		client := goredis.NewUniversalClient(Options(&goredis.UniversalOptions{Addrs: []string{server.Addr()}, Password: password}))
		t.Cleanup(func() { client.Close() })
		return New(client)
	}
	asks, grants := []ratelimit.Ask{takeAsk(1, limit("minute", 100, time.Minute))}, make([]ratelimit.Grant, 1)
	fails := func(name string, l *Ledger) {
		t.Helper()
		sent := time.Now()
		err := l.Lease(context.Background(), asks, grants)
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "wrong password") {
			t.Errorf("%s: error %v", name, err)
		}
		// Dialing, greeting and asking may each take the time-out; the rest is
		// for a busy machine. Without Options it would be seconds.
		if took := time.Since(sent); took > time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
	fails("a wrong password", connect("wrong password"))
	l := connect(secret)
	for range 20 { // the time-outs are short for a machine that runs tests
		if err := l.Lease(context.Background(), asks, grants); err == nil {
			break
		}
	}
	server.Pause()
	fails("frozen", l)
	fails("frozen, new connection", connect(secret))
	server.Resume()
	server.Kill()
	fails("killed", l)
	server.Start()
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := l.Lease(context.Background(), asks, grants)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("back for 10 s: %v", err)
		}
	}
}

// In a cluster, the asks of a batch go to the nodes that have their slots.
func TestCluster(t *testing.T) {
	cluster := redistest.StartCluster(t)
	o := &goredis.UniversalOptions{IsClusterMode: true}
	for _, s := range cluster.Servers[:3] {
		o.Addrs = append(o.Addrs, s.Addr())
	}
	client := goredis.NewUniversalClient(patient(o))
	defer client.Close()
	l := used(t, client)
	asks, grants := make([]ratelimit.Ask, 60), make([]ratelimit.Grant, 60)
	for i := range asks {
		org := fmt.Sprint("org_", i%30)
		asks[i] = ratelimit.Ask{Organization: org, Key: fmt.Sprint("key_", i), Take: 2, Cost: 1, Version: 1, Limits: []ratelimit.Limit{
			{Name: "own", Holder: fmt.Sprint("key_", i), Quota: 10, Per: time.Minute},
			{Name: "org", Holder: org, Quota: 7, Per: time.Hour},
		}}
	}
	for round := range int64(3) { // 2, 2 and 2 of 7 in the first; 1 is left then
		if err := l.Lease(context.Background(), asks, grants); err != nil {
			t.Fatal(err)
		}
		for i := range grants {
			want := [][2]int64{{2, 5}, {2, 3}, {2, 1}, {1, 0}, {0, 0}, {0, 0}}[2*round+int64(i/30)]
			if g := grants[i]; g.Taken != want[0] || g.Limits[1].Remaining != want[1] {
				t.Fatalf("round %d, ask %d: %+v, want %v", round, i, g, want)
			}
		}
	}
	if err := l.Stop(context.Background(), "org_3", "key_3", 2); err != nil {
		t.Fatal(err)
	}
	if err := l.Lease(context.Background(), asks, grants); err != nil || grants[3].Status != ratelimit.Stopped || grants[4].Status != ratelimit.Denied {
		t.Fatalf("%+v, %+v, %v", grants[3], grants[4], err)
	}
}
