package redis

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/store/redis/redistest"
	"keygate/ratelimit"
)

// fuzzed are asks of each kind.
func fuzzed() []ratelimit.Ask {
	minute, flights := limit("minute", 100, time.Minute), ratelimit.Limit{Name: ratelimit.ConcurrentName, Holder: "key_a", Quota: 5, Concurrent: true}
	take, lease, report := takeAsk(6, minute, limit("day", 1000, 24*time.Hour)), takeAsk(2, minute), takeAsk(0, minute)
	take.Cost = 2
	lease.Session, lease.NextSession, lease.Want = "s", "n", 5
	report.Session, report.NextSession, report.Spent, report.Seen = "s", "n", 3, 9
	release := report
	release.NextSession, release.Release = "", true
	flying := takeAsk(0, flights)
	flying.Session, flying.NextSession, flying.Want = "f", "g", 2
	stored := flying
	stored.Stored = true
	return []ratelimit.Ask{take, lease, report, release, flying, stored}
}

// Whatever comes back on the connection: an error, or a grant that the ask can have
// had. Neither the ledger nor a limiter in front of it panics.
func FuzzReply(f *testing.F) {
	numbers := func(v ...string) []byte {
		out := []byte("*" + v[0] + "\r\n")
		for _, n := range v[1:] {
			out = append(out, ":"+n+"\r\n"...)
		}
		return out
	}
	for kind := range byte(6) {
		f.Add(kind, numbers("12", "1", "2", "5", "2000000", "1790000000000000", "0", "0", "50000", "100", "93", "60050000", "0"))
		f.Add(kind, numbers("16", "1", "6", "0", "0", "1790000000000000", "0", "0", "50000", "100", "94", "60050000", "0", "1000", "994", "86400050000", "0"))
		f.Add(kind, numbers("8", "3", "0", "0", "0", "1790000000000000", "4", "0", "0"))
	}
	f.Add(byte(1), numbers("12", "1", "2", "9007199254740993", "2000000", "1", "0", "0", "50000", "100", "93", "0", "0"))
	f.Add(byte(0), numbers("12", "1", "7", "0", "0", "-1", "0", "0", "9999999", "100", "93", "0", "0"))
	f.Add(byte(2), numbers("12", "0", "0", "0", "9223372036854775807", "1", "0", "0", "0", "100", "0", "0", "9223372036854775807"))
	f.Add(byte(0), []byte("-DAMAGED kg:l:{l614}:org_a:key_a\r\n"))
	f.Add(byte(0), []byte("-NOSCRIPT No matching script.\r\n"))
	f.Add(byte(3), []byte("*-1\r\n"))
	f.Add(byte(4), []byte("*1000000000\r\n:1\r\n"))
	f.Add(byte(5), []byte("%1\r\n+a\r\n:1\r\n"))
	f.Fuzz(func(t *testing.T, kind byte, reply []byte) {
		options := patient(&goredis.UniversalOptions{Addrs: []string{"fake:1"}})
		options.Dialer = func(context.Context, string, string) (net.Conn, error) { return &parrot{reply: reply}, nil }
		client := goredis.NewUniversalClient(options)
		defer client.Close()
		l := New(client)
		a := fuzzed()[int(kind)%len(fuzzed())]
		grants := make([]ratelimit.Grant, 1)
		if err := l.Lease(t.Context(), []ratelimit.Ask{a}, grants); err == nil {
			g, tau := grants[0], a.Limits[0].LeaseTime()
			if g.Taken < 0 || g.Taken > a.Take || g.Taken%a.Cost != 0 || g.Admit < 0 || g.Admit > ratelimit.CallTimeout {
				t.Fatalf("%+v was asked for, %+v is no answer to it", a, g)
			}
			if g.Leased < 0 || a.Session == "" && g.Leased != 0 || g.TTL < 0 || g.TTL > tau {
				t.Fatalf("%+v was asked for, %+v is no answer to it", a, g)
			}
			for i, s := range g.Limits {
				if s.Name != a.Limits[i].Name || s.Remaining < 0 || s.NextUnit < 0 || s.RetryAfter < 0 || s.Violated && s.RetryAfter == 0 {
					t.Fatalf("%+v", s)
				}
			}
		}
		if a.Limits[0].Concurrent {
			return
		}
		limiter := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: l, Timeout: time.Second})
		for range 3 {
			ask := takeAsk(0, a.Limits...)
			if d, err := limiter.Decide(t.Context(), &ask, nil); err == nil && !d.Allowed && d.RetryAfter < 0 {
				t.Fatalf("%+v", d)
			}
			_, _ = limiter.Peek(t.Context(), &ask)
		}
	})
}

// A parrot is a server that says the same to everything, but to the greeting.
type parrot struct {
	net.Conn
	reply []byte
	said  bytes.Buffer
}

func (p *parrot) Write(b []byte) (int, error) {
	if bytes.Contains(bytes.ToLower(b), []byte("hello")) {
		p.said.WriteString("-ERR unknown command\r\n")
	} else {
		p.said.Write(p.reply)
	}
	return len(b), nil
}

func (p *parrot) Read(b []byte) (int, error)       { return p.said.Read(b) }
func (p *parrot) Close() error                     { return nil }
func (p *parrot) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (p *parrot) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (p *parrot) SetDeadline(time.Time) error      { return nil }
func (p *parrot) SetReadDeadline(time.Time) error  { return nil }
func (p *parrot) SetWriteDeadline(time.Time) error { return nil }

// Whatever is stored where a holder's value should be, or a mark: an error, or a
// decision that gives no more than the quota. What is called damaged is left as it is.
func FuzzStored(f *testing.F) {
	server := redistest.Start(f, redistest.Options{})
	client := goredis.NewUniversalClient(patient(&goredis.UniversalOptions{Addrs: []string{server.Addr()}}))
	f.Cleanup(func() { client.Close() })
	l := used(f, client)
	ctx := context.Background()
	names := newNames("org_a", "key_a")
	asks := fuzzed()
	for i := range asks[:4] {
		if err := l.Lease(ctx, asks[i:i+1], make([]ratelimit.Grant, 1)); err != nil {
			f.Fatal(err)
		}
		value, _ := client.Get(ctx, names.holder("key_a")).Bytes()
		f.Add(value, false)
		f.Add(value[:len(value)-1], false)
	}
	negative := client.Eval(ctx, `return cmsgpack.pack({2, 0, {{'minute', 60000000, -1000, {}, 100}}, {}, 0})`, nil).Val().(string)
	owing := client.Eval(ctx, `return cmsgpack.pack({2, 0, {}, {{'s', 5, 500, 2^53}}, 0})`, nil).Val().(string)
	f.Add([]byte(negative), false)
	f.Add([]byte(owing), false)
	f.Add([]byte("7"), true)
	f.Add([]byte("0x10"), true)
	f.Add([]byte("nan"), true)
	f.Fuzz(func(t *testing.T, value []byte, mark bool) {
		name := names.holder("key_a")
		if mark {
			name = names.mark("key_a")
		}
		client.Del(ctx, names.holder("key_a"), names.mark("key_a"))
		if err := client.Set(ctx, name, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		a := takeAsk(300, limit("minute", 100, time.Minute))
		a.Session, a.NextSession, a.Want = "new", "next", 50
		grants := make([]ratelimit.Grant, 1)
		if err := l.Lease(ctx, []ratelimit.Ask{a}, grants); err != nil {
			if kept, _ := client.Get(ctx, name).Bytes(); errors.Is(err, ErrDamaged) && !bytes.Equal(kept, value) {
				t.Fatalf("%v, and %q became %q", err, value, kept)
			}
			return
		}
		if g := grants[0]; g.Taken+g.Leased > 100 {
			t.Fatalf("%+v on %q", g, value)
		}
	})
}
