// Package redistest starts real Redis processes for tests, on free ports of
// 127.0.0.1: a single server, a cluster, or a master behind sentinels. All of
// them end with the test that started them.
package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Options of a server. The zero value is a server that keeps nothing.
type Options struct {
	// Dir holds its files; a directory of the test's own if empty.
	Dir string
	// Port is a free one if 0.
	Port int
	// AOF is the value of appendfsync, such as "everysec"; empty: no log.
	AOF string
	// Password of the default user.
	Password string
	// TLS serves TLS only, with files of the test's own; clients need TLSConfig.
	TLS bool
	// Args come last: {"--maxmemory", "8mb"}.
	Args []string
}

// Server is one process, which may be killed and started again.
type Server struct {
	t        testing.TB
	program  string
	args     []string
	password string
	tls      *tls.Config
	// Dir and Port stay the same over a restart.
	Dir  string
	Port int

	mu      sync.Mutex
	process *exec.Cmd
	exited  chan struct{}
}

// Start starts a redis-server and waits until it answers.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := newServer(t, "redis-server", o)
	s.Start()
	return s
}

func newServer(t testing.TB, program string, o Options) *Server {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("this test needs %s (%v): on Debian, apt-get install redis-server redis-sentinel; test/setup.sh does it", program, err)
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Port == 0 {
		o.Port = FreePort(t)
	}
	s := &Server{t: t, program: program, Dir: o.Dir, Port: o.Port, password: o.Password}
	port := strconv.Itoa(o.Port)
	s.args = []string{"--bind", "127.0.0.1", "--dir", o.Dir, "--save", "", "--logfile", filepath.Join(o.Dir, "redis.log"), "--daemonize", "no"}
	if o.TLS {
		files := certificate(t)
		s.tls = files.config
		s.args = append(s.args, "--port", "0", "--tls-port", port, "--tls-cert-file", files.cert, "--tls-key-file", files.key,
			"--tls-ca-cert-file", files.cert, "--tls-auth-clients", "no")
	} else {
		s.args = append(s.args, "--port", port)
	}
	if o.AOF != "" {
		s.args = append(s.args, "--appendonly", "yes", "--appendfsync", o.AOF)
	}
	if o.Password != "" {
		s.args = append(s.args, "--requirepass", o.Password, "--masterauth", o.Password)
	}
	s.args = append(s.args, o.Args...)
	t.Cleanup(s.Kill)
	return s
}

// Start starts the process again after Kill, over the same files, and waits
// until it serves.
func (s *Server) Start() {
	s.t.Helper()
	quiet()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = exec.Command(s.program, s.args...)
	endWithParent(s.process)
	out := &tail{}
	s.process.Stdout, s.process.Stderr = out, out
	if err := s.process.Start(); err != nil {
		s.t.Fatalf("starting %s: %v", s.program, err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(p *exec.Cmd) {
		p.Wait() // killed as a rule, so its error says nothing
		close(exited)
	}(s.process)
	c := s.Client()
	defer c.Close()
	await(s.t, s.program+" to answer", func(ctx context.Context) error {
		select {
		case <-exited:
			log, _ := os.ReadFile(filepath.Join(s.Dir, "redis.log")) // there may be none
			s.t.Fatalf("%s %s ended: %s\n%s", s.program, strings.Join(s.args, " "), out, log)
		default:
		}
		info, err := c.Info(ctx).Result()
		switch {
		case err != nil:
			return err
		case !strings.Contains(info, fmt.Sprintf("process_id:%d\r", s.process.Process.Pid)):
			return errors.New("another process listens on its port")
		case strings.Contains(info, "loading:1"):
			return errors.New("it is loading its data")
		}
		return nil
	})
}

// Kill ends the process as kill -9 does; one that has ended is left alone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	if err := s.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("killing %s: %v", s.program, err)
	}
	<-s.exited
	s.process = nil
}

// Stop ends the process in good order: it writes what is left to its append-only
// file and closes its connections.
func (s *Server) Stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("%s does not end", s.program)
	}
	s.process = nil
}

// Pause stops the process in its tracks, with all connections open.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		s.t.Fatalf("%s is not running", s.program)
	}
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v: %v", sig, err)
	}
}

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL is what an operator would set as REDIS_URL.
func (s *Server) URL() string {
	scheme, user := "redis", ""
	if s.tls != nil {
		scheme = "rediss"
	}
	if s.password != "" {
		user = ":" + s.password + "@"
	}
	return fmt.Sprintf("%s://%s%s/0", scheme, user, s.Addr())
}

// TLSConfig trusts the server's certificate; nil without TLS.
func (s *Server) TLSConfig() *tls.Config { return s.tls.Clone() }

// Client is a plain client of this server; the caller closes it.
func (s *Server) Client() *goredis.Client {
	return goredis.NewClient(&goredis.Options{
		Addr: s.Addr(), Password: s.password, TLSConfig: s.tls, Protocol: 2, DisableIdentity: true,
		DialTimeout: time.Second, ReadTimeout: 5 * time.Second, DialerRetries: 1, MaxRetries: -1, ContextTimeoutEnabled: true,
	})
}

// Do runs a command and returns its answer.
func (s *Server) Do(args ...any) any {
	s.t.Helper()
	c := s.Client()
	defer c.Close()
	v, err := c.Do(context.Background(), args...).Result()
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// Promoted reports whether the server says that it is a master. Sentinel ends the
// connections of one that it promotes, so that no answer means not yet.
func (s *Server) Promoted() bool {
	c := s.Client()
	defer c.Close()
	role, err := c.Info(context.Background(), "replication").Result()
	return err == nil && strings.Contains(role, "role:master")
}

// Flush empties the server.
func (s *Server) Flush() { s.t.Helper(); s.Do("FLUSHALL") }

// quiet keeps the client's own log, which tells of every refused connection, out
// of the tests' output.
var quiet = sync.OnceFunc(func() { goredis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

var ports struct {
	mu    sync.Mutex
	given map[int]bool
}

// FreePort finds a port of 127.0.0.1 that nobody listens on, nor 10,000 above,
// where the bus of a cluster would be. It gives none twice. Both lie below the
// ports that Linux gives to outgoing connections, of which one could take the
// place of a server that was killed.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 1000 {
		port := 11_000 + rand.IntN(11_000)
		if ports.given[port] || !free(port) || !free(port+10_000) {
			continue
		}
		if ports.given == nil {
			ports.given = make(map[int]bool)
		}
		ports.given[port] = true
		return port
	}
	t.Fatal("no free port from 11000 to 21999")
	return 0
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// await retries until what is nil; half a minute is more than anything here
// takes, and a busy machine is no failure.
func await(t testing.TB, what string, ready func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("waited 30s for %s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// tail keeps the last output of a process.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	w.text = w.text[max(0, len(w.text)-4096):]
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}
