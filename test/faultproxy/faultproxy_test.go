package faultproxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return l.Addr().String()
}

type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{t, c, bufio.NewReader(c)}
}

// ask sends a line and waits for it to come back.
func (c *client) ask(line string, wait time.Duration) error {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	return c.read(line, wait)
}

func (c *client) read(line string, wait time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	got, err := c.in.ReadString('\n')
	if err == nil && got != line+"\n" {
		c.t.Errorf("%q came back as %q", line, got)
	}
	return err
}

const long, short = 20 * time.Second, 100 * time.Millisecond

func TestFaults(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	isTimeout := func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
	isEnd := func(err error) bool {
		return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	}
	for _, tt := range []struct {
		fault Fault
		check func(t *testing.T, p *Proxy, c *client)
	}{
		{Delay, func(t *testing.T, _ *Proxy, c *client) {
			began := time.Now()
			if err := c.ask("late", long); err != nil || time.Since(began) < 2*DelayTime {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}},
		{Drop, func(t *testing.T, p *Proxy, c *client) {
			err := c.ask("lost", short)
			p.Heal()
			if again := c.ask("too", short); !isTimeout(err) || !isTimeout(again) {
				t.Errorf("%v, %v", err, again)
			}
		}},
		{Reset, func(t *testing.T, p *Proxy, c *client) {
			if err := c.read("", long); !isEnd(err) { // without a word
				t.Errorf("an open connection: %v", err)
			}
			if err := dial(t, p).ask("new", long); !isEnd(err) {
				t.Errorf("a new connection: %v", err)
			}
		}},
		{HalfOpen, func(t *testing.T, p *Proxy, c *client) {
			err := c.ask("nobody", short)
			p.Heal()
			if again := c.ask("still nobody", short); !isTimeout(err) || !isTimeout(again) {
				t.Errorf("%v, %v", err, again)
			}
		}},
		{Cut, func(t *testing.T, _ *Proxy, c *client) {
			if _, err := io.WriteString(c, strings.Repeat("x", 3*CutAfter)); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(c)
			if len(got) != CutAfter || err != nil && !isEnd(err) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}},
		{Slow, func(t *testing.T, _ *Proxy, c *client) {
			began := time.Now()
			if err := c.ask(strings.Repeat("x", SlowRate/2), long); err != nil || time.Since(began) < 500*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}},
		{BlackHole, func(t *testing.T, p *Proxy, c *client) {
			if err := c.ask("patience", short); !isTimeout(err) {
				t.Errorf("%v", err)
			}
			p.Heal()
			if err := c.read("patience", long); err != nil {
				t.Errorf("after it: %v", err)
			}
		}},
	} {
		t.Run(tt.fault.String(), func(t *testing.T) {
			p := Start(t, echo(t))
			c := dial(t, p)
			if err := c.ask("before", long); err != nil {
				t.Fatal(err)
			}
			p.Set(tt.fault)
			tt.check(t, p, c)
			p.Heal()
			if err := dial(t, p).ask("after", long); err != nil {
				t.Errorf("a new connection after it: %v", err)
			}
		})
	}
}

// A fault of one class leaves the others alone, and a connection's class is that
// of what it asked for last.
func TestClasses(t *testing.T) {
	p := Start(t, echo(t))
	p.Set(BlackHole, Feed)
	c := dial(t, p)
	for _, line := range []string{"HELLO 2", "get kg:{kg}:schema", "evalsha kg:l:{l7}:org:key", "evalsha kg:s:{l7}:org:key"} {
		if err := c.ask(line, long); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	p.Set(BlackHole, Control)
	if err := c.ask("evalsha kg:l:{l7}:org:key", long); err != nil {
		t.Error(err)
	}
	if err := c.ask("XREAD streams kg:{kg}:changes", short); err == nil {
		t.Error("the feed is read")
	}
	if err := dial(t, p).ask("get kg:{kg}:schema", short); err == nil {
		t.Error("a key was looked up")
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := net.Dial("tcp", Start(t, l.Addr().String()).Addr())
	if err != nil {
		return // reset before the connection was ready
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(long))
	if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
