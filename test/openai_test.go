package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const chatPolicy = `
version: 1
upstreams:
  api: { targets: ["UPSTREAM"] }
  gone: { targets: ["http://127.0.0.1:1"] }
permissions: { "chat:write": { group: Write }, "files:write": { group: Write }, "models:read": { group: Read } }
plans:
  second: { limits: [{ name: second, requests: 1, per: 1s }] }
  hour: { limits: [{ name: hour, requests: 1, per: 1h }] }
routes:
  - { match: "POST /v1/chat/completions", upstream: api, permission: "chat:write" }
  - { match: "POST /v1/files", upstream: api, permission: "files:write" }
  - { match: "GET /v1/models", upstream: api, permission: "models:read" }
  - { match: "POST /v1/images/generations", upstream: gone, permission: "chat:write" }
`

// chatAPI imitates the parts of OpenAI's API that the test calls. What it knows of a
// call goes by the call's "user".
type chatAPI struct {
	*upstream
	mu    sync.Mutex
	calls map[string]*chatCall
}

type chatCall struct {
	requests     int
	arrived      chan struct{}
	acknowledged chan struct{} // one for each chunk
	cancelled    chan struct{}
	broken       chan struct{}
}

func newChatAPI(t *testing.T) *chatAPI {
	api := &chatAPI{calls: map[string]*chatCall{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", api.complete)
	mux.HandleFunc("POST /v1/files", upload)
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		sendJSON(w, `{"object": "list", "data": [{"id": "imitation", "object": "model"}, {"id": "imitation-large", "object": "model"}]}`)
	})
	mux.HandleFunc("POST /side/{event}", api.side)
	api.upstream = newUpstream(t, mux.ServeHTTP)
	return api
}

func sendJSON(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, format, args...)
}

func (a *chatAPI) call(user string) *chatCall {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls[user] == nil {
		a.calls[user] = &chatCall{
			arrived: make(chan struct{}), acknowledged: make(chan struct{}),
			cancelled: make(chan struct{}), broken: make(chan struct{}),
		}
	}
	return a.calls[user]
}

// requests counts those of all users whose name begins so.
func (a *chatAPI) requests(prefix string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for user, call := range a.calls {
		if strings.HasPrefix(user, prefix) {
			n += call.requests
		}
	}
	return n
}

func (a *chatAPI) complete(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User     string
		Stream   bool
		Messages []struct{ Content string }
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Messages) != 1 {
		http.Error(w, "not as the client should send it", http.StatusTeapot)
		return
	}
	call := a.call(in.User)
	a.mu.Lock()
	call.requests++
	a.mu.Unlock()
	if !in.Stream {
		sendJSON(w, `{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "imitation", "choices": [
			{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": %q}}]}`, in.Messages[0].Content)
		return
	}
	if strings.HasPrefix(in.User, "silent-") {
		close(call.arrived)
		<-r.Context().Done()
		close(call.cancelled)
		return
	}
	call.stream(w, r)
}

// stream sends a chunk only when the client has the one before.
func (c *chatCall) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, word := range []string{"one", "two", "three", "four"} {
		_, _ = fmt.Fprintf(w, "data: "+`{"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "imitation", "choices": [
data: {"index": 0, "delta": {"content": %q}}]}`+"\n\n", word)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-c.acknowledged:
		case <-c.broken:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			close(c.cancelled)
			return
		}
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// side is where the client says what it has seen and asks what the API has seen.
func (a *chatAPI) side(w http.ResponseWriter, r *http.Request) {
	call := a.call(r.FormValue("user"))
	var happened <-chan struct{}
	switch r.PathValue("event") {
	case "acknowledge":
		select {
		case call.acknowledged <- struct{}{}:
		case <-time.After(patience):
			http.Error(w, "there is no such stream", http.StatusNotFound)
		}
		return
	case "break":
		close(call.broken)
		return
	case "arrived":
		happened = call.arrived
	case "cancelled":
		happened = call.cancelled
	}
	select {
	case <-happened:
	case <-time.After(patience):
		http.Error(w, "it did not happen", http.StatusGatewayTimeout)
	}
}

// upload takes a file as multipart/form-data.
func upload(w http.ResponseWriter, r *http.Request) {
	file, header, err := r.FormFile("file")
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	sendJSON(w, `{"id": "file-1", "object": "file", "filename": %q, "purpose": %q, "bytes": %d, "sha256": %q}`,
		header.Filename, r.FormValue("purpose"), n, hex.EncodeToString(sum.Sum(nil)))
}

// OpenAI's own client calls an API through the gate. What it sees is asserted in
// openai/calls.mjs.
func TestOpenAIClient(t *testing.T) {
	t.Parallel()
	rounds := map[string]int{"streams": 20, "aborts": 10, "retried": 3}
	if full() {
		rounds = map[string]int{"streams": 1000, "aborts": 200, "retried": 20}
	}
	api := newChatAPI(t)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(api.upstream, chatPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	weak, paused, revoked := g.newKey("weak", "--permissions", "models:read"), g.newKey("paused", "--permissions", "*"), g.newKey("revoked", "--permissions", "*")
	g.must(nil, "keys", "pause", paused.ID)
	calls, err := json.Marshal(map[string]any{
		"gateway": g.proxy, "side": api.URL, "management": g.management, "admin": g.key, "rounds": rounds,
		"keys": map[string]any{
			"caller": g.newKey("caller", "--permissions", "*").Secret, "weak": weak.Secret, "paused": paused.Secret, "unknown": newSecret(t),
			"second":  g.newKey("second", "--permissions", "*", "--plan", "second").Secret,
			"hour":    g.newKey("hour", "--permissions", "*", "--plan", "hour").Secret,
			"revoked": map[string]string{"id": revoked.ID, "secret": revoked.Secret},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := nodeCommand(t, "openai", "calls.mjs")
	c.Stdout, c.Stderr = &stdout, &stderr
	c.Env = append(c.Env, "KEYGATE_TEST_CALLS="+string(calls))
	if err := c.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	var seen struct {
		Request string
		Retried struct{ Tries, Refused int }
		Refused []struct {
			Status int
			ID     string
		}
	}
	if err := json.Unmarshal(stdout.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s%s", err, stdout.String(), stderr.String())
	}
	t.Logf("%v; %d tries of calls beyond the limit, %d of them refused", rounds, seen.Retried.Tries, seen.Retried.Refused)
	if n := api.requests("retried-"); n != rounds["retried"] {
		t.Errorf("the API saw %d of %d tries beyond the limit, want the %d that were admitted", n, seen.Retried.Tries, rounds["retried"])
	}
	if n := api.requests("refused"); n != 0 {
		t.Errorf("the API saw %d requests that were refused", n)
	}
	const limited = `keygate_requests_total{code="4xx",decision="limited",plan="second",route="POST /v1/chat/completions"}`
	if n := g.metric(limited); n != float64(seen.Retried.Refused) {
		t.Errorf("keygate has refused %v tries, the client has seen %d", n, seen.Retried.Refused)
	}
	g.stop() // the log is whole then
	status := map[any]any{}
	for _, line := range g.logged("request") {
		status[line["request_id"]] = line["http.response.status_code"]
	}
	if status[seen.Request] != float64(http.StatusOK) {
		t.Errorf("the request id that the client shows is not in the log: %q", seen.Request)
	}
	for _, r := range seen.Refused {
		if status[r.ID] != float64(r.Status) {
			t.Errorf("the client shows %d with the request id %q, of which the log says %v", r.Status, r.ID, status[r.ID])
		}
	}
	if len(seen.Refused) < 8 {
		t.Errorf("the client saw refusals of %d kinds", len(seen.Refused))
	}
}
