package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/problem"
)

// answer is a whole answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// newClient shows answers as they come: encoded, and redirects not followed.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// try sends a request and reads the answer to its end. Without a key it sends none.
func try(c *http.Client, method, url, key string, body io.Reader, change ...func(*http.Request)) (answer, error) {
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		return answer{}, err
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for _, f := range change {
		f(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// do sends a request that must be answered.
func (g *gateway) do(method, url, key, body string, change ...func(*http.Request)) answer {
	g.t.Helper()
	c := newClient(g.t)
	defer c.CloseIdleConnections()
	a, err := try(c, method, url, key, strings.NewReader(body), change...)
	if err != nil {
		g.t.Fatal(err)
	}
	return a
}

// get asks the proxy.
func (g *gateway) get(path, key string, change ...func(*http.Request)) answer {
	g.t.Helper()
	return g.do(http.MethodGet, g.proxy+path, key, "", change...)
}

// wants asks the proxy and compares the status.
func (g *gateway) wants(status int, path, key string, change ...func(*http.Request)) answer {
	g.t.Helper()
	a := g.get(path, key, change...)
	if a.status != status {
		g.t.Errorf("GET %s: status %d, want %d: %s", path, a.status, status, a.body)
	}
	return a
}

// refused asks the proxy, which must answer with this problem.
func (g *gateway) refused(status int, text, path, key string, change ...func(*http.Request)) (answer, problem.Problem) {
	g.t.Helper()
	a := g.wants(status, path, key, change...)
	return a, checkProblem(g.t, a, status, text)
}

func checkProblem(t *testing.T, a answer, status int, text string) problem.Problem {
	t.Helper()
	var p problem.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("the answer %d is no problem: %v: %s", a.status, err, a.body)
	}
	if a.header.Get("Content-Type") != problem.ContentType || p.Status != status || p.Error != text || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("want problem %d %q, got %s %s", status, text, a.header.Get("Content-Type"), a.body)
	}
	if id := a.header.Get("X-Request-Id"); p.RequestID == "" || p.RequestID != id || p.Instance != "urn:uuid:"+id {
		t.Errorf("request id %q in the header, %q and %q in the body", id, p.RequestID, p.Instance)
	}
	return p
}

// metric reads one series, written as in the exposition: name{label="value"}.
func (g *gateway) metric(series string) float64 {
	g.t.Helper()
	a := g.do(http.MethodGet, g.management+"/metrics", "", "")
	for line := range strings.Lines(a.body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return v
		}
	}
	g.t.Fatalf("there is no metric %s", series)
	return 0
}

// readyz asks whether the gateway is ready.
func (g *gateway) readyz() (status int, body struct {
	Ready, Draining bool
	Store           string
	Policy          struct {
		Rules    int64
		LoadedAt time.Time `json:"loaded_at"`
		Error    string
	}
	UnknownPlans []string `json:"unknown_plans"`
},
) {
	g.t.Helper()
	a := g.do(http.MethodGet, g.management+"/readyz", "", "")
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		g.t.Fatalf("/readyz: %v: %s", err, a.body)
	}
	return a.status, body
}

// create makes a key through the management API and waits out its limit. It
// may be called from any goroutine.
func create(c *http.Client, management, key string, in admin.NewKey) (admin.CreatedKey, error) {
	var k admin.CreatedKey
	body, err := json.Marshal(in)
	if err != nil {
		return k, err
	}
	for {
		a, err := try(c, http.MethodPost, management+"/v1/keys", key, strings.NewReader(string(body)))
		if err != nil {
			return k, err
		}
		switch a.status {
		case http.StatusCreated:
			return k, json.Unmarshal([]byte(a.body), &k)
		case http.StatusTooManyRequests:
			wait, err := strconv.Atoi(a.header.Get("Retry-After"))
			if err != nil {
				return k, err
			}
			time.Sleep(time.Duration(wait) * time.Second)
		default:
			return k, fmt.Errorf("POST /v1/keys: %d %s", a.status, a.body)
		}
	}
}

// upstream is an API that counts its requests, and answers as it is told to.
type upstream struct {
	*httptest.Server
	count atomic.Int64
	mu    sync.Mutex
	last  *http.Request
}

func newUpstream(t *testing.T, handler http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.count.Add(1)
		u.mu.Lock()
		u.last = r
		u.mu.Unlock()
		if handler == nil {
			_, _ = io.WriteString(w, "hello\n")
			return
		}
		handler(w, r)
	}))
	t.Cleanup(func() {
		u.CloseClientConnections() // a gateway that failed a test may still hold some
		u.Close()
	})
	return u
}

func (u *upstream) seen() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last
}
