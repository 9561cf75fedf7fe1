package admin

import (
	"context"
	"net/http"
	"time"

	"keygate/internal/keys"
)

// Account is a person or a service user, with what it was granted.
type Account struct {
	_            struct{}  `json:"-" additionalProperties:"true"`
	ID           string    `json:"id"`
	Organization string    `json:"organization,omitempty" doc:"Id of the organization that manages the account; left out for the instance's operators."`
	Name         string    `json:"name"`
	Email        string    `json:"email,omitempty"`
	Grants       []Grant   `json:"grants" nullable:"false" doc:"Those that the caller sees."`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
	Outcome
}

// Grant is a role or a permission that an account holds at an organization, at
// one of its spaces or at the instance.
type Grant struct {
	_            struct{}  `json:"-" additionalProperties:"true"`
	ID           string    `json:"id"`
	Organization string    `json:"organization,omitempty" doc:"Id; left out: the instance."`
	Space        string    `json:"space,omitempty" doc:"Id; left out: the whole organization."`
	Role         string    `json:"role,omitempty"`
	Permission   string    `json:"permission,omitempty"`
	CreatedAt    time.Time `json:"created_at"`
	Outcome
}

// NewAccount is what an account and its first grant are made from.
type NewAccount struct {
	Name         string `json:"name" doc:"1 to 100 characters."`
	Email        string `json:"email,omitempty"`
	Organization string `json:"organization,omitempty" doc:"Id or slug. Left out: one's own. Operators name one, but for an account with the permission keygate:operator, which belongs to none."`
	Space        string `json:"space,omitempty" doc:"Id or slug: what is granted holds at this space only."`
	Role         string `json:"role,omitempty" doc:"A role of the policy; either this or a permission."`
	Permission   string `json:"permission,omitempty" doc:"An entry of the policy's catalogue or a wildcard."`
}

// AccountEdit says what to change. What is left out stays as it is.
type AccountEdit struct {
	Name  *string `json:"name,omitempty" nullable:"false"`
	Email *string `json:"email,omitempty" nullable:"false"`
}

// NewGrant is what a grant is made from.
type NewGrant struct {
	Organization string `json:"organization,omitempty" doc:"Id or slug. Left out: the organization that manages the account."`
	Space        string `json:"space,omitempty" doc:"Id or slug; left out: the whole organization."`
	Role         string `json:"role,omitempty" doc:"A role of the policy; either this or a permission."`
	Permission   string `json:"permission,omitempty" doc:"An entry of the policy's catalogue or a wildcard."`
}

func accountOf(m *keys.Member) Account {
	a := m.Account
	out := Account{ID: a.ID, Organization: a.Organization, Name: a.Name, Email: a.Email, Grants: []Grant{}, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt}
	for i := range m.Grants {
		out.Grants = append(out.Grants, grantOf(&m.Grants[i]))
	}
	return out
}

func grantOf(g *keys.Grant) Grant {
	return Grant{ID: g.ID, Organization: g.Organization, Space: g.Space, Role: g.Role, Permission: g.Permission, CreatedAt: g.CreatedAt}
}

type accountPath struct {
	ID string `path:"id" example:"acc_01980c5e75c27e19a1f36b0d84e9c27a" doc:"The account's id."`
}

type editAccount struct {
	ID   string `path:"id" example:"acc_01980c5e75c27e19a1f36b0d84e9c27a" doc:"The account's id."`
	Body AccountEdit
}

type addGrant struct {
	ID   string `path:"id" example:"acc_01980c5e75c27e19a1f36b0d84e9c27a" doc:"The account's id."`
	Body NewGrant
}

type grantPath struct {
	ID    string `path:"id" example:"acc_01980c5e75c27e19a1f36b0d84e9c27a" doc:"The account's id."`
	Grant string `path:"grant" example:"grt_01980c5e75c37a52b8d41f7e06a39c51" doc:"The grant's id."`
}

func answerAccount(h *handler, by *call, m keys.Member, err error, id string) (*body[Account], error) {
	if err != nil {
		return nil, naming(err, "account", "id", id)
	}
	return &body[Account]{shown[Account](h, by, m)}, nil
}

func (h *handler) registerAccounts() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/accounts", id: "create-account", tag: "Accounts", status: http.StatusCreated, versioned: true,
		summary: "Create an account with one grant", detail: "Needs keygate:members; nobody grants what they lack.",
		errors: []int{http.StatusConflict}, bodyExample: exampleNewAccount, example: exampleAccount,
	}, func(ctx context.Context, by *call, in *body[NewAccount]) (*body[Account], error) {
		n := in.Body
		m, err := h.Service.CreateAccount(ctx, by.actor, keys.NewAccount{
			Name: n.Name, Email: n.Email, Organization: n.Organization,
			NewGrant: keys.NewGrant{Space: n.Space, Role: n.Role, Permission: n.Permission},
		})
		return answerAccount(h, by, m, err, "")
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/accounts", id: "list-accounts", tag: "Accounts", status: http.StatusOK,
		summary: "List the accounts that an organization manages", detail: "Newest first. An operator who names no organization sees the instance's operators. Needs keygate:members, keygate:keys-read or keygate:keys-write.",
		errors: []int{http.StatusNotFound}, example: Page[Account]{Items: []Account{exampleAccount}},
	}, func(ctx context.Context, by *call, in *ofOrganization) (*body[Page[Account]], error) {
		page, err := list("accounts", in.PageQuery, func(p keys.Page) ([]keys.Member, error) { return h.Service.Accounts(ctx, by.actor, in.Organization, p) },
			func(m *keys.Member) (string, Account) { return m.Account.ID, accountOf(m) })
		return page, naming(err, "organization", "id or slug", in.Organization)
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/accounts/{id}", id: "get-account", tag: "Accounts", status: http.StatusOK, versioned: true,
		summary: "Get an account", detail: "Its grants are those that the caller sees. One's own account needs any of this API's permissions; others keygate:members, keygate:keys-read or keygate:keys-write.",
		errors: []int{http.StatusNotFound}, example: exampleAccount,
	}, func(ctx context.Context, by *call, in *accountPath) (*body[Account], error) {
		m, err := h.Service.Account(ctx, by.actor, in.ID)
		return answerAccount(h, by, m, err, in.ID)
	})
	register(h, operation{
		method: http.MethodPatch, path: "/v1/accounts/{id}", id: "edit-account", tag: "Accounts", status: http.StatusOK, versioned: true,
		summary: "Edit an account", detail: "Needs keygate:members.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, bodyExample: exampleAccountEdit, example: exampleAccount,
	}, func(ctx context.Context, by *call, in *editAccount) (*body[Account], error) {
		m, err := h.Service.EditAccount(ctx, by.actor, in.ID, keys.AccountEdit{Name: in.Body.Name, Email: in.Body.Email})
		return answerAccount(h, by, m, err, in.ID)
	})
	register(h, operation{
		method: http.MethodDelete, path: "/v1/accounts/{id}", id: "delete-account", tag: "Accounts", status: http.StatusNoContent,
		summary: "Delete an account", detail: "It must own no keys; its grants go with it. Where it holds some at an organization that the caller does not see, only an operator deletes it. Needs keygate:members.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, by *call, in *accountPath) (*deleted, error) {
		return deletion(by, naming(h.Service.DeleteAccount(ctx, by.actor, in.ID), "account", "id", in.ID))
	})
}

func (h *handler) registerGrants() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/accounts/{id}/grants", id: "add-grant", tag: "Accounts", status: http.StatusCreated,
		summary: "Grant a role or a permission", detail: "All keys of the account may do at once what they were given and their owner lacked. Needs keygate:members; nobody grants what they lack.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, bodyExample: exampleNewGrant, example: exampleGrant,
	}, func(ctx context.Context, by *call, in *addGrant) (*body[Grant], error) {
		n := in.Body
		g, err := h.Service.AddGrant(ctx, by.actor, in.ID, keys.NewGrant{Organization: n.Organization, Space: n.Space, Role: n.Role, Permission: n.Permission})
		if err != nil {
			return nil, naming(err, "account", "id", in.ID)
		}
		return &body[Grant]{grantOf(&g)}, nil
	})
	register(h, operation{
		method: http.MethodDelete, path: "/v1/accounts/{id}/grants/{grant}", id: "remove-grant", tag: "Accounts", status: http.StatusNoContent,
		summary: "Take a grant away", detail: "All keys of the account lose at once what came from it. Needs keygate:members and what the grant gives.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, by *call, in *grantPath) (*deleted, error) {
		return deletion(by, naming(h.Service.RemoveGrant(ctx, by.actor, in.ID, in.Grant), "grant of the account", "id", in.Grant))
	})
}
