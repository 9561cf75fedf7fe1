package test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// pseudoTerminal opens a terminal without anybody at it (pty(7)).
func pseudoTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("this machine has no pseudo-terminals: mount devpts: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	var number, unlock int32
	control := func(request uintptr, arg *int32) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, user.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	control(syscall.TIOCSPTLCK, &unlock)
	control(syscall.TIOCGPTN, &number)
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// onTerminal starts the gateway with a terminal as its stderr; screen is what
// shows there. What it shows is not held to what holds for logs.
func onTerminal(t *testing.T, g *gateway) (screen *output) {
	t.Helper()
	user, tty := pseudoTerminal(t)
	c := exec.Command(program(t), "serve")
	c.Dir, c.Stdin, c.Stderr = t.TempDir(), tty, tty
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
	for name, value := range g.env {
		c.Env = append(c.Env, name+"="+value)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	g.process = &process{t: t, cmd: c, ended: make(chan struct{})}
	g.process.start()
	screen = &output{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := user.Read(b)
			_, _ = screen.Write(b[:n]) // never fails
			if err != nil {
				return
			}
		}
	}()
	return screen
}

// A person who starts keygate is shown the keys, once, and they are written
// nowhere.
func TestFirstStartOnATerminal(t *testing.T) {
	t.Parallel()
	taken := newUpstream(t, nil)
	g := unconfigured(t, filepath.Join(t.TempDir(), "data"))

	// The port is taken, as it often is: nothing may be lost by that.
	g.env["KEYGATE_ADDR"] = taken.Listener.Addr().String()
	onTerminal(t, g)
	if code := g.wait(); code != 1 {
		t.Errorf("exit code %d where the port is taken, want 1", code)
	}

	g.env["KEYGATE_ADDR"] = "127.0.0.1:0"
	screen := onTerminal(t, g)
	eventually(t, "the first start's text is on the screen", func() bool {
		if !g.running() {
			t.Fatalf("it ended:\n%s", screen)
		}
		return strings.Contains(screen.String(), "/v1/keys\r\n")
	})
	want := []string{"HTTP/1.1 200 OK", "HTTP/1.1 401 Unauthorized", "HTTP/1.1 201 Created"}
	lines := curlLine.FindAllStringSubmatch(strings.ReplaceAll(screen.String(), "\r", ""), -1)
	if len(lines) != len(want) {
		t.Fatalf("%d lines to paste, want %d:\n%s", len(lines), len(want), screen)
	}
	for i, line := range lines {
		if status := paste(t, line[1]); status != want[i] {
			t.Errorf("line %d answers %q, want %q", i+1, status, want[i])
		}
	}
	secret := anyKey.FindString(lines[0][1])
	for _, name := range []string{"bootstrap-key", "first-key"} {
		if _, err := os.Stat(filepath.Join(g.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want no such file", name, err)
		}
	}
	g.stop()

	again := onTerminal(t, g)
	eventually(t, "it is ready again", func() bool {
		return strings.Contains(again.String(), "keygate is ready") && strings.Contains(again.String(), "\n")
	})
	if shown := again.String(); anyKey.MatchString(shown) || strings.Contains(shown, "curl") {
		t.Error("the second start shows the first one's text")
	}
	g.proxy = "http://" + proxyAddress.FindStringSubmatch(again.String())[1]
	g.wants(http.StatusOK, "/hello", secret)
	g.stop()
}
