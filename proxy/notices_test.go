package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// line waits for the one that begins like this, and returns it.
func (g *gate) line(t *testing.T, begins string) map[string]any {
	t.Helper()
	var found map[string]any
	waitFor(t, func() bool {
		for _, l := range g.told.All() {
			if strings.HasPrefix(l.Message, begins) {
				found = l.ContextMap()
				found["level"] = l.Level.String()
				return true
			}
		}
		return false
	})
	return found
}

func expectFields(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if text := fmt.Sprint(value); fmt.Sprint(line[name]) != text && !(name == "error" && strings.Contains(fmt.Sprint(line[name]), text)) {
			t.Errorf("%s is %v, want %v, in %v", name, line[name], value, line)
		}
	}
}

// At three in the morning there were metrics and no word: which target was taken out,
// why, and whether it was put back.
func TestTargetsInTheLog(t *testing.T) {
	t.Run("health checks", func(t *testing.T) {
		t.Parallel()
		targets, urls := newTargets(t, 2)
		g, _ := front(t, urls, "health: { path: '/healthz?token=hush', every: 100ms }")
		targets[1].ill.Store(true)
		expectFields(t, g.line(t, "an upstream's target is taken out"), map[string]any{
			"level": "warn", "upstream": "api", "target": urls[1], "failures": 3, "error": "answered 503",
		})
		targets[1].ill.Store(false)
		expectFields(t, g.line(t, "an upstream's target is put back"), map[string]any{"level": "info", "upstream": "api", "target": urls[1], "successes": 2})
		if n := g.told.Len(); n != 2 {
			t.Errorf("%d lines of two changes: %v", n, g.told.All())
		}
	})
	t.Run("requests", func(t *testing.T) {
		t.Parallel()
		_, urls := newTargets(t, 1)
		dead := "http://" + closed(t)
		g, secret := front(t, append(urls, dead))
		for range 20 {
			g.get("GET", "/x", secret)
		}
		expectFields(t, g.line(t, "an upstream's target is left alone"), map[string]any{
			"level": "warn", "upstream": "api", "target": dead, "failures": 5, "reason": "connect", "for": "10s", "error": "connection refused",
		})
		if n := g.told.Len(); n != 1 {
			t.Errorf("%d lines of one change: %v", n, g.told.All())
		}
	})
}

func TestBreakerInTheLog(t *testing.T) {
	targets, urls := newTargets(t, 1)
	g, secret := front(t, urls, "breaker: { requests: 10, failures: 50%, open: 200ms }")
	targets[0].status.Store(503)
	for range 11 {
		g.get("GET", "/x", secret)
	}
	expectFields(t, g.line(t, "an upstream's breaker opens"), map[string]any{
		"level": "warn", "upstream": "api", "failures": 10, "requests": 10, "for": "200ms", "error": "answered 503",
	})
	waitFor(t, func() bool {
		g.get("GET", "/x", secret)
		return targets[0].requests.Load() == 11
	})
	expectFields(t, g.line(t, "an upstream's breaker is half open"), map[string]any{"level": "info", "upstream": "api"})
	expectFields(t, g.line(t, "an upstream's breaker is open again"), map[string]any{"level": "warn", "upstream": "api", "error": "answered 503"})
	targets[0].status.Store(0)
	waitFor(t, func() bool { return g.get("GET", "/x", secret).StatusCode == 200 })
	expectFields(t, g.line(t, "an upstream's breaker closes"), map[string]any{"level": "info", "upstream": "api"})
}

// A line of a 502, 503 or 504 named neither upstream nor target: nobody could tell
// from the log which of them to look at.
func TestFailuresNameTheirUpstream(t *testing.T) {
	logged := func(t *testing.T, g *gate, status int) map[string]any {
		t.Helper()
		var line map[string]any
		waitFor(t, func() bool {
			for _, l := range g.logs.FilterMessage("request").All() {
				if line = l.ContextMap(); line["http.response.status_code"] == int64(status) {
					return true
				}
			}
			return false
		})
		return line
	}
	targets, urls := newTargets(t, 1)
	g, secret := front(t, urls, "breaker: { requests: 10 }")
	g.get("GET", "/x", secret)
	if line := logged(t, g, 200); line["upstream"] != nil || line["target"] != nil {
		t.Errorf("200: %v", line)
	}
	for _, status := range []int{502, 504} { // of the upstream's own
		targets[0].status.Store(int64(status))
		g.get("GET", "/x", secret)
		expectFields(t, logged(t, g, status), map[string]any{"upstream": "api", "target": urls[0]})
	}
	for range 9 {
		g.get("GET", "/x", secret)
	}
	if a := g.get("GET", "/x", secret); a.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if line := logged(t, g, 503); line["upstream"] != "api" || line["target"] != nil { // none was chosen
		t.Errorf("breaker: %v", line)
	}

	dead := "http://" + closed(t)
	g, secret = front(t, []string{dead})
	g.get("GET", "/x", secret)
	expectFields(t, logged(t, g, 502), map[string]any{"upstream": "api", "target": dead, "error": "connection refused"})

	g, secret = front(t, urls)
	if err := g.store.(interface{ Close() error }).Close(); err != nil {
		t.Fatal(err)
	}
	g.get("GET", "/x", secret)
	if line := logged(t, g, 503); line["upstream"] != nil { // it is the store that is away
		t.Errorf("without the store: %v", line)
	}
}

// An upstream that changes to a protocol that nobody asked for: the client got 502 and
// the log said 101, and the connection to the upstream stayed open for nobody until
// the garbage collector found it.
func TestUnaskedSwitch(t *testing.T) {
	for name, answer := range map[string]string{
		"to WebSocket": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"to nothing":   "HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newRawServer(t, func(c *rawConn) {
				if c.read() != nil {
					c.answer(answer)
					_ = c.read()
				}
			})
			g, secret := front(t, []string{"http://" + s.addr()})
			if a := g.get("GET", "/x", secret); a.StatusCode != http.StatusBadGateway {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
			waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == 1 })
			expectFields(t, g.logs.All()[0].ContextMap(), map[string]any{"http.response.status_code": 502})
			waitFor(t, func() bool { open, _ := s.connections(); return open == 0 })
			if n := g.metric(fmt.Sprintf("keygate_upstream_failures_total{reason=%q,target=%q,upstream=%q}", "broken", "http://"+s.addr(), "api")); n == 0 {
				t.Error("it does not count as a failure of the upstream")
			}
		})
	}
}
