package admin

import (
	"context"
	"net/http"

	"keygate/internal/keys"
)

type spacePath struct {
	Ref          string `path:"ref" example:"research" doc:"The space's id or slug."`
	Organization string `query:"organization" doc:"Id or slug. Left out: one's own; operators name one."`
}

type editSpace struct {
	Ref          string `path:"ref" example:"research" doc:"The space's id or slug."`
	Organization string `query:"organization" doc:"Id or slug. Left out: one's own; operators name one."`
	Body         SpaceEdit
}

func answerSpace(h *handler, by *call, s keys.Space, err error, ref string) (*body[Space], error) {
	if err != nil {
		return nil, naming(err, "space of the organization", "id or slug", ref)
	}
	return &body[Space]{shown[Space](h, by, s)}, nil
}

func (h *handler) registerSpaces() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/spaces", id: "create-space", tag: "Spaces", status: http.StatusCreated, versioned: true,
		summary: "Create a space", detail: "Needs keygate:members.",
		errors: []int{http.StatusConflict}, bodyExample: exampleNewSpace, example: exampleSpace,
	}, func(ctx context.Context, by *call, in *body[NewSpace]) (*body[Space], error) {
		s, err := h.Service.CreateSpace(ctx, by.actor, keys.NewSpace{Organization: in.Body.Organization, Slug: in.Body.Slug, Name: in.Body.Name})
		return answerSpace(h, by, s, err, in.Body.Slug)
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/spaces", id: "list-spaces", tag: "Spaces", status: http.StatusOK,
		summary: "List the spaces of an organization", detail: "Newest first.",
		errors: []int{http.StatusNotFound}, example: Page[Space]{Items: []Space{exampleSpace}},
	}, func(ctx context.Context, by *call, in *ofOrganization) (*body[Page[Space]], error) {
		if err := in.named(by); err != nil {
			return nil, err
		}
		page, err := list("spaces", in.PageQuery, func(p keys.Page) ([]keys.Space, error) { return h.Service.Spaces(ctx, by.actor, in.Organization, p) },
			func(s *keys.Space) (string, Space) { return s.ID, spaceOf(s) })
		return page, naming(err, "organization", "id or slug", in.Organization)
	})
	register(h, operation{
		method: http.MethodGet, path: "/v1/spaces/{ref}", id: "get-space", tag: "Spaces", status: http.StatusOK, versioned: true,
		summary: "Get a space", detail: "A key that is restricted to a space sees that one only.",
		errors: []int{http.StatusNotFound}, example: exampleSpace,
	}, func(ctx context.Context, by *call, in *spacePath) (*body[Space], error) {
		s, err := h.Service.Space(ctx, by.actor, in.Organization, in.Ref)
		return answerSpace(h, by, s, err, in.Ref)
	})
	register(h, operation{
		method: http.MethodPatch, path: "/v1/spaces/{ref}", id: "edit-space", tag: "Spaces", status: http.StatusOK, versioned: true,
		summary: "Edit a space", detail: "Needs keygate:members.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, bodyExample: exampleSpaceEdit, example: exampleSpace,
	}, func(ctx context.Context, by *call, in *editSpace) (*body[Space], error) {
		s, err := h.Service.EditSpace(ctx, by.actor, in.Organization, in.Ref, keys.SpaceEdit{Slug: in.Body.Slug, Name: in.Body.Name})
		return answerSpace(h, by, s, err, in.Ref)
	})
	register(h, operation{
		method: http.MethodDelete, path: "/v1/spaces/{ref}", id: "delete-space", tag: "Spaces", status: http.StatusNoContent,
		summary: "Delete a space", detail: "Neither keys nor grants may be restricted to it. Needs keygate:members.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, by *call, in *spacePath) (*deleted, error) {
		return deletion(by, naming(h.Service.DeleteSpace(ctx, by.actor, in.Organization, in.Ref), "space of the organization", "id or slug", in.Ref))
	})
}

// named wants an operator, who belongs to no organization, to name one.
func (o *ofOrganization) named(by *call) error {
	if o.Organization == "" && by.actor.Operator {
		return &parameterError{"organization", "is required: an organization's id or slug"}
	}
	return nil
}
