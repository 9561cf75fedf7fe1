package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/ratelimit"
)

// Explain says what the gate would answer to a request, and why. It makes the
// checks of decide with decide's own functions, but nothing is spent, sent,
// logged or counted. An Authorization header among those of the question is not
// read: the question's key stands for it.
func (p *Proxy) Explain(ctx context.Context, q auth.Question) auth.Explanation {
	policy := p.policy.Load()
	i := p.inquire(ctx, &q, policy, 0)
	if i.stopped == nil {
		return i.Explanation
	}
	// As decide does: the ledger knows of a change of the key that this replica
	// has not heard of.
	p.auth.Changed(keys.Change{Kind: keys.KindKey, ID: i.principal.Key.ID})
	return p.inquire(ctx, &q, policy, i.stopped.Version).Explanation
}

// inquiry is an exchange that never takes place, and what is to be said about it.
type inquiry struct {
	auth.Explanation
	*exchange
	answer  *refusal // of the first check that fails
	stopped *ratelimit.StoppedError
	// answered says that the request is a preflight, for which nothing more counts.
	answered bool
}

func (p *Proxy) inquire(ctx context.Context, q *auth.Question, policy *Policy, known int64) *inquiry {
	i := &inquiry{exchange: &exchange{proxy: p, request: request{policy: policy, client: q.Client.Unmap().WithZone(""), start: p.now()}}}
	r, answer := questioned(ctx, q)
	if answer != nil {
		i.fail("path", answer, answer.problem.Detail)
		i.skip("This is no request that could be judged.", "route", "method", "key", "address", "organization", "space", "scope", "limit")
		return i
	}
	i.r = r
	i.explainHTTPS()
	i.explainRoute()
	switch {
	case i.answered:
		i.skip("Browsers ask such a question without a key.", "key", "address", "organization", "space", "scope", "limit")
	case i.rule != nil && i.rule.budget != nil:
		i.skip("The route is public: no key is looked at.", "key", "address", "organization", "space", "scope")
		i.explainBudget()
	default:
		i.explainKey(ctx, q.Key)
		i.explainAccess(ctx)
		i.explainLimits(ctx, known)
	}
	i.explainUpstream()
	return i
}

func (i *inquiry) check(name, result, detail string) {
	i.Checks = append(i.Checks, auth.Check{Name: name, Result: result, Detail: detail})
}

func (i *inquiry) pass(name, detail string, args ...any) {
	i.check(name, "pass", fmt.Sprintf(detail, args...))
}

func (i *inquiry) skip(why string, names ...string) {
	for _, name := range names {
		i.check(name, "skip", why)
	}
}

// fail takes the answer that a request gets whose first failing check this is.
func (i *inquiry) fail(name string, answer *refusal, detail string) {
	i.check(name, "fail", detail)
	if i.answer != nil {
		return
	}
	i.answer = answer
	i.Status, i.Error, i.Detail = answer.problem.Status, answer.problem.Error, answer.problem.Detail
	i.RetryAfter = time.Duration(answer.retryAfter) * time.Second
}

// explainRoute makes the checks of path, route and method. Where only the method
// of a request is refused, the rule is there for the later checks.
func (i *inquiry) explainRoute() {
	if answer := i.checkTarget(); answer != nil {
		i.fail("path", answer, answer.problem.Detail)
		i.skip("The path can be read in more than one way, so that no rule can be chosen for it.", "route", "method")
		return
	}
	i.pass("path", "The path can be read in one way only.")
	found, answer := i.findRule()
	if answer != nil && answer.decision == methodNotAllowed { // of a path of keygate's own
		i.pass("route", "The path is keygate's own.")
		i.fail("method", answer, methodDetail(i.r.Method, found, answer))
		return
	}
	if answer != nil {
		i.fail("route", answer, "No rule of the policy covers this path"+atHost(i.r.Host)+".")
		i.skip("There is no route that could allow a method.", "method")
		return
	}
	if found == nil {
		i.pass("route", "Rules of the policy cover this path%s.", atHost(i.r.Host))
	} else {
		i.rule, i.Rule = found, explained(found)
		i.Required = found.Permissions
		i.pass("route", "Of the rules that cover this request %q is the most specific.", found.name)
	}
	if about := i.findPreflight(found); about != nil {
		i.explainPreflight(about)
		return
	}
	if answer := i.checkMethod(found); answer != nil {
		i.fail("method", answer, methodDetail(i.r.Method, found, answer))
		return
	}
	i.pass("method", "The route allows %s.", i.r.Method)
}

// explainPreflight says what becomes of a browser's question about a request.
func (i *inquiry) explainPreflight(about *rule) {
	i.answered, i.rule, i.Rule = true, about, explained(about)
	if about.cors == nil {
		if answer := i.checkMethod(about); answer != nil {
			i.fail("method", answer, answer.problem.Detail)
			return
		}
		i.pass("method", "It is a preflight, which is forwarded without a key because the route says nothing of CORS.")
		return
	}
	if !about.cors.allows(i.r.Header["Origin"][0]) {
		answer := originNotAllowed()
		i.fail("method", answer, answer.problem.Detail)
		return
	}
	i.pass("method", "It is a preflight, which keygate answers as the route's cors says.")
}

func explained(r *rule) *auth.ExplainedRule {
	out := &auth.ExplainedRule{Match: r.name, Upstream: r.Upstream, Permissions: r.Permissions, Any: r.Any}
	if r.Public != nil {
		out.Public = r.Public.String()
	}
	if r.Organization != nil {
		out.Organization = r.Organization.String()
	}
	if r.Space != nil {
		out.Space = r.Space.String()
	}
	return out
}

// explainKey finds the key, also one that is not in force.
func (i *inquiry) explainKey(ctx context.Context, h keys.Hash) {
	sent := h != keys.Hash{}
	refused := auth.Presented(sent, auth.Exposed(i.proxy.format, i.r.URL))
	if sent {
		principal, state := i.proxy.auth.ByHash(ctx, h, i.policy.keys)
		if i.principal = principal; refused == nil {
			refused = state
		}
	}
	if refused != nil {
		i.fail("key", i.refused(refused), refused.Detail+keyWords(i.principal))
		return
	}
	i.pass("key", "The key %q (%s) is active.", i.principal.Key.Name, i.principal.Key.ID)
}

// explainAccess makes the checks of Authorize.
func (i *inquiry) explainAccess(ctx context.Context) {
	if i.principal == nil {
		i.skip("There is no key that could be judged.", "address", "organization", "space", "scope")
		return
	}
	i.Plan = i.principal.Plan.Name
	if i.rule == nil {
		i.explainAddress(i.proxy.auth.Judge(ctx, i.principal, i.r, nil, i.client).Address)
		i.skip("No rule covers the request, so that nothing says what it needs.", "organization", "space", "scope")
		return
	}
	j := i.proxy.auth.Judge(ctx, i.principal, i.r, i.rule.Rule, i.client)
	i.explainAddress(j.Address)
	if i.asksAboutItself() {
		i.skip("The path is about nothing but the key itself.", "organization", "space", "scope")
		return
	}
	i.explainOrganization(j.Organization)
	i.explainSpace(j.Space)
	i.explainScope(&j)
}

func (i *inquiry) explainAddress(refused *auth.Refusal) {
	allowed := i.principal.Key.AllowedCIDRs
	switch {
	case len(allowed) == 0:
		i.pass("address", "The key may be used from any address.")
	case !i.client.IsValid():
		i.skip("The client's address was not given; the key may be used from "+join(allowed)+" only.", "address")
	case refused != nil:
		i.fail("address", i.refused(refused), fmt.Sprintf("The request comes from %s and the key may be used from %s only.", i.client, join(allowed)))
	default:
		i.pass("address", "The request comes from %s, and the key may be used from %s.", i.client, join(allowed))
	}
}

func (i *inquiry) explainOrganization(refused *auth.Refusal) {
	switch {
	case refused != nil:
		detail := fmt.Sprintf("%s The route takes the organization from %s", refused.Detail, i.rule.Organization)
		if own := i.principal.Organization; own != nil {
			detail += fmt.Sprintf(" and the key belongs to %q (%s)", own.Slug, own.ID)
		}
		i.fail("organization", i.refused(refused), detail+".")
	case i.rule.Organization == nil:
		i.skip("The route is about no organization in particular.", "organization")
	default:
		i.pass("organization", "The request is about the key's own organization, %q (%s).", i.principal.Organization.Slug, i.principal.Organization.ID)
	}
}

func (i *inquiry) explainSpace(refused *auth.Refusal) {
	switch {
	case refused != nil && i.rule.Space == nil:
		i.fail("space", i.refused(refused), refused.Detail)
	case refused != nil:
		i.fail("space", i.refused(refused), fmt.Sprintf("%s The route takes the space from %s.", refused.Detail, i.rule.Space))
	case i.rule.Space == nil:
		i.skip("The route is about no space, and the key is not restricted to one.", "space")
	default:
		i.pass("space", "The request is about a space in which the key may be used.")
	}
}

func (i *inquiry) explainScope(j *auth.Judgement) {
	i.Granted = j.Granted
	switch {
	case j.Space != nil:
		i.skip("What the key may do depends on the space, and the request is about none in which it may be used.", "scope")
	case i.rule.Any:
		i.pass("scope", "The route admits any valid key.")
	case j.Scope != nil:
		i.Missing = j.Scope.Missing()
		i.fail("scope", i.refused(j.Scope), scopeDetail(j))
	default:
		i.pass("scope", "The route needs %s and the key holds it.", strings.Join(i.rule.Permissions, ", "))
	}
}

// explainLimits looks at the limits of the key as they stand.
func (i *inquiry) explainLimits(ctx context.Context, known int64) {
	if i.principal == nil {
		i.skip("There is no key whose limits could be looked at.", "limit")
		return
	}
	if i.asksAboutItself() {
		i.explainOwnBudget()
		return
	}
	if crowd := i.proxy.crowd; crowd.full(i.principal.Key.ID) {
		answer := crowd.refusal()
		i.fail("limit", answer, answer.problem.Detail)
		return
	}
	if len(i.principal.Plan.Limits) == 0 {
		i.skip(unlimited(i.principal), "limit")
		return
	}
	i.askFor(known)
	limits, err := i.proxy.limiter.Peek(ctx, &i.ask)
	if stopped, ok := errors.AsType[*ratelimit.StoppedError](err); ok && i.answer != nil {
		// A request that is refused before asks no ledger.
		i.skip("The key has changed a moment ago; its limits can be looked at when this replica has heard of it.", "limit")
		return
	} else if ok && known == 0 {
		i.stopped = stopped
		return
	}
	if err != nil {
		answer := i.limiterFailed(err)
		i.fail("limit", answer, answer.problem.Detail)
		return
	}
	i.exchange.limits = limits
	for n, s := range limits.Limits {
		per, zone := i.ask.Limits[n].Terms()
		i.Limits = append(i.Limits, auth.ExplainedLimit{
			Name: s.Name, Quota: s.Quota, Per: per, Timezone: zone, Shared: i.ask.Limits[n].Shared, Remaining: s.Remaining, Reset: s.NextUnit,
		})
	}
	if limits.Allowed {
		i.pass("limit", "%s", limitsDetail(i.Limits)+standIn(i.principal)+degraded(limits))
		return
	}
	answer := i.overLimit()
	i.fail("limit", answer, limitsDetail(i.Limits)+fmt.Sprintf(" A request fits again in %s.", wait(answer))+standIn(i.principal)+degraded(limits))
	i.RetryAfter = time.Duration(answer.retryAfter) * time.Second
}

// explainBudget looks at what a client's address has left on a public route.
func (i *inquiry) explainBudget() {
	budget := i.rule.Public
	if !i.client.IsValid() {
		i.skip(fmt.Sprintf("The client's address was not given; the route allows %s requests for each.", budget), "limit")
		return
	}
	left, next := i.rule.budget.Peek(auth.AddressKey(i.client))
	i.Limits = []auth.ExplainedLimit{{Name: "address", Quota: int64(budget.Requests), Per: short(budget.Per), Remaining: int64(left), Reset: next}}
	if left > 0 {
		i.pass("limit", "%s", limitsDetail(i.Limits))
		return
	}
	answer := i.overAddressBudget(next)
	i.fail("limit", answer, limitsDetail(i.Limits)+fmt.Sprintf(" A request fits again in %s.", wait(answer)))
	i.RetryAfter = time.Duration(answer.retryAfter) * time.Second
}

// explainOwnBudget looks at how often the key may still ask about itself, which
// spends none of its limits.
func (i *inquiry) explainOwnBudget() {
	left, next := i.proxy.me.budget.Peek(i.principal.Key.ID)
	i.Limits = []auth.ExplainedLimit{{Name: "me", Quota: meRequests, Per: short(mePer), Remaining: int64(left), Reset: next}}
	if left > 0 {
		i.pass("limit", "%s It spends none of the plan's limits.", limitsDetail(i.Limits))
		return
	}
	answer := overMeBudget(next)
	i.fail("limit", answer, limitsDetail(i.Limits)+fmt.Sprintf(" A request fits again in %s.", wait(answer)))
	i.RetryAfter = time.Duration(answer.retryAfter) * time.Second
}
