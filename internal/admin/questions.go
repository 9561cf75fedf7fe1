package admin

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"keygate/auth"
	"keygate/internal/keys"
)

// Question is a request that is asked about: nothing is sent, nothing is spent.
type Question struct {
	Method  string            `json:"method" maxLength:"32" doc:"Such as GET."`
	Path    string            `json:"path" maxLength:"8192" doc:"As a client sends it, with its query if it has one."`
	Host    string            `json:"host,omitempty" maxLength:"255" doc:"For routes that depend on it."`
	Headers map[string]string `json:"headers,omitempty" nullable:"false" doc:"For routes that read organization or space from a header."`
	Address string            `json:"address,omitempty" doc:"The client's address. Left out: the key's allowed addresses are not judged."`
}

// ExplainQuestion asks about a request with a key, or without one.
type ExplainQuestion struct {
	Question
	KeyID string `json:"key_id,omitempty" doc:"Id of the key; or key."`
	Key   string `json:"key,omitempty" doc:"The API key itself; or key_id. Neither: a request without a key."`
}

// TestQuestion asks whether a key works, and whether it may do something.
type TestQuestion struct {
	Method     string            `json:"method,omitempty" maxLength:"32" doc:"With path: would this request pass?"`
	Path       string            `json:"path,omitempty" maxLength:"8192"`
	Host       string            `json:"host,omitempty" maxLength:"255"`
	Headers    map[string]string `json:"headers,omitempty" nullable:"false"`
	Address    string            `json:"address,omitempty" doc:"The client's address. Left out: the key's allowed addresses are not judged."`
	Permission string            `json:"permission,omitempty" doc:"Does the key hold this entry of the catalogue?"`
	Space      string            `json:"space,omitempty" doc:"Id or slug: for permission, at this space."`
}

// Explanation says what would become of a request, and why.
type Explanation struct {
	_          struct{}         `json:"-" additionalProperties:"true"`
	Allowed    bool             `json:"allowed"`
	Status     int              `json:"status,omitempty" doc:"What the gate would answer; left out where it would forward the request."`
	Error      string           `json:"error,omitempty"`
	Detail     string           `json:"detail,omitempty"`
	Key        string           `json:"key,omitempty" doc:"Id of the key."`
	Rule       *ExplainedRule   `json:"rule,omitempty" doc:"The rule that covers the request; left out if there is none."`
	Checks     []Check          `json:"checks" nullable:"false" doc:"In the order in which they are made; those after the first that fails too, as far as they can be."`
	Required   []string         `json:"required,omitempty" nullable:"false"`
	Granted    []string         `json:"granted,omitempty" nullable:"false" doc:"What the key may do there."`
	Missing    []string         `json:"missing,omitempty" nullable:"false"`
	Plan       string           `json:"plan,omitempty"`
	Limits     []ExplainedLimit `json:"limits,omitempty" nullable:"false"`
	RetryAfter int64            `json:"retry_after,omitempty" doc:"Seconds."`
}

// ExplainedRule is a rule of the policy.
type ExplainedRule struct {
	_            struct{} `json:"-" additionalProperties:"true"`
	Match        string   `json:"match"`
	Upstream     string   `json:"upstream,omitempty"`
	Permissions  []string `json:"permissions,omitempty" nullable:"false"`
	Any          bool     `json:"any,omitempty" doc:"Any valid key will do."`
	Public       string   `json:"public,omitempty" doc:"No key is needed; so many requests for each client address."`
	Organization string   `json:"organization,omitempty" doc:"What of the request names the organization."`
	Space        string   `json:"space,omitempty" doc:"What of the request names the space."`
}

// Check is one step of the decision.
type Check struct {
	_      struct{} `json:"-" additionalProperties:"true"`
	Name   string   `json:"name" doc:"https (where it is required), path, route, method, key, address, organization, space, scope, limit or upstream (where the request would go to one)."`
	Result string   `json:"result" enum:"pass,fail,skip"`
	Detail string   `json:"detail,omitempty"`
}

// ExplainedLimit is a limit as it stands.
type ExplainedLimit struct {
	_         struct{} `json:"-" additionalProperties:"true"`
	Name      string   `json:"name"`
	Requests  int64    `json:"requests"`
	Per       string   `json:"per" doc:"A duration such as 1m, or day or month."`
	Timezone  string   `json:"timezone,omitempty" doc:"Of a day or month."`
	Shared    bool     `json:"shared,omitempty" doc:"One budget for all keys of the organization."`
	Remaining int64    `json:"remaining"`
	Reset     int64    `json:"reset_seconds,omitempty" doc:"Until remaining grows; left out where nothing was spent."`
}

// KeyTest says whether a key works.
type KeyTest struct {
	_          struct{}     `json:"-" additionalProperties:"true"`
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Status     string       `json:"status" enum:"active,paused,expired,revoked"`
	Works      bool         `json:"works" doc:"The key is in force."`
	Detail     string       `json:"detail,omitempty" doc:"Why it does not work."`
	Scopes     []string     `json:"scopes" nullable:"false" doc:"What the key may do where no space is bound, or at the space that it is restricted to."`
	Permission *Held        `json:"permission,omitempty" doc:"Where a permission was asked about."`
	Request    *Explanation `json:"request,omitempty" doc:"Where a request was asked about."`
}

// Held says whether a key holds a permission.
type Held struct {
	_      struct{} `json:"-" additionalProperties:"true"`
	Name   string   `json:"name"`
	Held   bool     `json:"held"`
	Detail string   `json:"detail,omitempty"`
}

type testKey struct {
	ID   string `path:"id" example:"key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35" doc:"The key's id."`
	Body *TestQuestion
}

func (h *handler) registerQuestions() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/explain", id: "explain", tag: "Questions", status: http.StatusOK,
		summary: "Explain what would become of a request",
		detail:  "Says which rule covers it, what each check comes to and how the limits stand. Needs keygate:keys-read or keygate:keys-write; a key that the caller does not see is answered like one that does not exist.",
		errors:  []int{http.StatusNotFound}, bodyExample: exampleQuestion, example: exampleExplanation,
	}, h.explain)
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys/{id}/test", id: "test-key", tag: "Questions", status: http.StatusOK,
		summary: "Test a key", detail: "Says whether it works and, if asked, whether it holds a permission or may make a request. A key that holds any of this API's permissions may test itself; others need keygate:keys-read or keygate:keys-write.",
		errors: []int{http.StatusNotFound}, bodyExample: exampleTest, optionalBody: true, example: exampleKeyTest,
	}, h.testKey)
}

func (h *handler) explain(ctx context.Context, by *call, in *body[ExplainQuestion]) (*body[Explanation], error) {
	q := in.Body
	if q.Key != "" && q.KeyID != "" {
		return nil, badField("key_id", "", "stands beside key: give one of them")
	}
	var k keys.Key
	var hash keys.Hash
	var err error
	switch {
	case q.KeyID != "":
		k, hash, err = h.Service.Find(ctx, by.actor, q.KeyID)
		err = naming(err, "key", "id", q.KeyID)
	case q.Key != "":
		k, hash, err = h.explainedSecret(ctx, by, q.Key)
	default:
		err = h.Service.MayAsk(by.actor)
	}
	if err != nil {
		return nil, err
	}
	e, err := h.ask(ctx, q.Question, hash)
	if err != nil {
		return nil, err
	}
	e.Key = k.ID
	return &body[Explanation]{e}, nil
}

// explainedSecret finds the key that a string is. One that the gate would not look
// for, or that the caller does not see, is nobody's: the gate says so. Who may not
// ask learns nothing about any but its own.
func (h *handler) explainedSecret(ctx context.Context, by *call, secret string) (keys.Key, keys.Hash, error) {
	k, hash, err := h.Service.FindSecret(ctx, by.actor, secret)
	if err != nil || k.ID != by.actor.Key {
		if refused := h.Service.MayAsk(by.actor); refused != nil {
			return keys.Key{}, hash, refused
		}
	}
	looked, lookErr := h.Auth.LooksFor(ctx, secret)
	switch {
	case lookErr != nil:
		return keys.Key{}, hash, lookErr
	case errors.Is(err, keys.ErrNotFound), err == nil && !looked:
		return keys.Key{}, keys.HashSecret(""), nil
	}
	return k, hash, err
}

func (h *handler) ask(ctx context.Context, q Question, key keys.Hash) (Explanation, error) {
	question := auth.Question{Method: q.Method, Host: q.Host, Target: q.Path, Key: key, Header: make(http.Header, len(q.Headers))}
	for name, value := range q.Headers {
		if !validHeader(name, value) {
			return Explanation{}, badField("headers", name, "holds a name or a value that no request can have")
		}
		question.Header.Add(name, value)
	}
	if q.Address != "" {
		address, err := netip.ParseAddr(q.Address)
		if err != nil {
			return Explanation{}, badField("address", q.Address, `must be an address such as "192.0.2.7"`)
		}
		question.Client = address.Unmap().WithZone("")
	}
	return explanationOf(h.Explain(ctx, question)), nil
}

// validHeader bounds what is asked about to what HTTP can carry.
func validHeader(name, value string) bool {
	const most = 8192
	token := func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	return name != "" && len(name)+len(value) <= most && !strings.ContainsFunc(name, token) && !strings.ContainsFunc(value, control)
}

func explanationOf(e auth.Explanation) Explanation {
	out := Explanation{
		Allowed: e.Status == 0, Status: e.Status, Error: e.Error, Detail: e.Detail, Checks: []Check{},
		Required: e.Required, Granted: e.Granted, Missing: e.Missing, Plan: e.Plan, RetryAfter: seconds(e.RetryAfter),
	}
	if r := e.Rule; r != nil {
		out.Rule = &ExplainedRule{
			Match: r.Match, Upstream: r.Upstream, Permissions: r.Permissions, Any: r.Any, Public: r.Public,
			Organization: r.Organization, Space: r.Space,
		}
	}
	for _, c := range e.Checks {
		out.Checks = append(out.Checks, Check{Name: c.Name, Result: c.Result, Detail: c.Detail})
	}
	for _, l := range e.Limits {
		out.Limits = append(out.Limits, ExplainedLimit{
			Name: l.Name, Requests: l.Quota, Per: l.Per, Timezone: l.Timezone, Shared: l.Shared, Remaining: l.Remaining, Reset: seconds(l.Reset),
		})
	}
	return out
}

func (h *handler) testKey(ctx context.Context, by *call, in *testKey) (*body[KeyTest], error) {
	k, hash, err := h.Service.Find(ctx, by.actor, in.ID)
	if err != nil {
		return nil, naming(err, "key", "id", in.ID)
	}
	out := KeyTest{ID: k.ID, Name: k.Name, Status: string(k.Status(h.Now())), Scopes: []string{}}
	principal, refusal := h.Auth.ByHash(ctx, hash, h.Policy())
	switch {
	case refusal != nil && refusal.Err != nil:
		return nil, refusal.Err
	case refusal != nil:
		out.Detail = refusal.Detail
		principal = nil // what is not in force holds nothing
	default:
		out.Works = true
		authority := principal.Authority()
		out.Scopes = append(out.Scopes, authority.Names(k.Space)...)
	}
	if q := in.Body; q != nil {
		if err := h.testMore(ctx, by, q, &k, hash, principal, &out); err != nil {
			return nil, err
		}
	}
	return &body[KeyTest]{out}, nil
}

func (h *handler) testMore(ctx context.Context, by *call, q *TestQuestion, k *keys.Key, hash keys.Hash, principal *auth.Principal, out *KeyTest) error {
	if (q.Method == "") != (q.Path == "") {
		return badField("path", q.Path, "method and path come together")
	}
	if q.Space != "" && q.Permission == "" {
		return badField("space", q.Space, "belongs to permission, which is missing")
	}
	if q.Permission != "" {
		held, err := h.holds(ctx, by, q, k, principal)
		if err != nil {
			return err
		}
		out.Permission = &held
	}
	if q.Method != "" {
		e, err := h.ask(ctx, Question{Method: q.Method, Path: q.Path, Host: q.Host, Headers: q.Headers, Address: q.Address}, hash)
		if err != nil {
			return err
		}
		e.Key = k.ID
		out.Request = &e
	}
	return nil
}

// holds answers whether a key holds one entry of the catalogue.
func (h *handler) holds(ctx context.Context, by *call, q *TestQuestion, k *keys.Key, principal *auth.Principal) (Held, error) {
	out := Held{Name: q.Permission}
	if _, ok := h.Policy().Catalogue.Index(q.Permission); !ok {
		return out, badField("permission", q.Permission, "is not an entry of the catalogue")
	}
	place := k.Space
	if q.Space != "" {
		sp, err := h.Service.Space(ctx, by.actor, k.Organization, q.Space)
		if err != nil {
			return out, naming(err, "space of the key's organization", "id or slug", q.Space)
		}
		place = sp.ID
	}
	if principal == nil {
		out.Detail = "The key does not work."
		return out, nil
	}
	authority := principal.Authority()
	if out.Held = authority.HasScope(q.Permission, place); !out.Held {
		out.Detail = "The key was not given it, or its owner does not hold it there."
		if k.Space != "" && place != k.Space {
			out.Detail = "The key is restricted to another space."
		}
	}
	return out, nil
}

func itoa(i int) string { return strconv.Itoa(i) }

// seconds rounds up: who waits so long has waited long enough.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
