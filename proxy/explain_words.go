package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"keygate/auth"
	"keygate/ratelimit"
)

func atHost(host string) string {
	if host == "" {
		return " where a request names no host"
	}
	return fmt.Sprintf(" at the host %q", host)
}

func methodDetail(method string, found *rule, answer *refusal) string {
	if found != nil && (method == http.MethodConnect || method == http.MethodTrace) {
		return method + " is forwarded for nobody, whatever a rule says. " + answer.problem.Detail
	}
	if found == nil {
		return fmt.Sprintf("Rules cover this path, but none of them the method %s. %s Methods are case-sensitive.", method, answer.problem.Detail)
	}
	return answer.problem.Detail
}

// keyWords adds to a refusal which key it is and since when.
func keyWords(p *auth.Principal) string {
	if p == nil {
		return ""
	}
	k := p.Key
	text := fmt.Sprintf(" It is the key %q (%s)", k.Name, k.ID)
	switch {
	case !k.RevokedAt().IsZero():
		text += ", revoked on " + k.RevokedAt().Format(time.RFC3339)
	case !k.PausedAt().IsZero():
		text += ", paused on " + k.PausedAt().Format(time.RFC3339)
	}
	return text + "."
}

func scopeDetail(j *auth.Judgement) string {
	held := strings.Join(j.Granted, ", ")
	if held == "" {
		held = "nothing there"
	}
	text := fmt.Sprintf("The route needs %s and the key holds %s.", strings.Join(j.Scope.Required, ", "), held)
	if len(j.Unowned) > 0 {
		text += fmt.Sprintf(" The key was given %s, but the account that owns it does not hold that there.", strings.Join(j.Unowned, ", "))
	}
	return text
}

func unlimited(p *auth.Principal) string {
	if p.Organization == nil {
		return "Keys of the instance's operators have no limits."
	}
	return fmt.Sprintf("The plan %q has no limits.", p.Plan.Name) + standIn(p)
}

// standIn says where the plan that counts is not the one that was chosen.
func standIn(p *auth.Principal) string {
	if p.PlanKnown {
		return ""
	}
	chosen := p.Key.Plan
	if chosen == "" {
		chosen = p.Organization.Plan
	}
	return fmt.Sprintf(" The policy has no plan %q; %q stands in for it.", chosen, p.Plan.Name)
}

func degraded(d ratelimit.Decision) string {
	if d.Degraded == "" {
		return ""
	}
	return " The shared state of the limits is out of reach: this is what one replica has counted by itself."
}

func limitsDetail(limits []auth.ExplainedLimit) string {
	var all []string
	for _, l := range limits {
		shared := ""
		if l.Shared {
			shared = ", which all keys of the organization share,"
		}
		all = append(all, fmt.Sprintf("%q%s has %d of %s left", l.Name, shared, l.Remaining, requestsPer(l.Quota, span(l.Per, l.Timezone))))
	}
	return "The limit " + strings.Join(all, ", and ") + "."
}

func wait(answer *refusal) string { return spell(time.Duration(answer.retryAfter) * time.Second) }

func join(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}
