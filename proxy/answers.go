package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"keygate/auth"
	"keygate/internal/problem"
	"keygate/proxy/upstream"
	"keygate/ratelimit"
)

// refusal is an answer of keygate's own. All of them leave through
// exchange.refuse.
type refusal struct {
	problem    problem.Problem
	challenge  string // WWW-Authenticate
	allow      string // Allow
	retryAfter int64  // seconds; 0: no header
	decision   decision
}

// refusedBodyTimeout bounds what a refusal waits for a body that nobody wants.
// One that is there by then lets the connection be used again.
const refusedBodyTimeout = 2 * time.Second

func (x *exchange) refuse(answer *refusal) {
	if x.decision == allowed || answer.decision != allowed {
		x.decision = answer.decision
	}
	x.why(answer)
	h := x.w.Header()
	if answer.problem.Status == statusClientGone {
		// Hardly anybody is left to read it. But a client that has only finished
		// sending looks the same, and to it nothing at all would become an empty 200.
		answer.problem.Title = "Client Closed Request"
		if x.r.ProtoMajor == 1 { // over HTTP/2 that would end the other streams' connection
			h.Set("Connection", "close")
		}
	}
	x.ignoreBody()
	x.describe(h)
	x.sayCORS(h)
	if answer.challenge != "" {
		h.Set("Www-Authenticate", answer.challenge)
	}
	if answer.allow != "" {
		h.Set("Allow", answer.allow)
	}
	if answer.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(answer.retryAfter, 10))
	}
	answer.problem.RequestID = x.id
	if isGRPC(x.r.Header) {
		x.writeGRPC(&answer.problem)
		return
	}
	problem.Write(x, &answer.problem)
}

// why notes for the log what a request that was not refused for its key was
// refused for. Details stay out: they may hold a path, and that a key.
func (x *exchange) why(answer *refusal) {
	switch {
	case x.reason != "":
	case answer.decision == limited:
		x.reason = "The limit " + strings.Join(answer.problem.ViolatedPolicies, ", ") + " is used up."
	case answer.decision == badRequest, answer.decision == notFound, answer.decision == methodNotAllowed, answer.decision == forbidden:
		x.reason = answer.problem.Error + "."
	case answer.problem.Status < 500 && answer.problem.Status != statusClientGone: // admitted, and the client's doing all the same
		x.reason = answer.problem.Error + "."
	}
}

// ignoreBody bounds the wait for a body that is not forwarded: net/http reads
// what is left of one before the answer goes out.
func (x *exchange) ignoreBody() {
	wait := refusedBodyTimeout
	if x.call.Body.Late() || x.call.Body.Abandoned() { // it was waited for, or there is no time
		wait = 0
	}
	if x.r.ContentLength != 0 {
		// Writers of tests have no deadline.
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(wait))
	}
}

func (x *exchange) ambiguousPath(detail string) *refusal {
	return &refusal{decision: badRequest, problem: problem.Problem{
		Status: http.StatusBadRequest, Error: "Ambiguous path",
		Detail: "The path can be read in more than one way: " + detail + ".",
	}}
}

// ambiguousRequest refuses what another server may read as another request.
func ambiguousRequest(detail string) *refusal {
	return &refusal{decision: badRequest, problem: problem.Problem{
		Status: http.StatusBadRequest, Error: "Ambiguous request", Detail: detail,
	}}
}

func ambiguousHost() *refusal {
	return ambiguousRequest("The Host holds a character that no name, address or port has, so that it can be read in more than one way.")
}

func ambiguousQuery() *refusal {
	return ambiguousRequest("The query holds a space that is not encoded (%20, or +), which some servers take for its end.")
}

func (x *exchange) longURL() *refusal {
	return &refusal{decision: badRequest, problem: problem.Problem{
		Status: http.StatusRequestURITooLong, Error: "URL too long",
		Detail: fmt.Sprintf("Path and query have %d bytes; at most %d are taken.", len(x.r.RequestURI), x.proxy.maxURL),
	}}
}

func (x *exchange) noRoute() *refusal {
	return &refusal{decision: notFound, problem: problem.Problem{
		Status: http.StatusNotFound, Error: "Not found", Detail: "No route covers this path.",
	}}
}

func (x *exchange) wrongMethod() *refusal {
	allow := x.policy.table.Allow(x.r.Host, x.r.URL.Path)
	if allow == "" { // the rule allows all, and this is one that keygate forwards for nobody
		allow = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
	}
	return methodsAllowed(allow)
}

func methodsAllowed(allow string) *refusal {
	return &refusal{decision: methodNotAllowed, allow: allow, problem: problem.Problem{
		Status: http.StatusMethodNotAllowed, Error: "Method not allowed", Detail: "This path allows " + allow + ".",
	}}
}

func ambiguousMethod() *refusal {
	return ambiguousRequest("Methods are case-sensitive, and this one differs from a common one in nothing else. Send it in capitals.")
}

func (x *exchange) overriddenMethod(header string) *refusal {
	return ambiguousRequest("The header " + header + " asks for another method than the request's own, by which it is authorized. Send the request with the method that is meant.")
}

// refused turns what authentication or authorization said into an answer.
func (x *exchange) refused(r *auth.Refusal) *refusal {
	x.cause = r.Err
	a := r.Answer(x.proxy.realm, x.r.Method+" "+x.r.URL.Path)
	out := &refusal{challenge: a.Challenge, problem: problem.Problem{
		Status: a.Status, Error: a.Error, Detail: a.Detail, Required: r.Required, Granted: r.Granted,
	}}
	x.keyID, x.reason = r.Key, r.Words()
	switch a.Status {
	case http.StatusTooManyRequests:
		out.decision, out.retryAfter = limited, r.RetryAfter
		out.problem.Type, out.problem.ViolatedPolicies = problem.TypeQuotaExceeded, []string{"address"}
	case http.StatusUnauthorized:
		out.decision = unauthenticated
	case http.StatusForbidden:
		out.decision = forbidden
	case http.StatusBadRequest:
		out.decision = badRequest
	default:
		out.decision = unavailable
		out.retryAfter = 1
		if clientLeft(x.r.Context(), r.Err) {
			out.problem.Status = statusClientGone
		}
	}
	return out
}

// limiterFailed answers where the limits could not be checked: admitting then
// would break the promise.
func (x *exchange) limiterFailed(err error) *refusal {
	x.cause = err
	status, wait := http.StatusServiceUnavailable, int64(1)
	if clientLeft(x.r.Context(), err) {
		status = statusClientGone
	}
	if lost, ok := errors.AsType[*ratelimit.LostError](err); ok {
		wait = max(1, int64((lost.RetryAfter+time.Second-1)/time.Second))
	}
	return &refusal{decision: unavailable, retryAfter: wait, problem: problem.Problem{
		Status: status, Error: "Temporarily unavailable",
		Detail: "The rate limit could not be checked at the moment. Try again shortly.",
	}}
}

func clientLeft(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) && ctx.Err() != nil
}

// overLimit says which limits are used up, how long to wait and what to do.
func (x *exchange) overLimit() *refusal {
	wait := ratelimit.RetryAfterSeconds(x.limits)
	var names, bounds []string
	negotiated, shared := false, false
	for i, state := range x.limits.Limits {
		if state.Violated {
			names = append(names, state.Name)
			l := &x.ask.Limits[i]
			bounds = append(bounds, bound(state.Quota, l))
			negotiated, shared = negotiated || !x.ofPlan(l), shared || l.Shared
		}
	}
	allows, more := fmt.Sprintf("The plan %q allows %s", x.principal.Plan.Name, strings.Join(bounds, " and ")), "a larger plan"
	if !shared {
		allows += " for each key"
	}
	if negotiated {
		allows, more = "This API key's limit is "+strings.Join(bounds, " and "), "a higher limit"
	}
	return &refusal{decision: limited, retryAfter: wait, problem: problem.Problem{
		Type: problem.TypeQuotaExceeded, Status: http.StatusTooManyRequests, Error: "Rate limit exceeded",
		Detail:           fmt.Sprintf("%s, and that is used up. Wait %s before the next request, or ask for %s.", allows, spell(time.Duration(wait)*time.Second), more),
		ViolatedPolicies: names,
	}}
}

// bound says what a limit allows, and whom.
func bound(quota int64, l *ratelimit.Limit) string {
	allowed := requestsPer(quota, span(l.Terms()))
	if l.Shared {
		allowed += " for all keys of the organization together"
	}
	return allowed
}

// span writes what a limit counts in for people: "1 minute", "month (Europe/Zurich)".
func span(per, zone string) string {
	if d, err := time.ParseDuration(per); err == nil {
		return spell(d)
	}
	return fmt.Sprintf("calendar %s (%s)", per, zone)
}

// ofPlan reports whether a limit is the plan's own, and not one that was
// negotiated for the key or its organization.
func (x *exchange) ofPlan(l *ratelimit.Limit) bool {
	per, zone := l.Terms()
	return slices.ContainsFunc(x.policy.keys.Plans[x.principal.Plan.Name].Limits, func(o ratelimit.Limit) bool {
		oPer, oZone := o.Terms()
		return o.Name == l.Name && o.Quota == l.Quota && o.Shared == l.Shared && oPer == per && oZone == zone
	})
}

func requestsPer(n int64, per string) string {
	if n == 1 {
		return "1 request per " + per
	}
	return fmt.Sprintf("%d requests per %s", n, per)
}

func (x *exchange) overAddressBudget(retryAfter time.Duration) *refusal {
	wait := max(1, int64((retryAfter+time.Second-1)/time.Second))
	return &refusal{decision: limited, retryAfter: wait, problem: problem.Problem{
		Type: problem.TypeQuotaExceeded, Status: http.StatusTooManyRequests, Error: "Rate limit exceeded",
		Detail: fmt.Sprintf("This route allows %s for each client address, and that is used up. Wait %s before the next request.",
			requestsPer(int64(x.rule.Public.Requests), spell(x.rule.Public.Per)), spell(time.Duration(wait)*time.Second)),
		ViolatedPolicies: []string{"address"},
	}}
}

// noAnswer is about an upstream that gave none. The request was admitted, so
// its decision stays.
func (x *exchange) noAnswer(status int) *refusal {
	out := &refusal{decision: x.decision, problem: problem.Problem{
		Status: status, Error: "Upstream unavailable",
		Detail: "The API behind this gateway could not be reached. Your request was admitted and counted.",
	}}
	switch status {
	case http.StatusRequestEntityTooLarge:
		return x.tooLarge()
	case http.StatusRequestTimeout:
		out.problem.Error = "Request timed out"
		out.problem.Detail = "The body of the request did not arrive in time."
	case http.StatusServiceUnavailable:
		out.retryAfter = 1
		out.problem.Error = "Temporarily unavailable"
		out.problem.Detail = "The request was cut off: how many of this API key's requests are under way could not be checked for too long. The API may have acted on it all the same."
	case http.StatusBadRequest:
		out.problem.Error = "Malformed request"
		out.problem.Detail = "The body of the request cannot be read: it is malformed or was broken off."
	case http.StatusRequestHeaderFieldsTooLarge:
		out.problem.Error = "Request header too large"
		out.problem.Detail = "The API behind this gateway takes no header as long as that of the request, which was admitted and counted."
	case statusClientGone:
		out.problem.Error = "Client closed request"
		out.problem.Detail = "The connection was closed, or its sending side, before the API behind this gateway had answered."
	case http.StatusGatewayTimeout:
		out.problem.Error = "Upstream timed out"
		out.problem.Detail = "The API behind this gateway did not answer in time. It may have acted on the request all the same."
	}
	return out
}

// tooLarge is about a body beyond the route's max_body.
func (x *exchange) tooLarge() *refusal {
	return &refusal{decision: badRequest, problem: problem.Problem{
		Status: http.StatusRequestEntityTooLarge, Error: "Request body too large",
		Detail: fmt.Sprintf("This path takes bodies of at most %d bytes.", x.rule.MaxBody),
	}}
}

// spared is about a request that was not sent because the upstream has enough to
// do, or because it failed too often lately.
func (x *exchange) spared(busy *upstream.BusyError) *refusal {
	wait := max(1, int64((busy.RetryAfter+time.Second-1)/time.Second))
	detail := "The API behind this gateway has as many requests under way as it may have."
	if busy.Open {
		detail = "The API behind this gateway fails at the moment and is left alone for a while."
	}
	return &refusal{decision: x.decision, retryAfter: wait, problem: problem.Problem{
		Status: http.StatusServiceUnavailable, Error: "Upstream unavailable",
		Detail: fmt.Sprintf("%s Try again in %s. Your request was admitted and counted.", detail, spell(time.Duration(wait)*time.Second)),
	}}
}

// spell writes a duration for people: "1 minute", "90 seconds".
func spell(d time.Duration) string {
	for _, unit := range [...]struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if d >= unit.of && d%unit.of == 0 {
			if n := d / unit.of; n != 1 {
				return fmt.Sprintf("%d %ss", n, unit.name)
			}
			return "1 " + unit.name
		}
	}
	return d.String()
}
