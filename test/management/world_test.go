// Package management tests the management API as its clients meet it: over HTTP,
// on every store, with two replicas where a store can be shared.
package management

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/admin"
	"keygate/internal/keys"
	"keygate/internal/store/redis"
	"keygate/internal/store/redis/redistest"
	"keygate/internal/store/sqlite"
)

// full says whether the heavier suites run too.
func full() bool { return os.Getenv("KEYGATE_TEST_FULL") != "" }

// failer is what a test and a check of rapid have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// clock is the time of all replicas; it moves when a test moves it, or always.
type clock struct {
	real bool
	mu   sync.Mutex
	at   time.Time
}

func (c *clock) now() time.Time {
	if c.real {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is one instance of keygate: replicas on one store.
type world struct {
	clock    *clock
	format   keys.Format
	policy   *keys.Policy
	replicas []*replica
	operator string // secret of the administrator's key
	ended    context.CancelFunc
}

type replica struct {
	store  keys.Store
	auth   *auth.Authenticator
	acted  atomic.Int64
	server *httptest.Server
	client *http.Client
}

// engine is a kind of store. open returns one store for each replica, over data
// that nobody else has.
type engine struct {
	name string
	open func(t testing.TB) func(c *clock) []keys.Store
}

// engines are those that every test runs on; the topologies of Redis besides take
// long to start.
func engines() []engine {
	all := []engine{{"sqlite", openSQLite}, {"redis", openRedis}}
	if full() {
		all = append(all, engine{"cluster", openCluster}, engine{"sentinel", openSentinel})
	}
	return all
}

func openSQLite(t testing.TB) func(*clock) []keys.Store {
	dir := t.TempDir()
	n := 0
	return func(c *clock) []keys.Store {
		n++
		s, err := sqlite.Open(context.Background(), sqlite.Options{Dir: fmt.Sprint(dir, "/", n), Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		return []keys.Store{s}
	}
}

func openRedis(t testing.TB) func(*clock) []keys.Store {
	server := redistest.Start(t, redistest.Options{})
	return onRedis(t, server.URL(), server.Flush)
}

func openCluster(t testing.TB) func(*clock) []keys.Store {
	c := redistest.StartCluster(t)
	return onRedis(t, c.URL(), c.Flush)
}

func openSentinel(t testing.TB) func(*clock) []keys.Store {
	s := redistest.StartSentinel(t, 3, redistest.Options{})
	return onRedis(t, s.URL(), s.Master.Flush)
}

// onRedis opens two stores on one Redis, which is emptied before.
func onRedis(t testing.TB, url string, flush func()) func(*clock) []keys.Store {
	return func(c *clock) []keys.Store {
		flush()
		var stores []keys.Store
		for range 2 {
			client, err := redis.NewClient(url)
			if err != nil {
				t.Fatal(err)
			}
			s, err := redis.Open(context.Background(), redis.Options{Client: client, Now: c.now})
			if err != nil {
				t.Fatal(err)
			}
			stores = append(stores, s)
		}
		return stores
	}
}

// newWorld starts an instance; end ends it.
func newWorld(t failer, c *clock, stores []keys.Store) *world {
	t.Helper()
	w := &world{clock: c, policy: testPolicy(t)}
	var err error
	if w.format, err = keys.NewFormat(keys.DefaultPrefix); err != nil {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.ended = cancel
	for _, s := range stores {
		w.replicas = append(w.replicas, w.newReplica(ctx, s, len(stores) > 1))
	}
	w.operator = w.format.Generate()
	service := w.service(w.replicas[0])
	if _, err := service.Bootstrap(ctx, keys.BootstrapOptions{Secret: w.operator}); err != nil {
		t.Fatalf("%v", err)
	}
	w.settle(t)
	return w
}

func (w *world) end() {
	w.ended()
	for _, r := range w.replicas {
		r.client.CloseIdleConnections()
		r.server.Close()
		r.store.Close()
	}
}

func (w *world) service(r *replica) *keys.Service {
	return keys.NewService(keys.ServiceOptions{
		Store: r.store, Format: w.format, Policy: func() *keys.Policy { return w.policy }, Changed: r.auth.Changed, Now: w.clock.now,
	})
}

func (w *world) newReplica(ctx context.Context, s keys.Store, shared bool) *replica {
	r := &replica{store: s, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	o := auth.Options{Store: s, Format: w.format, CacheKeys: 1000, Now: w.clock.now, Acted: r.acted.Store, LookupTimeout: 20 * time.Second}
	if shared {
		o.FreshFor = time.Second
	}
	r.auth = auth.New(o)
	if shared {
		started := make(chan struct{})
		go r.auth.Follow(ctx, s, started)
		<-started
	}
	r.server = httptest.NewServer(admin.New(admin.Options{
		Auth: r.auth, Service: w.service(r), Policy: func() *keys.Policy { return w.policy }, Format: w.format, Realm: "keygate",
		Allow: func(string) (bool, time.Duration) { return true, 0 },
		Replicas: func(context.Context) ([]keys.Replica, error) {
			return []keys.Replica{{ID: "rep_1", Name: "host-of-the-operator"}}, nil
		},
		Confirmed: func(context.Context, int64) ([]keys.Confirmation, error) {
			return []keys.Confirmation{{ID: "rep_1", Name: "host-of-the-operator", Confirmed: true}}, nil
		},
		Explain: func(ctx context.Context, q auth.Question) auth.Explanation { return w.explain(ctx, r, q) },
		Version: "test", Log: zap.NewNop(), Now: w.clock.now,
	}))
	return r
}

// explain tells whose key was asked about, so that a test sees an answer about a
// key that the caller must not know of.
func (w *world) explain(ctx context.Context, r *replica, q auth.Question) auth.Explanation {
	p, refusal := r.auth.ByHash(ctx, q.Key, w.policy)
	if refusal != nil {
		return auth.Explanation{Status: http.StatusUnauthorized, Detail: refusal.Detail}
	}
	return auth.Explanation{Detail: "works as " + p.Key.Name + " of " + p.Key.Account, Plan: p.Plan.Name}
}

// settle waits until every replica has acted on all that was changed so far.
func (w *world) settle(t failer) {
	t.Helper()
	if len(w.replicas) == 1 {
		return
	}
	end, err := w.replicas[0].store.Changes(context.Background(), keys.FeedEnd, 0)
	if err != nil {
		t.Fatalf("the feed's end: %v", err)
	}
	want := keys.FeedNumber(end.Next)
	deadline := time.Now().Add(20 * time.Second)
	for _, r := range w.replicas {
		for r.acted.Load() < want {
			if time.Now().After(deadline) {
				t.Fatalf("a replica has acted on change %d only, %d was made long ago", r.acted.Load(), want)
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// request is one call of the API.
type request struct {
	replica        int
	key            string // a secret
	method, target string
	body           any // a string is sent as it is
	header         map[string]string
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    []byte
}

func (w *world) send(t failer, q request) answer {
	t.Helper()
	var body io.Reader = http.NoBody
	switch b := q.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			t.Fatalf("%v", err)
		}
		body = bytes.NewReader(encoded)
	}
	r := w.replicas[q.replica%len(w.replicas)]
	req, err := http.NewRequestWithContext(context.Background(), q.method, r.server.URL+q.target, body)
	if err != nil {
		t.Fatalf("%v", err)
	}
	req.Header.Set("Authorization", "Bearer "+q.key)
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.target, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.target, err)
	}
	return answer{resp.StatusCode, resp.Header, raw}
}

// object is a JSON object.
type object = map[string]any

func (a answer) object(t failer) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(a.raw, &o); err != nil {
		t.Fatalf("%v in %s", err, a.raw)
	}
	return o
}

// must sends a request and wants a status of success.
func (w *world) must(t failer, key, method, target string, body any) object {
	t.Helper()
	a := w.send(t, request{key: key, method: method, target: target, body: body})
	if a.status >= 300 {
		t.Fatalf("%s %s %v: %d %s", method, target, body, a.status, a.raw)
	}
	if len(a.raw) == 0 {
		return nil
	}
	return a.object(t)
}

// all reads a list to its end, pages of a size that divides nothing.
func (w *world) all(t failer, key, target string) []object {
	t.Helper()
	return w.pages(t, key, target, 7)
}

func (w *world) pages(t failer, key, target string, size int) []object {
	t.Helper()
	join := "?"
	if strings.Contains(target, "?") {
		join = "&"
	}
	items, cursor := []object{}, ""
	for range 1000 {
		page := w.must(t, key, "GET", fmt.Sprint(target, join, "limit=", size, "&cursor=", cursor), nil)
		for _, item := range page["items"].([]any) {
			items = append(items, item.(object))
		}
		next, _ := page["next"].(string)
		if next == "" {
			return items
		}
		cursor = next
	}
	t.Fatalf("%s does not end", target)
	return nil
}
