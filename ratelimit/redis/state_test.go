package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	goredis "github.com/redis/go-redis/v9"

	"keygate/ratelimit"
)

// Names are part of the stored format: replicas of all versions must agree.
func TestNames(t *testing.T) {
	for _, test := range []struct{ organization, key, holder, want, mark string }{
		{"org_a", "key_a", "key_a", "kg:l:{l614}:org_a:key_a", "kg:s:{l614}:org_a:key_a"},
		{"org_a", "key_a", "org_a", "kg:l:{l614}:org_a:org_a", "kg:s:{l614}:org_a:key_a"},
		{"", "key_a", "key_a", "kg:l:{l506}:key_a:key_a", "kg:s:{l506}:key_a:key_a"},
	} {
		n := newNames(test.organization, test.key)
		if n.holder(test.holder) != test.want || n.mark(test.key) != test.mark {
			t.Errorf("%+v: %s, %s", test, n.holder(test.holder), n.mark(test.key))
		}
	}
}

// stored is a value as the script reads it, printed with all digits.
func (w *world) stored(key string) string {
	w.t.Helper()
	return w.do("EVAL", `
		local function text(v)
			if type(v) == 'number' then return string.format('%.0f', v) end
			if type(v) ~= 'table' then return tostring(v) end
			local out = {}
			for _, item in ipairs(v) do table.insert(out, text(item)) end
			return '{' .. table.concat(out, ' ') .. '}'
		end
		return text(cmsgpack.unpack(redis.call('GET', KEYS[1])))`, 1, key).(string)
}

// Microseconds have 16 digits, two more than Lua prints and three more than a
// number converted by Redis used to have: they must come and go as they are.
func TestMicrosecondsAreExact(t *testing.T) {
	w := startBench(t).world(t)
	const now = 1_790_000_123_456_789
	w.do("SET", nowKey, now)
	minute, day := limit("minute", 100, time.Minute), limit("day", ratelimit.MaxQuota, 24*time.Hour)
	if g := w.ask(takeAsk(3, minute, day)); g.Now.UnixMicro() != now {
		t.Errorf("now is %d", g.Now.UnixMicro())
	}
	w.advance(time.Microsecond)
	a := takeAsk(ratelimit.MaxQuota/10+7, day)
	a.Session, a.NextSession, a.Want = "s1", "s2", 5
	if g := w.ask(a); g.Now.UnixMicro() != now+1 || g.Leased != 5 || g.TTL != 2*time.Second {
		t.Errorf("%+v", g)
	}
	want := "{2 1790000123456790" +
		" {{minute 60000000 3 {1790000183506789 3} 100}" +
		" {day 86400000000 100000000010 {1790086523506789 3 1790086523506790 100000000007} 1000000000000}}" +
		" {{s1 5 0 1790000125456790}} 0}"
	if got := w.stored("kg:l:{l614}:org_a:key_a"); got != want {
		t.Errorf("stored\n%s, want\n%s", got, want)
	}
	w.advance(-time.Hour) // the ledger's time is read back from what is stored
	if g := w.ask(takeAsk(1, minute)); g.Now.UnixMicro() != now+1 {
		t.Errorf("now is %d", g.Now.UnixMicro())
	}
}

// Above 64 charges the pair is merged that the ledger in memory would merge.
func TestMergedCharges(t *testing.T) {
	w := startBench(t).world(t)
	p := newPair(w.Ledger, time.UnixMicro(start))
	minute := limit("minute", ratelimit.MaxQuota, time.Minute)
	for i := range 300 {
		w.advance(time.Duration(1+i*7919%1000) * time.Microsecond)
		p.lease(t, []ratelimit.Ask{takeAsk(1+int64(i*104729%50), minute)})
	}
	value := w.stored("kg:l:{l614}:org_a:key_a")
	_, charges, _ := strings.Cut(value, " {{minute 60000000 ")
	charges, _, _ = strings.Cut(charges, "}")
	if n := len(strings.Fields(charges)); n != 1+2*64 {
		t.Errorf("%d numbers in %s", n, charges)
	}
	for range 70 { // each end
		g := p.lease(t, []ratelimit.Ask{takeAsk(0, minute)})[0]
		w.advance(g.Limits[0].NextUnit)
	}
	if n := len(w.keys("kg:l:*")); n != 0 {
		t.Errorf("%d values are left", n)
	}
}

// No value is without an end, and none outlives its last charge by much.
func TestEveryValueEnds(t *testing.T) {
	b := startBench(t)
	client := b.client(t)
	l := used(t, client)
	ctx := context.Background()
	second := limit("second", 100, time.Second)
	hour := ratelimit.Limit{Name: "hour", Holder: "org_a", Quota: 50, Per: time.Hour}
	lease := takeAsk(1, second)
	lease.Session, lease.NextSession, lease.Want = "s", "n", 4
	report := lease
	report.Spent, report.Seen, report.Take, report.Want = 2, 4, 0, 0
	release := report
	release.Release = true
	alone := report
	alone.Spent, alone.Seen, alone.Want = 0, 0, 1
	alone.Limits = []ratelimit.Limit{{Name: "minute", Holder: "key_b", Quota: 50, Per: time.Minute}}
	tau, d := ratelimit.LeaseTime(time.Second), ratelimit.CallTimeout
	for _, step := range []struct {
		name string
		ask  ratelimit.Ask
		ends map[string]time.Duration
	}{
		{"take", takeAsk(1, second), map[string]time.Duration{"key_a": d + time.Second}},
		{"refusal", takeAsk(101, second, hour), map[string]time.Duration{"key_a": d + time.Second, "org_a": d + time.Hour}},
		{"lease", lease, map[string]time.Duration{"key_a": tau + time.Second, "org_a": d + time.Hour}},
		{"report", report, map[string]time.Duration{"key_a": tau + time.Second, "org_a": d + time.Hour}},
		{"release", release, map[string]time.Duration{"key_a": tau + time.Second, "org_a": d + time.Hour}},
		{"only a lease", alone, map[string]time.Duration{"key_a": tau + time.Second, "org_a": d + time.Hour, "key_b": 2*time.Second + time.Minute}},
	} {
		if err := l.Lease(ctx, []ratelimit.Ask{step.ask}, make([]ratelimit.Grant, 1)); err != nil {
			t.Fatal(err)
		}
		names := client.Keys(ctx, "kg:[lsc]:*").Val()
		if len(names) != len(step.ends) {
			t.Fatalf("after %s: %v", step.name, names)
		}
		for _, name := range names {
			ttl := client.PTTL(ctx, name).Val()
			most := step.ends[name[strings.LastIndex(name, ":")+1:]] + time.Second
			if ttl <= most-800*time.Millisecond || ttl > most {
				t.Errorf("after %s: %s ends in %s, want %s", step.name, name, ttl, most)
			}
		}
	}
	if err := l.Stop(ctx, "org_a", "key_a", 4); err != nil {
		t.Fatal(err)
	}
	if ttl := client.PTTL(ctx, newNames("org_a", "").mark("key_a")).Val(); ttl <= ratelimit.StopLife-time.Minute || ttl > ratelimit.StopLife {
		t.Errorf("the mark ends in %s", ttl)
	}
}

// A clock that was set back does not end a value before its charges.
func TestValueEndsByTheClock(t *testing.T) {
	w := startBench(t).world(t)
	w.ask(takeAsk(1, limit("minute", 10, time.Minute)))
	w.advance(-time.Hour)
	w.ask(takeAsk(1, limit("minute", 10, time.Minute)))
	const slack = time.Hour // of the test's script
	if ttl := w.client.PTTL(context.Background(), "kg:l:{l614}:org_a:key_a").Val(); ttl < time.Hour+time.Minute+slack {
		t.Errorf("ends in %s", ttl)
	}
}

// reader is the world's ledger without the right to write.
func (b *bench) reader(w *world) *Ledger {
	w.do("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-set", "-del")
	o := patient(&goredis.UniversalOptions{Addrs: []string{b.Addr()}, DB: int(b.used.Load()), Username: "reader", Password: "secret"})
	client := goredis.NewUniversalClient(o)
	w.t.Cleanup(func() { client.Close() })
	reader := New(client)
	reader.lease = w.lease
	return reader
}

// Refusing writes nothing, however often it is asked for, though charges of
// another limit have ended meanwhile.
func TestRefusalWritesNothing(t *testing.T) {
	b := startBench(t)
	w := b.world(t)
	second, hour := limit("second", 100, time.Second), limit("hour", 2, time.Hour)
	w.ask(takeAsk(2, second, hour))
	w.advance(2 * time.Second)
	reader, grants := b.reader(w), make([]ratelimit.Grant, 1)
	for range 3 {
		if err := reader.Lease(context.Background(), []ratelimit.Ask{takeAsk(1, second, hour)}, grants); err != nil || grants[0].Status != ratelimit.Denied {
			t.Errorf("%+v, %v", grants[0], err)
		}
	}
}

// Looking needs no right to write, so it does not; what grants does.
func TestPeekWritesNothing(t *testing.T) {
	b := startBench(t)
	w := b.world(t)
	second, hour := limit("second", 100, time.Second), limit("hour", 100, time.Hour)
	a := takeAsk(1, second, hour)
	a.Session, a.NextSession, a.Want = "s", "n", 4
	w.ask(a)
	reader := b.reader(w)
	// Also where charges and the session have ended meanwhile, or a window changed.
	for _, pause := range []time.Duration{0, time.Second, 10 * time.Second} {
		w.advance(pause)
		for _, limits := range [][]ratelimit.Limit{{second, hour}, {limit("second", 100, time.Minute), limit("new", 100, time.Minute)}} {
			if g, err := reader.Peek(context.Background(), takeAsk(0, limits...)); err != nil || g.Status != ratelimit.Granted {
				t.Errorf("%+v, %v", g, err)
			}
		}
		if err := reader.Lease(context.Background(), []ratelimit.Ask{takeAsk(1, hour)}, make([]ratelimit.Grant, 1)); err == nil {
			t.Error("a grant that was not written")
		}
	}
}

// What is no value of the ledger's is no empty one either: the asks that need it
// fail and say which it is, change nothing, and work again once it is gone.
func TestDamagedValues(t *testing.T) {
	b := startBench(t)
	const holder, other, mark = "kg:l:{l614}:org_a:key_a", "kg:l:{l614}:org_a:org_a", "kg:s:{l614}:org_a:key_a"
	const marker = "kg:m:{l614}"
	limits := []ratelimit.Limit{{Name: "org", Holder: "org_a", Quota: 100, Per: time.Hour}, limit("minute", 100, time.Minute)}
	pack := func(value string) []any {
		return []any{"EVAL", "return redis.call('SET', KEYS[1], cmsgpack.pack(" + value + "))", 1, holder}
	}
	for name, test := range map[string]struct {
		key    string
		damage []any
	}{
		"text":           {holder, []any{"SET", holder, "hello"}},
		"empty text":     {holder, []any{"SET", holder, ""}},
		"a list":         {holder, []any{"LPUSH", holder, "x"}},
		"another shape":  {holder, pack("{2, 'x', {}, {}, 0}")},
		"a number":       {holder, pack("7")},
		"a later format": {holder, pack("{3, 1, {}, {}, 0}")},
		"cut off":        {holder, []any{"EVAL", "return redis.call('SET', KEYS[1], cmsgpack.pack({2, 1, {}, {}, 0}):sub(1, -2))", 1, holder}},
		"a mark of text": {mark, []any{"SET", mark, "hello"}},
		"a mark of hash": {mark, []any{"HSET", mark, "a", "b"}},
		"marker of text": {marker, []any{"SET", marker, "hello"}},
		"marker of hash": {marker, []any{"EVAL", "redis.call('DEL', KEYS[1]) return redis.call('HSET', KEYS[1], 'a', 'b')", 1, marker}},
	} {
		w := b.world(t)
		w.ask(takeAsk(1, limits[0]))
		w.do(test.damage...)
		before := w.do("DUMP", other)
		_, looked := w.Peek(context.Background(), takeAsk(0, limits...))
		asked := w.Lease(context.Background(), []ratelimit.Ask{takeAsk(1, limits...)}, make([]ratelimit.Grant, 1))
		for _, err := range []error{looked, asked} {
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.key) {
				t.Errorf("%s: error %v", name, err)
			}
		}
		if diff := cmp.Diff(before, w.do("DUMP", other)); diff != "" {
			t.Errorf("%s: %s was changed", name, other)
		}
		if w.do("DEL", test.key); test.key == marker {
			w.mark(First) // or it would count as a loss
		}
		if g := w.ask(takeAsk(1, limits...)); g.Limits[0].Remaining != 98 {
			t.Errorf("%s: repaired: %+v", name, g)
		}
	}
	// Deeper down it is at least an error.
	w := b.world(t)
	for _, value := range []string{"{2, 1, {7}, {}, 0}", "{2, 1, {{'minute', 1}}, {}, 0}", "{2, 1, {}, {{'s'}}, 0}"} {
		w.do(pack(value)...)
		if err := w.Lease(context.Background(), []ratelimit.Ask{takeAsk(1, limits...)}, make([]ratelimit.Grant, 1)); err == nil {
			t.Errorf("%s is read as a holder", value)
		}
	}
}

// Without memory for the new value there is no grant, and no half of one.
func TestOutOfMemory(t *testing.T) {
	b := startBench(t)
	w := b.world(t)
	limits := []ratelimit.Limit{limit("minute", 2, time.Minute), {Name: "org", Holder: "org_a", Quota: 100, Per: time.Hour}}
	w.ask(takeAsk(1, limits...))
	w.do("CONFIG", "SET", "maxmemory", "1")
	// The test's clock is a value too: only the script that is shipped may run.
	l := New(w.client)
	for range 3 {
		if err := l.Lease(context.Background(), []ratelimit.Ask{takeAsk(1, limits...)}, make([]ratelimit.Grant, 1)); err == nil {
			t.Error("granted without memory")
		}
	}
	w.do("CONFIG", "SET", "maxmemory", "0")
	if g := w.ask(takeAsk(0, limits...)); g.Limits[0].Remaining != 1 || g.Limits[1].Remaining != 99 {
		t.Errorf("%+v", g)
	}
}

// The client's options keep what says where Redis is, and leave base alone.
func TestOptions(t *testing.T) {
	base := &goredis.UniversalOptions{Addrs: []string{"a:1"}, Username: "u", Password: "p", DB: 3, MasterName: "m", ReadOnly: true, RouteRandomly: true, PoolSize: 7}
	before := *base
	o := Options(base)
	if base.MaxRetries != before.MaxRetries || !base.ReadOnly || base.DialTimeout != 0 {
		t.Errorf("base was changed: %+v", base)
	}
	if fmt.Sprintf("%v %s %s %d %s %d", o.Addrs, o.Username, o.Password, o.DB, o.MasterName, o.PoolSize) != "[a:1] u p 3 m 7" {
		t.Errorf("%+v", o)
	}
	if o.MaxRetries != -1 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled || o.ReadOnly || o.RouteRandomly ||
		max(o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout) > 50*time.Millisecond {
		t.Errorf("%+v", o)
	}
}
