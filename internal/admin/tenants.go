package admin

import (
	"context"
	"net/http"
	"time"

	"keygate/internal/keys"
)

// Organization is a customer of the API.
type Organization struct {
	_         struct{}   `json:"-" additionalProperties:"true"`
	ID        string     `json:"id"`
	Slug      string     `json:"slug"`
	Name      string     `json:"name"`
	Plan      string     `json:"plan"`
	Overrides *Overrides `json:"overrides,omitempty" doc:"Terms negotiated for this organization."`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	Outcome
}

// NewOrganization is what an organization is made from.
type NewOrganization struct {
	Slug      string     `json:"slug" doc:"1 to 63 lower-case letters, digits and inner hyphens; unique."`
	Name      string     `json:"name,omitempty" doc:"Left out: the slug."`
	Plan      string     `json:"plan,omitempty" doc:"A plan of the policy. Left out: the default one."`
	Overrides *Overrides `json:"overrides,omitempty" nullable:"false" doc:"Terms negotiated for this organization."`
}

// OrganizationEdit says what to change. What is left out stays as it is.
type OrganizationEdit struct {
	Slug      *string    `json:"slug,omitempty" nullable:"false" doc:"Routes and clients that name the organization by its slug must follow. Operators only."`
	Name      *string    `json:"name,omitempty" nullable:"false"`
	Plan      *string    `json:"plan,omitempty" nullable:"false" doc:"Operators only."`
	Overrides *Overrides `json:"overrides,omitempty" nullable:"false" doc:"All of them; an empty object: none. Operators only."`
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
	Outcome
}

// NewSpace is what a space is made from.
type NewSpace struct {
	Organization string `json:"organization,omitempty" doc:"Id or slug. Left out: one's own; operators name one."`
	Slug         string `json:"slug" doc:"1 to 63 lower-case letters, digits and inner hyphens; unique in the organization."`
	Name         string `json:"name,omitempty" doc:"Left out: the slug."`
}

// SpaceEdit says what to change. What is left out stays as it is.
type SpaceEdit struct {
	Slug *string `json:"slug,omitempty" nullable:"false" doc:"Clients that name the space by its slug must follow."`
	Name *string `json:"name,omitempty" nullable:"false"`
}

func organizationOf(o *keys.Organization) Organization {
	return Organization{ID: o.ID, Slug: o.Slug, Name: o.Name, Plan: o.Plan, Overrides: overridesOf(o.Overrides), CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}
}

func spaceOf(s *keys.Space) Space {
	return Space{ID: s.ID, Organization: s.Organization, Slug: s.Slug, Name: s.Name, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt}
}

type organizationPath struct {
	Ref string `path:"ref" example:"acme" doc:"The organization's id or slug."`
}

type editOrganization struct {
	Ref  string `path:"ref" example:"acme" doc:"The organization's id or slug."`
	Body OrganizationEdit
}

type ofOrganization struct {
	PageQuery
	Organization string `query:"organization" doc:"Id or slug. Left out: one's own; operators name one."`
}

func answerOrganization(h *handler, by *call, o keys.Organization, err error, ref string) (*body[Organization], error) {
	if err != nil {
		return nil, naming(err, "organization", "id or slug", ref)
	}
	return &body[Organization]{shown[Organization](h, by, o)}, nil
}

func (h *handler) registerOrganizations() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/organizations", id: "create-organization", tag: "Organizations", status: http.StatusCreated, versioned: true,
		summary: "Create an organization",
		detail:  "It gets an account named default with the role owner, which owns keys for which no other account is named. Operators only.",
		errors:  []int{http.StatusConflict}, bodyExample: exampleNewOrganization, example: exampleOrganization,
	}, func(ctx context.Context, by *call, in *body[NewOrganization]) (*body[Organization], error) {
		o, err := h.Service.CreateOrganization(ctx, by.actor, keys.NewOrganization{Slug: in.Body.Slug, Name: in.Body.Name, Plan: in.Body.Plan, Overrides: in.Body.Overrides.domain()})
		return answerOrganization(h, by, o, err, in.Body.Slug)
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/organizations", id: "list-organizations", tag: "Organizations", status: http.StatusOK,
		summary: "List organizations", detail: "Newest first. Who is no operator sees one: its own.",
		example: Page[Organization]{Items: []Organization{exampleOrganization}},
	}, func(ctx context.Context, by *call, in *PageQuery) (*body[Page[Organization]], error) {
		return list(*in, func(p keys.Page) ([]keys.Organization, error) { return h.Service.Organizations(ctx, by.actor, p) },
			func(o *keys.Organization) (string, Organization) { return o.ID, organizationOf(o) })
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/organizations/{ref}", id: "get-organization", tag: "Organizations", status: http.StatusOK, versioned: true,
		summary: "Get an organization", detail: "Who is no operator sees its own.",
		errors: []int{http.StatusNotFound}, example: exampleOrganization,
	}, func(ctx context.Context, by *call, in *organizationPath) (*body[Organization], error) {
		o, err := h.Service.Organization(ctx, by.actor, in.Ref)
		return answerOrganization(h, by, o, err, in.Ref)
	})
	register(h, operation{
		method: http.MethodPatch, path: "/v1/organizations/{ref}", id: "edit-organization", tag: "Organizations", status: http.StatusOK, versioned: true,
		summary: "Edit an organization", detail: "Members with keygate:members may rename theirs; slug, plan and overrides are the operators'.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, bodyExample: exampleOrganizationEdit, example: exampleOrganization,
	}, func(ctx context.Context, by *call, in *editOrganization) (*body[Organization], error) {
		e := in.Body
		edit := keys.OrganizationEdit{Slug: e.Slug, Name: e.Name, Plan: e.Plan}
		if e.Overrides != nil {
			edit.Overrides = new(e.Overrides.domain())
		}
		o, err := h.Service.EditOrganization(ctx, by.actor, in.Ref, edit)
		return answerOrganization(h, by, o, err, in.Ref)
	})
	register(h, operation{
		method: http.MethodDelete, path: "/v1/organizations/{ref}", id: "delete-organization", tag: "Organizations", status: http.StatusNoContent,
		summary: "Delete an organization", detail: "It must have no keys, no spaces and no accounts but its own default. Operators only.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, by *call, in *organizationPath) (*deleted, error) {
		return deletion(by, naming(h.Service.DeleteOrganization(ctx, by.actor, in.Ref), "organization", "id or slug", in.Ref))
	})
}
