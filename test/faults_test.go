package test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keygate/internal/admin"
)

// One clear line for each mistake, the exit code of the kind, and nothing lost.
func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	file := written(t, "occupied", "not a directory")
	policy := written(t, "policy.yaml", "version: 1\nroutes:\n  - { match: \"GET /x\", permission: any, cost: 0 }\n  - { match: \"GET /y\", permission: \"a:b\" }\n")
	taken := newUpstream(t, nil).Listener.Addr().String()
	for _, tt := range []struct {
		name string
		env  settings
		code int
		want []string // a line each
	}{
		{"every mistake of the environment at once", settings{
			"KEYGATE_ADDR": "nonsense", "KEYGATE_CACHE_KEYS": "0", "KEYGATE_DRAIN_TIMEOUT": "5", "KEYGATE_UPSTREAM": "ftp://x", "LOG_LEVEL": "loud",
		}, 3, []string{"KEYGATE_CACHE_KEYS", "KEYGATE_DRAIN_TIMEOUT", "KEYGATE_UPSTREAM", "KEYGATE_ADDR", "LOG_LEVEL"}},
		{"an empty variable", settings{"KEYGATE_UPSTREAM": ""}, 3, []string{"KEYGATE_UPSTREAM: is set but empty"}},
		{"a misspelt variable", settings{"KEYGATE_UPSTRAEM": "http://127.0.0.1:1"}, 3, []string{`did you mean "KEYGATE_UPSTREAM"?`}},
		{"a feature to come", settings{"KEYGATE_REQUIRE_HTTPS": "true"}, 3, []string{"KEYGATE_REQUIRE_HTTPS: is not supported yet"}},
		{"a Redis that is none", settings{"REDIS_URL": "http://127.0.0.1"}, 3, []string{"REDIS_URL: the Redis URL must begin with redis://"}},
		{"a management address for everyone", settings{"KEYGATE_ADMIN_ADDR": "0.0.0.0:0"}, 3, []string{"KEYGATE_ADMIN_INSECURE"}},
		{"a bad policy", settings{"KEYGATE_POLICY_FILE": policy, "KEYGATE_UPSTREAM": "http://127.0.0.1:1"}, 3, []string{"policy.yaml:3:47: ", "policy.yaml:4:36: "}},
		{"no policy", settings{"KEYGATE_POLICY_FILE": filepath.Join(t.TempDir(), "missing.yaml")}, 3, []string{"missing.yaml"}},
		{"a data directory below a file", settings{"KEYGATE_DATA_DIR": filepath.Join(file, "data")}, 3, []string{"data directory " + filepath.Join(file, "data")}},
		{"a port in use", settings{"KEYGATE_ADDR": taken}, 1, []string{"cannot listen on " + taken + " (proxy)"}},
		{"a management port in use", settings{"KEYGATE_ADMIN_ADDR": taken}, 1, []string{"cannot listen on " + taken + " (management)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			said := prepare(t, tt.env).refuses(tt.code)
			lines := strings.Split(strings.TrimSuffix(said, "\n"), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), len(tt.want), said)
			}
			for _, want := range tt.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
		})
	}
}

// Two processes on one directory would each keep limits of their own.
func TestDataDirectoryInUse(t *testing.T) {
	t.Parallel()
	g := start(t, nil)
	k := g.newKey("kept")
	second := prepare(t, settings{"KEYGATE_DATA_DIR": g.dir, "KEYGATE_BOOTSTRAP_KEY": g.key})
	said := second.refuses(3)
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, "process "+strconv.Itoa(g.cmd.Process.Pid)) {
		t.Errorf("it said: %s", said)
	}
	g.wants(http.StatusOK, "/x", k.Secret)
	g.kill9() // the lock ends with its holder, however that ends
	second.start()
	second.wants(http.StatusOK, "/x", k.Secret)
}

// A damaged database is reported, and left as it is for whoever repairs it.
func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	garbage := strings.Repeat("no database ", 400)
	for name, offset := range map[string]int64{"at its beginning": 0, "inside": 8192} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, nil)
			g.stop()
			file := filepath.Join(g.dir, "control.db")
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte(garbage), offset)
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			before := read(t, file)
			said := g.refuses(3)
			if strings.Count(said, "\n") != 1 || !strings.Contains(said, file) || !strings.Contains(said, "damaged") {
				t.Errorf("it said: %s", said)
			}
			// The first page has a mark that each start writes.
			if after := read(t, file); len(after) != len(before) || after[4096:] != before[4096:] {
				t.Error("the damaged file was changed")
			}
		})
	}
}

// A disk that takes no more: what is there still works, what cannot be stored
// is not acknowledged, and what was acknowledged is there afterwards. The limit
// of a file's size stands in for the disk, which a test cannot fill.
func TestNoRoomForMoreKeys(t *testing.T) {
	t.Parallel()
	g := prepare(t, settings{"KEYGATE_DEFAULT_PLAN": "enterprise"})
	g.start()
	first := g.newKey("before")
	g.stop()

	g.wrap = `ulimit -f 320 && exec "$@"` // of 1 KiB
	g.start()
	c := newClient(t)
	acknowledged := []admin.CreatedKey{first}
	var failure error
	for i := 0; failure == nil && i < 2000; i++ {
		var k admin.CreatedKey
		if k, failure = create(c, g.management, g.key, admin.NewKey{Name: "key " + strconv.Itoa(i)}); failure == nil {
			acknowledged = append(acknowledged, k)
		}
	}
	if failure == nil {
		t.Fatal("there was room for 2,000 keys")
	}
	if !strings.Contains(failure.Error(), "503") || !strings.Contains(failure.Error(), "Temporarily unavailable") {
		t.Errorf("a key that could not be stored: %v", failure)
	}
	eventually(t, "the log says that it is the disk", func() bool { return strings.Contains(g.stderr.String(), "the disk failed or is full") })
	g.allWork(c, acknowledged)
	if r := g.cli("keys", "get", first.ID); r.code != 0 {
		t.Errorf("reading: %+v", r)
	}
	g.kill9()
	g.wrap = ""
	g.start()
	g.allWork(newClient(t), acknowledged)
	acknowledged = append(acknowledged, g.newKey("after"))
	g.stop()
	var all []admin.Key
	for _, k := range acknowledged {
		all = append(all, k.Key)
	}
	checkDatabase(t, g.dir, all)
}

// A request that was admitted and finds nobody behind the gate.
func TestUpstreamFaults(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close() // before any answer
		}
	})
	g := start(t, settings{"KEYGATE_UPSTREAM": u.URL})
	k := g.newKey("patient")
	g.refused(http.StatusBadGateway, "Upstream unavailable", "/x?"+private, k.Secret)
	u.Close()
	_, p := g.refused(http.StatusBadGateway, "Upstream unavailable", "/x?"+private, k.Secret)
	if strings.Contains(p.Detail, "127.0.0.1") {
		t.Errorf("the client learns where the upstream is: %s", p.Detail)
	}
	eventually(t, "both are logged", func() bool { return len(g.logged("request")) == 2 })
	if line := g.logged("request")[1]; line["http.response.status_code"] != 502.0 || !strings.Contains(line["error"].(string), "connection refused") {
		t.Errorf("%v", line)
	}
	if status, _ := g.readyz(); status != http.StatusOK {
		t.Errorf("/readyz: %d; other upstreams may still work", status)
	}
}

// A client that gives up on a silent upstream takes its request back.
func TestClientGivesUp(t *testing.T) {
	t.Parallel()
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	u := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(cancelled)
	})
	g := start(t, settings{"KEYGATE_UPSTREAM": u.URL})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	key := g.newKey("impatient").Secret
	gone := make(chan error, 1)
	go func() {
		_, err := try(newClient(t), http.MethodGet, g.proxy+"/silent", key, nil, func(r *http.Request) { *r = *r.WithContext(ctx) })
		gone <- err
	}()
	for _, step := range []struct {
		what string
		done <-chan struct{}
	}{{"the request arrives upstream", arrived}, {"it is cancelled upstream", cancelled}} {
		select {
		case <-step.done:
		case <-time.After(patience):
			t.Fatalf("in vain waited until %s", step.what)
		}
		cancel()
	}
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	eventually(t, "it is logged", func() bool { return len(g.logged("request")) == 1 })
	if line := g.logged("request")[0]; line["http.response.status_code"] != 499.0 {
		t.Errorf("%v", line)
	}
}

// Bytes pass when they come, not when the answer ends; and one that breaks off
// is not passed on as a whole one.
func TestStreaming(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-proceed
		panic(http.ErrAbortHandler)
	})
	g := start(t, settings{"KEYGATE_UPSTREAM": u.URL})
	r, err := http.NewRequest(http.MethodGet, g.proxy+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.newKey("stream").Secret)
	resp, err := newClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first" {
		t.Errorf("%q, %v", first, err)
	}
	close(proceed)
	if rest, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("an answer that broke off ends as a whole one, with %q", rest)
	}
}

// Clients that send nonsense, nothing, or only half of what they announce.
func TestMalformedClients(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	g := start(t, settings{"KEYGATE_UPSTREAM": u.URL})
	key := g.newKey("half").Secret
	host := strings.TrimPrefix(g.proxy, "http://")
	for name, text := range map[string]string{
		"no HTTP":          "\x16\x03\x01 nonsense\r\n\r\n",
		"two lengths":      "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"bad chunk":        "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"half of a body":   "POST /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\nContent-Length: 100\r\n\r\nhalf",
		"half of a header": "GET /x HTTP/1.1\r\nHost",
		"nothing":          "",
		"a huge header":    "GET /x HTTP/1.1\r\nHost: x\r\nX-Huge: " + strings.Repeat("x", 200<<10) + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err = io.WriteString(conn, text); err == nil {
			_ = conn.(*net.TCPConn).CloseWrite()
			_, err = io.Copy(io.Discard, conn)
		}
		if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%s: %v", name, err) // a time-out: the gate waits for more
		}
		conn.Close()
	}
	g.wants(http.StatusOK, "/x", key)
	g.stop()
}
