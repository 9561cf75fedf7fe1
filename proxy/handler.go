package proxy

import (
	"errors"
	"net/http"
	"strings"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/proxy/route"
	"keygate/ratelimit"
)

// ServeHTTP decides and forwards or refuses. The order of the checks is part of
// the contract with clients: 403 plain HTTP, 400 path, 404, CORS preflight, 405,
// 401, 403, 413, 429.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.begin(w, r)
	defer x.finish()
	if answer := p.decide(x); answer != nil {
		x.refuse(answer)
	} else if x.preflight {
		x.answerPreflight()
	} else if x.asksAboutItself() {
		x.answerMe()
	} else {
		x.sent = p.now()
		x.prepareCall()
		x.enter()
		x.reverse.ServeHTTP(x, x.r) // with an end of its own, perhaps
	}
	x.done = true
}

// decide returns nil where the request may be forwarded, and fills in what the
// forwarding needs.
func (p *Proxy) decide(x *exchange) *refusal {
	x.exposed = auth.Exposed(p.format, x.r.URL)
	if answer := p.checkSecure(x); answer != nil {
		return answer
	}
	if answer := x.checkTarget(); answer != nil {
		return answer
	}
	found, answer := x.findRule()
	if answer == nil {
		if about := x.findPreflight(found); about != nil {
			return p.decidePreflight(x, about)
		}
		answer = x.checkMethod(found)
	}
	if answer != nil {
		return x.failed(answer)
	}
	x.rule = found
	if x.rule.budget != nil {
		return x.decidePublic()
	}

	token, refused := auth.Bearer(x.r.Header, x.exposed)
	if refused != nil {
		return x.refused(refused)
	}
	answer = p.admit(x, token, 0)
	if stopped, ok := errors.AsType[*ratelimit.StoppedError](x.cause); ok {
		// The ledger knows of a change of the key that this replica has not
		// heard of: forget the key and look again, once. What the store says
		// then is newer than the mark, whatever its version.
		x.cause = nil
		p.auth.Changed(keys.Change{Kind: keys.KindKey, ID: x.principal.Key.ID})
		answer = p.admit(x, token, stopped.Version)
	}
	return answer
}

// failed is the answer to a request for what is not there, which counts against
// the budget of the client's address as an unknown key does.
func (x *exchange) failed(answer *refusal) *refusal {
	if answer.decision != notFound && answer.decision != methodNotAllowed {
		return answer
	}
	if tooMany := x.proxy.auth.Failed(x.client); tooMany != nil {
		return x.refused(tooMany)
	}
	return answer
}

// checkTarget refuses a target that is too long, and one that could be read in two ways.
func (x *exchange) checkTarget() *refusal {
	if most := x.proxy.maxURL; most > 0 && len(x.r.RequestURI) > most {
		return x.longURL()
	}
	if !route.CheckHost(x.r.Host) {
		return ambiguousHost()
	}
	if x.r.URL.Path == "*" { // OPTIONS *: about the server, and no route is
		return nil
	}
	if problem := route.CheckPath(x.r.URL); problem != "" {
		return x.ambiguousPath(problem)
	}
	if strings.Contains(x.r.URL.RawQuery, " ") { // over HTTP/2; in a line of HTTP/1 it is the target's end
		return ambiguousQuery()
	}
	return nil
}

// findRule finds the rule that covers the request; nil where only the method is
// wrong.
func (x *exchange) findRule() (*rule, *refusal) {
	if x.isOwn() {
		return x.findOwn()
	}
	match := x.policy.table.Match(x.r.Method, x.r.Host, x.r.URL.Path)
	if match.Rule == nil && !match.PathKnown {
		return nil, x.noRoute()
	}
	return x.policy.rules[match.Rule], nil
}

// checkMethod refuses methods that the route does not have or that are
// forwarded for nobody, and requests that ask for another one than their own.
func (x *exchange) checkMethod(found *rule) *refusal {
	if found == nil {
		return x.wrongMethod()
	}
	if x.r.Method == http.MethodConnect || x.r.Method == http.MethodTrace {
		return x.wrongMethod() // a tunnel past every rule; an echo of what only the upstream may see
	}
	if inAnotherCase(x.r.Method) {
		return ambiguousMethod()
	}
	if name := overridesMethod(x.r.Header); name != "" {
		return x.overriddenMethod(name)
	}
	return nil
}

// admit finds the key, authorizes it and takes one request from its limits,
// asking for a version of the key of at least known.
func (p *Proxy) admit(x *exchange, token string, known int64) *refusal {
	ctx := x.r.Context()
	var refused *auth.Refusal
	if x.principal, refused = p.auth.Authenticate(ctx, token, x.client, x.policy.keys); refused != nil {
		return x.refused(refused)
	}
	if !x.principal.PlanKnown {
		x.policy.usesUnknownPlan(x.principal)
	}
	if x.asksAboutItself() {
		return p.look(x, known)
	}
	if x.access, refused = p.auth.Authorize(ctx, x.principal, x.r, x.rule.Rule, x.client); refused != nil {
		return x.refused(refused)
	}
	if answer := x.checkLength(); answer != nil {
		return answer
	}
	if answer := x.join(); answer != nil {
		return answer
	}
	if answer := p.board(x, known); answer != nil {
		return answer
	}
	return p.spend(x, known)
}

// checkLength refuses a body that says itself that it is too large. One that does
// not say is cut off where it is.
func (x *exchange) checkLength() *refusal {
	if most := x.rule.MaxBody; most > 0 && x.r.ContentLength > most {
		return x.tooLarge()
	}
	return nil
}

// spend takes one request from every limit of the key's plan.
func (p *Proxy) spend(x *exchange, known int64) *refusal {
	if len(x.principal.Plan.Limits) == 0 {
		return nil
	}
	x.askFor(known)
	var err error
	x.limits, err = p.limiter.Decide(x.r.Context(), &x.ask, x.states[:])
	if err != nil {
		return x.limiterFailed(err)
	}
	if !x.limits.Allowed {
		return x.overLimit()
	}
	return nil
}

// askFor prepares the question to the limits, about a version of the key of at
// least known.
func (x *exchange) askFor(known int64) {
	key, plan := x.principal.Key, &x.principal.Plan
	x.ask = ratelimit.Ask{
		Organization: x.principal.Organization.ID, // keys without one have no limits
		Key:          key.ID,
		Version:      max(key.Version, known),
		Rules:        x.policy.keys.Rules,
		Open:         plan.Outage.Open,
		Limits:       x.principal.Limits(x.start),
		Cost:         max(1, x.cost().Reserve),
		Corrected:    x.cost().Header != "",
		Handle:       &x.principal.Handle,
	}
}

// decidePublic admits a request without a key within the address's budget.
func (x *exchange) decidePublic() *refusal {
	x.decision = public
	if answer := x.checkLength(); answer != nil {
		return answer
	}
	ok, retryAfter := x.rule.budget.Allow(auth.AddressKey(x.client))
	if !ok {
		return x.overAddressBudget(retryAfter)
	}
	return nil
}

// PolicyKeys returns what the policy in force says about keys.
func (p *Proxy) PolicyKeys() *keys.Policy { return p.policy.Load().keys }
