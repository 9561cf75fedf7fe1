package proxy

import (
	"fmt"
	"strconv"
)

// explainHTTPS says what would become of the request over plain HTTP, where that is
// refused: a question does not say what the request comes over.
func (i *inquiry) explainHTTPS() {
	if i.proxy.https {
		i.skip("KEYGATE_REQUIRE_HTTPS is set. Over plain HTTP the answer would be 403 (HTTPS is required) before anything else is looked at, and the key reported as exposed. What follows is for HTTPS.", "https")
	}
}

// explainUpstream says what the request would meet at its upstream, if it goes to one.
func (i *inquiry) explainUpstream() {
	if i.rule == nil || i.rule.to == nil || i.answered && i.rule.cors != nil {
		return
	}
	name := "of KEYGATE_UPSTREAM"
	if i.rule.Upstream != "" {
		name = strconv.Quote(i.rule.Upstream)
	}
	out := i.rule.to.Outlook()
	if out.Busy != nil {
		answer := i.spared(out.Busy)
		i.fail("upstream", answer, fmt.Sprintf("The upstream %s gets no further request at the moment. %s", name, answer.problem.Detail))
		return
	}
	if out.Well == 0 {
		i.pass("upstream", "The upstream %s has no target that is well: %d of %d are not, and are used all the same.", name, out.Targets, out.Targets)
		return
	}
	i.pass("upstream", "The upstream %s has %d of %d targets that are well, as far as checks and requests have shown.", name, out.Well, out.Targets)
}
