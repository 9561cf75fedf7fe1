package admin

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"keygate/internal/keys"
)

// Permission is an entry of the policy's catalogue.
type Permission struct {
	_              struct{} `json:"-" additionalProperties:"true"`
	Name           string   `json:"name"`
	Group          string   `json:"group,omitempty"`
	Title          string   `json:"title"`
	Description    string   `json:"description,omitempty"`
	Administrative bool     `json:"administrative,omitempty" doc:"No wildcard but * matches it."`
	Implies        []string `json:"implies,omitempty" nullable:"false"`
}

// Role is a named set of permissions.
type Role struct {
	_           struct{} `json:"-" additionalProperties:"true"`
	Name        string   `json:"name"`
	Permissions []string `json:"permissions" nullable:"false" doc:"As the policy has them."`
	Expanded    []string `json:"expanded" nullable:"false" doc:"All that they come to."`
}

// Plan says how much keys may do and how many there may be.
type Plan struct {
	_       struct{}        `json:"-" additionalProperties:"true"`
	Name    string          `json:"name"`
	Default bool            `json:"default,omitempty" doc:"Organizations get it for which nobody chose another."`
	Limits  []OverrideLimit `json:"limits" nullable:"false" doc:"None: unlimited."`
	// Concurrent is left out where any number may be in flight.
	Concurrent int64 `json:"concurrent,omitempty" doc:"Requests of one key in flight at the same time; left out: any number."`
	MaxKeys    *int  `json:"max_keys,omitempty" doc:"Active keys of an organization; left out: unlimited."`
}

// Items is a list that has one page.
type Items[T any] struct {
	_     struct{} `json:"-" additionalProperties:"true"`
	Items []T      `json:"items" nullable:"false"`
}

// Caller is who asks.
type Caller struct {
	_            struct{} `json:"-" additionalProperties:"true"`
	ID           string   `json:"id" doc:"Of the API key."`
	Name         string   `json:"name"`
	Account      string   `json:"account"`
	Operator     bool     `json:"operator" doc:"Acts in every organization."`
	Organization string   `json:"organization,omitempty" doc:"Id of the only one that the caller sees."`
	Space        string   `json:"space,omitempty" doc:"Id of the only one that the caller sees."`
	Permissions  []string `json:"permissions" nullable:"false" doc:"What the caller holds at its organization, or at the space that it is restricted to."`
}

func (h *handler) registerPolicy() {
	register(h, operation{
		method: http.MethodGet, path: "/v1/me", id: "get-caller", tag: "Instance", status: http.StatusOK,
		summary: "Say who asks, and what it may do", detail: "The key that the request carries, and what it holds. For every valid key.", example: exampleCaller,
	}, func(_ context.Context, by *call, _ *struct{}) (*body[Caller], error) {
		k, a := by.principal.Key, &by.actor.Authority
		return &body[Caller]{Caller{
			ID: k.ID, Name: k.Name, Account: k.Account, Operator: a.Operator, Organization: a.Organization, Space: a.Space,
			Permissions: append([]string{}, a.Names(a.Space)...),
		}}, nil
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/permissions", id: "list-permissions", tag: "Instance", status: http.StatusOK,
		summary: "List the policy's permissions", detail: "The catalogue: those of the policy file and those that are built in.", example: Items[Permission]{Items: []Permission{examplePermission}},
	}, func(_ context.Context, by *call, _ *struct{}) (*body[Items[Permission]], error) {
		out := Items[Permission]{Items: []Permission{}}
		for _, p := range h.Policy().Catalogue.Entries() {
			out.Items = append(out.Items, Permission{Name: p.Name, Group: p.Group, Title: p.Title, Description: p.Description, Administrative: p.Administrative, Implies: p.Implies})
		}
		return &body[Items[Permission]]{out}, nil
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/roles", id: "list-roles", tag: "Instance", status: http.StatusOK,
		summary: "List the policy's roles", detail: "With what each comes to.", example: Items[Role]{Items: []Role{exampleRole}},
	}, func(_ context.Context, by *call, _ *struct{}) (*body[Items[Role]], error) {
		policy, out := h.Policy(), Items[Role]{Items: []Role{}}
		for _, name := range slices.Sorted(maps.Keys(policy.Roles)) {
			held := policy.Roles[name]
			out.Items = append(out.Items, Role{Name: name, Permissions: append([]string{}, held...), Expanded: policy.Catalogue.Names(policy.Catalogue.Expand(held))})
		}
		return &body[Items[Role]]{out}, nil
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/plans", id: "list-plans", tag: "Instance", status: http.StatusOK,
		summary: "List the policy's plans", detail: "With the limits of each.", example: Items[Plan]{Items: []Plan{examplePlan}},
	}, func(_ context.Context, by *call, _ *struct{}) (*body[Items[Plan]], error) {
		policy, out := h.Policy(), Items[Plan]{Items: []Plan{}}
		for _, name := range slices.Sorted(maps.Keys(policy.Plans)) {
			out.Items = append(out.Items, planOf(policy.Plans[name], name == policy.DefaultPlan))
		}
		return &body[Items[Plan]]{out}, nil
	})
}

func planOf(p keys.Plan, standard bool) Plan {
	out := Plan{Name: p.Name, Default: standard, Concurrent: p.Concurrent, Limits: []OverrideLimit{}}
	out.Limits = append(out.Limits, limitsOf(keys.Overrides{Limits: p.Limits})...)
	if p.MaxKeys != keys.Unlimited {
		out.MaxKeys = &p.MaxKeys
	}
	return out
}
