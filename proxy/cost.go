package proxy

import (
	"net/http"
	"strconv"

	"keygate/proxy/route"
)

// cost is what the request takes of the key's limits.
func (x *exchange) cost() route.Cost {
	if x.rule == nil {
		return route.Cost{}
	}
	return x.rule.Cost
}

// settle has the budgets hold what the answer says that the request cost, rather
// than what was reserved for it. An answer that does not say it, or not so that it
// can be understood, leaves them as they are: a mistake of the upstream must not
// open the gate.
func (x *exchange) settle(answer http.Header) {
	c := x.cost()
	if c.Header == "" || x.principal == nil || len(x.limits.Limits) == 0 {
		return
	}
	values := answer[c.Header]
	var n int64
	err := strconv.ErrSyntax
	if len(values) == 1 {
		n, err = strconv.ParseInt(values[0], 10, 64)
	}
	if err != nil || n < 0 {
		x.proxy.metrics.badCosts.WithLabelValues(x.rule.name).Inc()
		return
	}
	if x.proxy.settling != nil {
		x.proxy.settling.Add(&x.ask, &x.limits, min(n, c.Max))
	}
}
