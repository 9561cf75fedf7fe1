package proxy

import "fmt"

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
	out := i.rule.to.Outlook()
	if out.Busy != nil {
		answer := i.spared(out.Busy)
		i.fail("upstream", answer, fmt.Sprintf("The upstream %q gets no further request at the moment. %s", i.rule.Upstream, answer.problem.Detail))
		return
	}
	if out.Well == 0 {
		i.pass("upstream", "None of the %d targets of the upstream %q is well; they are used all the same.", out.Targets, i.rule.Upstream)
		return
	}
	i.pass("upstream", "Of the targets of the upstream %q %d of %d are well.", i.rule.Upstream, out.Well, out.Targets)
}
