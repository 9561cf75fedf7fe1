package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for another process. No test measures how long
// something takes: this only keeps one that would hang from hanging.
const patience = 60 * time.Second

// workshop is where the program is built, once for all tests.
var workshop string

func TestMain(m *testing.M) {
	var err error
	if workshop, err = os.MkdirTemp("", "keygate-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(workshop)
	os.Exit(code)
}

// build makes the real program, with the race detector in it.
var build = sync.OnceValues(func() (string, error) {
	file := filepath.Join(workshop, "keygate")
	c := exec.Command("go", "build", "-race", "-o", file, ".")
	c.Dir = ".."
	c.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build -race: %w (it needs a C compiler; Debian: apt-get install gcc libc6-dev)\n%s", err, out)
	}
	return file, nil
})

// buildRelease makes it as it is shipped: the race detector makes it so slow that
// the time-outs of decisions would be all that a crowd of requests meets.
var buildRelease = sync.OnceValues(func() (string, error) {
	file := filepath.Join(workshop, "keygate-release")
	// With the flags of make build, which the tour runs: compiled once for both.
	c := exec.Command("go", "build", "-trimpath", "-o", file, ".")
	c.Dir = ".."
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
})

func program(t *testing.T) string { t.Helper(); return built(t, build) }

func built(t *testing.T, build func() (string, error)) string {
	t.Helper()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// tool finds a program of the machine that a test cannot do without.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	file, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; Debian: apt-get install %s", name, debian)
	}
	return file
}

// output is what a process has written so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// process runs in a group of its own, which ends with the test.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
}

// launch starts argv with nothing in its environment but env, a PATH and a HOME.
func launch(t *testing.T, dir string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.stdout, &p.stderr
	// By default the race detector lets every process sleep for a second at its end.
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GORACE=atexit_sleep_ms=0"}, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = patience
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // ProcessState says how it ended
	}()
	p.t.Cleanup(func() {
		p.kill9()
		p.inspect()
	})
}

// signal is sent to the process itself, as an operator or orchestrator does.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// kill9 ends the process without a chance to do anything, and all that it started.
func (p *process) kill9() {
	select {
	case <-p.ended: // its number may be someone else's by now
		return
	default:
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.t.Error(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Errorf("process %d survives SIGKILL", p.cmd.Process.Pid)
	}
}

// wait returns the exit code, -1 for a process that a signal ended.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("%v does not end; it said:\n%s", p.cmd.Args, p.said())
	}
	return p.cmd.ProcessState.ExitCode()
}

// said is the end of the log, for messages of tests.
func (p *process) said() string {
	s := p.stderr.String()
	return s[max(0, len(s)-4000):]
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// What tests put into requests and what no log may repeat: values of queries,
// bodies and headers.
const private = "for-the-upstream-only"

var (
	// anyKey has the form of a key with the default prefix.
	anyKey = regexp.MustCompile(`kg_live_[0-9A-Za-z]{36}`)
	alarms = []string{"DATA RACE", "panic:", "fatal error:", "goroutine "}
)

// inspect holds whatever a process said in this test to what holds for all of
// them: no secret, nothing private, no race and no panic.
func (p *process) inspect() {
	said := p.stderr.String()
	if found := anyKey.FindString(said); found != "" {
		p.t.Errorf("%v: a key stands in the log: %s…", p.cmd.Args, found[:12])
	}
	for _, text := range append(alarms, private) {
		if i := strings.Index(said, text); i >= 0 {
			p.t.Errorf("%v: %q stands in the log:\n%s", p.cmd.Args, text, said[i:min(len(said), i+4000)])
		}
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited until %s", what)
		}
	}
}
