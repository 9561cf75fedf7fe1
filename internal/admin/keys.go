package admin

import (
	"context"
	"net/http"
	"time"

	"keygate/internal/keys"
)

// Key is an API key as answers show it.
type Key struct {
	_            struct{}  `json:"-" additionalProperties:"true"`
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	Prefix       string    `json:"prefix" doc:"What the secret starts with."`
	LastFour     string    `json:"last_four" doc:"What the secret ends with."`
	Status       string    `json:"status" enum:"active,paused,expired,revoked"`
	Permissions  []string  `json:"permissions" nullable:"false" doc:"As they were given, wildcards included. What the key can do is also bounded by what its account holds."`
	Organization string    `json:"organization,omitempty" doc:"Id; left out for keys of the instance's operators."`
	Space        string    `json:"space,omitempty" doc:"Id of the space that the key is restricted to."`
	Account      string    `json:"account" doc:"Id of the account that owns the key."`
	AllowedCIDRs []string  `json:"allowed_cidrs" nullable:"false" doc:"Client addresses that may use the key; empty: all."`
	Plan         string    `json:"plan,omitempty" doc:"Set where the key has another plan than its organization."`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
	ExpiresAt    time.Time `json:"expires_at,omitzero" doc:"Left out: never."`
	PausedAt     time.Time `json:"paused_at,omitzero"`
	RevokedAt    time.Time `json:"revoked_at,omitzero"`
	LastUsedAt   time.Time `json:"last_used_at,omitzero"`
	RotatedAt    time.Time `json:"rotated_at,omitzero"`
}

// CreatedKey is a new key with its secret, which cannot be read again.
type CreatedKey struct {
	Key
	Secret string `json:"secret" doc:"The API key itself. It is shown here once and cannot be read again."`
}

// NewKey is what a key is made from. Only the name is needed.
type NewKey struct {
	Name         string   `json:"name" doc:"1 to 100 characters."`
	Description  string   `json:"description,omitempty" doc:"Up to 500 characters."`
	Organization string   `json:"organization,omitempty" doc:"Id or slug. Left out: that of the account, or default."`
	Space        string   `json:"space,omitempty" doc:"Id or slug of the space that the key is restricted to."`
	Account      string   `json:"account,omitempty" doc:"Id of the owner. Left out: the organization's account default."`
	Permissions  []string `json:"permissions,omitempty" doc:"Entries of the policy's catalogue or wildcards, within what the owner holds."`
	AllowedCIDRs []string `json:"allowed_cidrs,omitempty" doc:"Addresses and networks that may use the key; none: all."`
	Plan         string   `json:"plan,omitempty" doc:"A plan of the policy, other than the organization's."`
	Expires      string   `json:"expires,omitempty" doc:"never, days (30d), years (1y), a date (valid to the end of that day, UTC) or an instant (RFC 3339). Left out: never."`
}

func keyOf(k *keys.Key, now time.Time) Key {
	out := Key{
		ID: k.ID, Name: k.Name, Description: k.Description, Status: string(k.Status(now)),
		Permissions: append([]string{}, k.Permissions...), AllowedCIDRs: []string{},
		Organization: k.Organization, Space: k.Space, Account: k.Account, Plan: k.Plan,
		CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt, ExpiresAt: k.ExpiresAt, PausedAt: k.PausedAt,
		RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt, RotatedAt: k.RotatedAt,
	}
	if len(k.Secrets) > 0 {
		out.Prefix, out.LastFour = k.Secrets[0].Prefix, k.Secrets[0].LastFour
	}
	for _, p := range k.AllowedCIDRs {
		out.AllowedCIDRs = append(out.AllowedCIDRs, p.String())
	}
	return out
}

type keyPath struct {
	ID string `path:"id" example:"key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35" doc:"The key's id."`
}

type body[T any] struct{ Body T }

type createKey = body[NewKey]

type listKeys struct {
	PageQuery
	Organization string `query:"organization" doc:"Id or slug: only keys of this organization."`
	Name         string `query:"name" doc:"Only keys of exactly this name."`
}

func (h *handler) registerKeys() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys", id: "create-key", tag: "Keys", status: http.StatusCreated,
		summary: "Create a key",
		detail:  "The secret is in this answer and nowhere else.",
		errors:  []int{http.StatusConflict}, bodyExample: exampleNewKey, example: exampleCreatedKey,
	}, h.createKey)
	register(h, operation{
		method: http.MethodGet, path: "/v1/keys", id: "list-keys", tag: "Keys", status: http.StatusOK,
		summary: "List keys", detail: "Newest first.",
		errors: []int{http.StatusNotFound}, example: Page[Key]{Items: []Key{exampleKey}, Next: exampleCursor},
	}, h.listKeys)
	register(h, operation{
		method: http.MethodGet, path: "/v1/keys/{id}", id: "get-key", tag: "Keys", status: http.StatusOK,
		summary: "Get a key",
		errors:  []int{http.StatusNotFound}, example: exampleKey,
	}, func(ctx context.Context, _ *call, in *keyPath) (*body[Key], error) {
		k, err := h.Service.Read().Key(ctx, in.ID)
		return h.answerKey(k, err, in.ID)
	})
	register(h, operation{
		method: http.MethodDelete, path: "/v1/keys/{id}", id: "delete-key", tag: "Keys", status: http.StatusNoContent,
		summary: "Delete a key", detail: "For good: record and name are gone, and its secret is unknown from then on. To keep the record, revoke the key.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, by *call, in *keyPath) (*struct{}, error) {
		return &struct{}{}, naming(h.Service.DeleteKey(ctx, by.actor, in.ID), "key", "id", in.ID)
	})
	h.registerTransition("pause", "Pause a key", "Stops it at once until it is resumed. Pausing a paused key changes nothing.", examplePausedKey, h.Service.PauseKey)
	h.registerTransition("resume", "Resume a key", "Lets a paused key work again, if the plan still has room for it. Resuming an active key changes nothing.", exampleKey, h.Service.ResumeKey)
	h.registerTransition("revoke", "Revoke a key", "Ends it for good; its record stays. Revoking a revoked key changes nothing.", exampleRevokedKey, h.Service.RevokeKey)
}

func (h *handler) registerTransition(verb, summary, detail string, example Key, change func(context.Context, keys.Actor, string) (keys.Key, error)) {
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys/{id}/" + verb, id: verb + "-key", tag: "Keys", status: http.StatusOK,
		summary: summary, detail: detail,
		errors: []int{http.StatusNotFound, http.StatusConflict}, example: example,
	}, func(ctx context.Context, by *call, in *keyPath) (*body[Key], error) {
		k, err := change(ctx, by.actor, in.ID)
		return h.answerKey(k, err, in.ID)
	})
}

func (h *handler) answerKey(k keys.Key, err error, id string) (*body[Key], error) {
	if err != nil {
		return nil, naming(err, "key", "id", id)
	}
	return &body[Key]{keyOf(&k, h.Now())}, nil
}

func (h *handler) createKey(ctx context.Context, by *call, in *createKey) (*body[CreatedKey], error) {
	n := in.Body
	k, secret, err := h.Service.CreateKey(ctx, by.actor, keys.NewKey{
		Name: n.Name, Description: n.Description, Organization: n.Organization, Space: n.Space, Account: n.Account,
		Permissions: n.Permissions, AllowedCIDRs: n.AllowedCIDRs, Plan: n.Plan, Expires: n.Expires,
	})
	if err != nil {
		return nil, err
	}
	return &body[CreatedKey]{CreatedKey{Key: keyOf(&k, h.Now()), Secret: secret}}, nil
}

func (h *handler) listKeys(ctx context.Context, _ *call, in *listKeys) (*body[Page[Key]], error) {
	filter := keys.KeyFilter{Name: in.Name}
	if in.Organization != "" {
		o, err := h.organization(ctx, in.Organization)
		if err != nil {
			return nil, err
		}
		filter.Organization = o.ID
	}
	now := h.Now()
	return list(in.PageQuery, func(p keys.Page) ([]keys.Key, error) {
		page, err := h.Service.Read().Keys(ctx, filter, p)
		return page.Keys, err
	},
		func(k *keys.Key) (string, Key) { return k.ID, keyOf(k, now) })
}
