package server

import (
	"context"

	"go.uber.org/zap"

	"keygate/internal/keys"
)

// plansPage is how many organizations are looked at with one read.
const plansPage = 500

// checkPlans looks, after each load of a policy, for organizations whose plan it
// does not have: the default plan stands in for those, and the operator should
// know before their customers do. Plans of single keys show when one is used.
func (l *policyLoader) checkPlans(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.loaded:
		}
		if err := l.eachOrganization(ctx, func(o keys.Organization) {
			if _, known := l.proxy.PolicyKeys().Plans[o.Plan]; !known {
				l.proxy.UnknownPlan(o.Plan)
			}
		}); err != nil && ctx.Err() == nil {
			l.log.Warn("the plans of organizations could not be checked", zap.Error(err))
			continue
		}
		if unknown := l.proxy.UnknownPlans(); len(unknown) > 0 {
			l.log.Error("organizations have plans that the policy lacks; the default plan's limits apply",
				zap.Strings("plans", unknown), zap.String("default_plan", l.proxy.PolicyKeys().DefaultPlan))
		}
	}
}

func (l *policyLoader) eachOrganization(ctx context.Context, f func(keys.Organization)) error {
	var after string
	for {
		page, err := l.store.Organizations(ctx, keys.Page{After: after, Limit: plansPage})
		if err != nil {
			return err
		}
		for _, o := range page {
			f(o)
		}
		if len(page) < plansPage {
			return nil
		}
		after = page[len(page)-1].ID
	}
}
