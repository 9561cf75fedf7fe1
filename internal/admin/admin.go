// Package admin is the management API: keys, organizations, spaces and accounts
// over HTTP, and the Go client that the command line uses. It decodes, calls the
// keys.Service and encodes; what an input may be is decided in package keys.
package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/internal/problem"
)

// SpecPath is where the API describes itself in OpenAPI 3.1, for anybody.
const SpecPath = "/v1/openapi.json"

// Options of the management API; all are required.
type Options struct {
	Auth    *auth.Authenticator
	Service *keys.Service
	// Policy returns the one in force.
	Policy func() *keys.Policy
	Format keys.Format
	// Realm is named in the challenge of a 401.
	Realm string
	// Allow spends one request of a key's budget for this API, or one look through a
	// list of an organization's. Where there is none left, retryAfter says how long to
	// wait.
	Allow func(holder string) (ok bool, retryAfter time.Duration)
	// Replicas lists the running ones.
	Replicas func(ctx context.Context) ([]keys.Replica, error)
	// Confirmed waits until all replicas have acted on a change of the feed, or
	// ctx ends, and says which have.
	Confirmed func(ctx context.Context, seq int64) ([]keys.Confirmation, error)
	// Explain says what the gate would do with a request.
	Explain func(ctx context.Context, q auth.Question) auth.Explanation
	// Version is keygate's, shown in the description of the API.
	Version string
	Log     *zap.Logger
	Now     func() time.Time
}

// New returns the handler of everything under /v1/.
func New(o Options) http.Handler {
	h := &handler{Options: o, mux: http.NewServeMux()}
	h.api = h.newAPI()
	h.registerKeys()
	h.registerLifecycle()
	h.registerMigration()
	h.registerQuestions()
	h.registerOrganizations()
	h.registerSpaces()
	h.registerAccounts()
	h.registerGrants()
	h.registerAudit()
	h.registerPolicy()
	h.registerReplicas()
	h.spec = encodeSpec(h.api.OpenAPI())
	return h
}

// panicDetail is what a client reads of a mistake of ours.
const panicDetail = "keygate failed to handle the request. The log has the cause under this request's id."

// managementLimit names the one limit of this API.
const managementLimit = "management"

type handler struct {
	Options
	mux  *http.ServeMux
	api  huma.API
	spec []byte
}

// call is one request's record: it travels in the context and becomes the log
// line.
type call struct {
	id        string
	realm     string
	route     string
	client    netip.Addr
	actor     keys.Actor
	principal *auth.Principal
	request   *http.Request
	body      []byte // of the request, once it was read
	writer    http.ResponseWriter
	wait      bool // for the replicas
	// remembered names the request, if the client gave it a name.
	remembered *keys.Remembered
	seq        int64       // of the change that was made, in the feed
	header     http.Header // of the answer
	err        error       // what the operator should know and the client should not
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// answer remembers what was answered. A failed write means that the client is
// gone: huma would panic over it.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		if a.status = status; status == http.StatusNoContent {
			a.Header().Del("Content-Type") // huma sets that of the body that is not there
		}
		a.ResponseWriter.WriteHeader(status)
	}
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	_, _ = a.ResponseWriter.Write(b)
	return len(b), nil
}

// Unwrap lets http.ResponseController find the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.Now()
	c := &call{id: requestID(), client: clientAddress(r), request: r, realm: h.Realm}
	a := &answer{ResponseWriter: w}
	c.header, c.writer = a.Header(), a
	a.Header().Set(requestIDHeader, c.id)
	a.Header().Set("Cache-Control", "no-store") // answers hold secrets and the present state
	a.Header().Set("X-Content-Type-Options", "nosniff")
	defer func() {
		recovered := recover()
		if recovered != nil {
			c.err = fmt.Errorf("panic: %v", recovered)
			h.Log.Error("management request panicked", zap.String("request_id", c.id), zap.Any("panic", recovered), zap.Stack("stack"))
			if a.status == 0 {
				c.write(a, http.StatusInternalServerError, panicDetail)
				recovered = nil
			}
		}
		h.log(c, r, a.status, h.Now().Sub(start))
		if recovered != nil {
			panic(http.ErrAbortHandler) // half an answer is out: cut it off
		}
	}()
	h.serve(a, r.WithContext(context.WithValue(r.Context(), callKey{}, c)), c)
}

// serve decides in this order: 404, 405, 401, 403, 429.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, c *call) {
	if r.URL.Path == SpecPath {
		h.serveSpec(w, r, c)
		return
	}
	_, c.route = h.mux.Handler(r)
	// ServeMux would redirect what is not clean; an API has one name for a thing.
	if r.URL.Path != path.Clean(r.URL.Path) {
		c.route = ""
	}
	if c.route == "" {
		if allow := h.allowed(r); allow != "" {
			w.Header().Set("Allow", allow)
			c.write(w, http.StatusMethodNotAllowed, "This resource allows "+allow+".")
			return
		}
		c.write(w, http.StatusNotFound, "The management API has no such path; "+SpecPath+" lists those there are.")
		return
	}
	if refusal := h.authenticate(r, c); refusal != nil {
		c.refuse(w, refusal, h.Realm, r)
		return
	}
	if ok, wait := h.Allow(c.actor.Key); !ok {
		seconds := max(1, seconds(wait))
		problem.Write(w, c.tooMany(seconds, fmt.Sprintf("This API key sends more requests than the management API allows. Try again in %d s.", seconds)))
		return
	}
	if p := c.checkQuery(r); p != nil {
		problem.Write(w, p)
		return
	}
	// All answers are JSON. huma would negotiate one as "application/problem+json"
	// with a client that accepts this too.
	r.Header.Set("Accept", "application/json")
	h.mux.ServeHTTP(w, r)
}

func (h *handler) authenticate(r *http.Request, c *call) *auth.Refusal {
	token, refusal := auth.Bearer(r.Header, auth.Exposed(h.Format, r.URL))
	if refusal != nil {
		return refusal
	}
	principal, refusal := h.Auth.Authenticate(r.Context(), token, c.client, h.Policy())
	if refusal != nil {
		return refusal
	}
	c.principal = principal
	c.actor = keys.Actor{Key: principal.Key.ID, Account: principal.Key.Account, RequestID: c.id, Authority: principal.Authority()}
	if c.client.IsValid() {
		c.actor.Address = c.client.String()
	}
	return principal.Manages(c.client, neededFor(c.route))
}

// allowed lists the methods of a path, or returns "" if there is no such path.
func (h *handler) allowed(r *http.Request) string {
	if r.URL.Path != path.Clean(r.URL.Path) {
		return ""
	}
	probe := *r
	var methods []string
	for _, m := range []string{http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPost, http.MethodPut} {
		probe.Method = m
		if _, pattern := h.mux.Handler(&probe); pattern != "" {
			methods = append(methods, m)
		}
	}
	return strings.Join(methods, ", ")
}

func (h *handler) serveSpec(w http.ResponseWriter, r *http.Request, c *call) {
	c.route = "GET " + SpecPath
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		c.write(w, http.StatusMethodNotAllowed, "This resource allows GET, HEAD.")
		return
	}
	w.Header().Set("Content-Type", "application/openapi+json")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(h.spec)
}

func (h *handler) log(c *call, r *http.Request, status int, took time.Duration) {
	path := r.URL.Path
	if !loggable(path) {
		path = "(hidden: it may hold an API key)"
	}
	log, fields := h.Log.Info, []zap.Field{
		zap.String("request_id", c.id),
		zap.String("http.request.method", r.Method),
		zap.String("http.route", c.route),
		zap.String("url.path", path),
		zap.Int("http.response.status_code", status),
		zap.Stringer("client.address", c.client),
		zap.Float64("duration_ms", float64(took.Microseconds())/1000),
	}
	if c.actor.Key != "" {
		fields = append(fields, zap.String("key_id", c.actor.Key))
	}
	if c.err != nil {
		fields = append(fields, zap.Error(c.err))
		if !errors.Is(c.err, context.Canceled) { // the client went away: nobody's failure
			log = h.Log.Error
		}
	}
	log("management request", fields...)
}

// requestID is always ours: a client could otherwise choose what the audit log
// says.
func requestID() string { return uuid.Must(uuid.NewV7()).String() }

func clientAddress(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a Unix socket
	}
	return at.Addr().Unmap().WithZone("")
}
