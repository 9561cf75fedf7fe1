package admin

import (
	"context"
	"net/http"
	"time"

	"keygate/internal/keys"
)

// Organization is a customer of the API.
type Organization struct {
	_         struct{}  `json:"-" additionalProperties:"true"`
	ID        string    `json:"id"`
	Slug      string    `json:"slug"`
	Name      string    `json:"name"`
	Plan      string    `json:"plan"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// NewOrganization is what an organization is made from.
type NewOrganization struct {
	Slug string `json:"slug" doc:"1 to 63 lower-case letters, digits and inner hyphens; unique."`
	Name string `json:"name,omitempty" doc:"Left out: the slug."`
	Plan string `json:"plan,omitempty" doc:"A plan of the policy. Left out: the default one."`
}

// Space is a part of one organization.
type Space struct {
	_            struct{}  `json:"-" additionalProperties:"true"`
	ID           string    `json:"id"`
	Organization string    `json:"organization" doc:"Id."`
	Slug         string    `json:"slug"`
	Name         string    `json:"name"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
}

// NewSpace is what a space is made from.
type NewSpace struct {
	Organization string `json:"organization" doc:"Id or slug."`
	Slug         string `json:"slug" doc:"1 to 63 lower-case letters, digits and inner hyphens; unique in the organization."`
	Name         string `json:"name,omitempty" doc:"Left out: the slug."`
}

// Account is a person or a service user.
type Account struct {
	_            struct{}  `json:"-" additionalProperties:"true"`
	ID           string    `json:"id"`
	Organization string    `json:"organization,omitempty" doc:"Id of the organization that manages the account; left out for the instance's operators."`
	Name         string    `json:"name"`
	Email        string    `json:"email,omitempty"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
}

// Grant is a role that an account holds at an organization or one of its spaces.
type Grant struct {
	_            struct{} `json:"-" additionalProperties:"true"`
	ID           string   `json:"id"`
	Organization string   `json:"organization,omitempty" doc:"Id."`
	Space        string   `json:"space,omitempty" doc:"Id; left out: the whole organization."`
	Role         string   `json:"role,omitempty"`
}

// CreatedAccount is a new account with what it was granted.
type CreatedAccount struct {
	Account
	Grants []Grant `json:"grants" nullable:"false"`
}

// NewAccount is what an account and its first grant are made from.
type NewAccount struct {
	Name         string `json:"name" doc:"1 to 100 characters."`
	Email        string `json:"email,omitempty"`
	Organization string `json:"organization" doc:"Id or slug."`
	Space        string `json:"space,omitempty" doc:"Id or slug: the role is granted at this space only."`
	Role         string `json:"role" doc:"A role of the policy."`
}

func organizationOf(o *keys.Organization) Organization {
	return Organization{ID: o.ID, Slug: o.Slug, Name: o.Name, Plan: o.Plan, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}
}

func spaceOf(s *keys.Space) Space {
	return Space{ID: s.ID, Organization: s.Organization, Slug: s.Slug, Name: s.Name, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt}
}

func accountOf(a *keys.Account) Account {
	return Account{ID: a.ID, Organization: a.Organization, Name: a.Name, Email: a.Email, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt}
}

// organization resolves a reference in a path or a query, where one that does
// not exist is a missing resource.
func (h *handler) organization(ctx context.Context, ref string) (keys.Organization, error) {
	o, err := h.Service.Read().Organization(ctx, ref)
	return o, naming(err, "organization", "id or slug", ref)
}

type organizationPath struct {
	Ref string `path:"ref" example:"acme" doc:"The organization's id or slug."`
}

type ofOrganization struct {
	PageQuery
	Organization string `query:"organization" required:"true" doc:"Id or slug."`
}

func (h *handler) registerOrganizations() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/organizations", id: "create-organization", tag: "Organizations", status: http.StatusCreated,
		summary: "Create an organization",
		detail:  "It gets an account named default with the role owner, which owns keys for which no other account is named.",
		errors:  []int{http.StatusConflict}, bodyExample: exampleNewOrganization, example: exampleOrganization,
	}, func(ctx context.Context, by *call, in *body[NewOrganization]) (*body[Organization], error) {
		o, err := h.Service.CreateOrganization(ctx, by.actor, keys.NewOrganization{Slug: in.Body.Slug, Name: in.Body.Name, Plan: in.Body.Plan})
		return &body[Organization]{organizationOf(&o)}, err
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/organizations", id: "list-organizations", tag: "Organizations", status: http.StatusOK,
		summary: "List organizations", detail: "Newest first.",
		example: Page[Organization]{Items: []Organization{exampleOrganization}},
	}, func(ctx context.Context, _ *call, in *PageQuery) (*body[Page[Organization]], error) {
		return list(*in, func(p keys.Page) ([]keys.Organization, error) { return h.Service.Read().Organizations(ctx, p) },
			func(o *keys.Organization) (string, Organization) { return o.ID, organizationOf(o) })
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/organizations/{ref}", id: "get-organization", tag: "Organizations", status: http.StatusOK,
		summary: "Get an organization",
		errors:  []int{http.StatusNotFound}, example: exampleOrganization,
	}, func(ctx context.Context, _ *call, in *organizationPath) (*body[Organization], error) {
		o, err := h.organization(ctx, in.Ref)
		return &body[Organization]{organizationOf(&o)}, err
	})
}

func (h *handler) registerSpaces() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/spaces", id: "create-space", tag: "Spaces", status: http.StatusCreated,
		summary: "Create a space",
		errors:  []int{http.StatusConflict}, bodyExample: exampleNewSpace, example: exampleSpace,
	}, func(ctx context.Context, by *call, in *body[NewSpace]) (*body[Space], error) {
		s, err := h.Service.CreateSpace(ctx, by.actor, keys.NewSpace{Organization: in.Body.Organization, Slug: in.Body.Slug, Name: in.Body.Name})
		return &body[Space]{spaceOf(&s)}, err
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/spaces", id: "list-spaces", tag: "Spaces", status: http.StatusOK,
		summary: "List the spaces of an organization", detail: "Newest first.",
		errors: []int{http.StatusNotFound}, example: Page[Space]{Items: []Space{exampleSpace}},
	}, func(ctx context.Context, _ *call, in *ofOrganization) (*body[Page[Space]], error) {
		o, err := h.organization(ctx, in.Organization)
		if err != nil {
			return nil, err
		}
		return list(in.PageQuery, func(p keys.Page) ([]keys.Space, error) { return h.Service.Read().Spaces(ctx, o.ID, p) },
			func(s *keys.Space) (string, Space) { return s.ID, spaceOf(s) })
	})
}

func (h *handler) registerAccounts() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/accounts", id: "create-account", tag: "Accounts", status: http.StatusCreated,
		summary: "Create an account with one grant",
		errors:  []int{http.StatusConflict}, bodyExample: exampleNewAccount, example: exampleCreatedAccount,
	}, func(ctx context.Context, by *call, in *body[NewAccount]) (*body[CreatedAccount], error) {
		n := in.Body
		a, g, err := h.Service.CreateAccount(ctx, by.actor, keys.NewAccount{Name: n.Name, Email: n.Email, Organization: n.Organization, Space: n.Space, Role: n.Role})
		return &body[CreatedAccount]{CreatedAccount{
			Account: accountOf(&a),
			Grants:  []Grant{{ID: g.ID, Organization: g.Organization, Space: g.Space, Role: g.Role}},
		}}, err
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/accounts", id: "list-accounts", tag: "Accounts", status: http.StatusOK,
		summary: "List the accounts of an organization", detail: "Newest first.",
		errors: []int{http.StatusNotFound}, example: Page[Account]{Items: []Account{exampleAccount}},
	}, func(ctx context.Context, _ *call, in *ofOrganization) (*body[Page[Account]], error) {
		o, err := h.organization(ctx, in.Organization)
		if err != nil {
			return nil, err
		}
		return list(in.PageQuery, func(p keys.Page) ([]keys.Account, error) { return h.Service.Read().Accounts(ctx, o.ID, p) },
			func(a *keys.Account) (string, Account) { return a.ID, accountOf(a) })
	})
}
