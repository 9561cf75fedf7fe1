package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"keygate/auth"
	"keygate/internal/problem"
	"keygate/proxy/route"
	"keygate/ratelimit"
)

// Browsers ask before they send a request of a page with a key to another origin
// (Fetch standard, "CORS-preflight request"), and never send the key with that
// question. What follows is judged as any other request is.

// What one client address may ask of upstreams by preflights.
const (
	preflightRequests = 600
	preflightPer      = time.Minute
)

// exposedHeaders are those of keygate that pages may read besides the common ones.
const exposedHeaders = "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"

// cors is a route's, in the form of headers.
type cors struct {
	*route.CORS
	any              bool
	methods          []string // nil: those of the path
	headers, maxAge  []string
	credentials      []string // nil: none
	exposed, anybody []string
}

func newCORS(of *route.CORS) *cors {
	if of == nil {
		return nil
	}
	c := &cors{
		CORS: of, any: slices.Contains(of.Origins, route.AnyOrigin),
		headers: []string{strings.Join(of.Headers, ", ")}, maxAge: []string{strconv.FormatInt(int64(of.MaxAge/time.Second), 10)},
		exposed: []string{exposedHeaders}, anybody: []string{route.AnyOrigin},
	}
	if len(of.Methods) > 0 {
		c.methods = []string{strings.Join(of.Methods, ", ")}
	}
	if of.Credentials {
		c.credentials = []string{"true"}
	}
	return c
}

// isPreflight reports whether a request is a browser's question.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 && len(r.Header["Access-Control-Request-Method"]) == 1
}

// findPreflight finds the rule of the request that a preflight is about; nil where
// that is not to be had, or where the policy has a rule for OPTIONS itself.
func (x *exchange) findPreflight(found *rule) *rule {
	if !isPreflight(x.r) || x.isOwn() || found != nil && found.cors == nil && found.Pattern.Names(http.MethodOptions) {
		return nil
	}
	match := x.policy.table.Match(x.r.Header["Access-Control-Request-Method"][0], x.r.Host, x.r.URL.Path)
	return x.policy.rules[match.Rule]
}

// decidePreflight admits a preflight, which is answered where the rule says who
// may ask and forwarded where it does not. Neither needs a key.
func (p *Proxy) decidePreflight(x *exchange, about *rule) *refusal {
	x.rule = about
	if about.cors == nil {
		if answer := x.checkMethod(about); answer != nil {
			return answer
		}
		if about.budget != nil {
			return x.decidePublic()
		}
	}
	x.decision = public
	if about.cors != nil {
		x.preflight = true
		if origin := x.r.Header["Origin"][0]; !about.cors.allows(origin) {
			return originNotAllowed()
		}
		return nil
	}
	if ok, wait := p.preflights.Allow(auth.AddressKey(x.client)); !ok {
		return overPreflights(wait)
	}
	return nil
}

func originNotAllowed() *refusal {
	return &refusal{decision: forbidden, problem: problem.Problem{
		Status: http.StatusForbidden, Error: "Origin not allowed",
		Detail: "Pages of this origin may not call this path: the route's cors.origins does not name it.",
	}}
}

func overPreflights(retryAfter time.Duration) *refusal {
	wait := max(1, int64((retryAfter+time.Second-1)/time.Second))
	return &refusal{decision: limited, retryAfter: wait, problem: problem.Problem{
		Type: problem.TypeQuotaExceeded, Status: http.StatusTooManyRequests, Error: "Rate limit exceeded",
		Detail:           "Too many preflights came from this address. Wait " + spell(time.Duration(wait)*time.Second) + " before the next one.",
		ViolatedPolicies: []string{"address"},
	}}
}

func newPreflights(now func() time.Time) *ratelimit.Buckets {
	b, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: preflightRequests, Per: preflightPer, Now: now})
	if err != nil {
		panic("proxy: " + err.Error()) // of constants
	}
	return b
}

func (c *cors) allows(origin string) bool { return c.any || slices.Contains(c.Origins, origin) }

// answerPreflight says what pages of the origin may send.
func (x *exchange) answerPreflight() {
	h, c := x.w.Header(), x.rule.cors
	x.ignoreBody()
	x.describe(h)
	x.sayCORS(h)
	delete(h, "Access-Control-Expose-Headers") // of the answer itself, which no page reads
	methods := c.methods
	if methods == nil {
		if allow := x.policy.table.Allow(x.r.Host, x.r.URL.Path); allow != "" {
			methods = []string{allow}
		} else {
			methods = []string{x.r.Header["Access-Control-Request-Method"][0]} // the rule allows all, and a rule matched it
		}
	}
	h["Access-Control-Allow-Methods"], h["Access-Control-Allow-Headers"] = methods, c.headers
	h["Access-Control-Max-Age"] = c.maxAge
	x.WriteHeader(http.StatusNoContent)
}

// sayCORS sets what lets a page read an answer of keygate's own. Caches must keep
// answers to different origins apart.
func (x *exchange) sayCORS(h http.Header) {
	if x.rule == nil || x.rule.cors == nil {
		return
	}
	x.rule.cors.say(h, x.r.Header["Origin"])
	h["Vary"] = append(h["Vary"], "Origin")
	if isPreflight(x.r) {
		h["Vary"] = append(h["Vary"], "Access-Control-Request-Method", "Access-Control-Request-Headers")
	}
}

func (c *cors) say(h http.Header, origin []string) {
	if len(origin) != 1 || !c.allows(origin[0]) {
		return
	}
	h["Access-Control-Allow-Origin"] = origin
	if c.any {
		h["Access-Control-Allow-Origin"] = c.anybody
	}
	if c.credentials != nil {
		h["Access-Control-Allow-Credentials"] = c.credentials
	}
	h["Access-Control-Expose-Headers"] = c.exposed
}

// replaceCORS puts what the route says of CORS in place of what the upstream said;
// what the upstream lets pages read stays.
func (x *exchange) replaceCORS(h http.Header) {
	c := x.rule.cors
	if c == nil {
		return
	}
	readable := h["Access-Control-Expose-Headers"]
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	c.say(h, x.r.Header["Origin"])
	if _, said := h["Access-Control-Expose-Headers"]; said && len(readable) > 0 {
		h["Access-Control-Expose-Headers"] = append(slices.Clone(readable), exposedHeaders)
	}
	h["Vary"] = append(h["Vary"][:len(h["Vary"]):len(h["Vary"])], "Origin")
}
