package admin

import (
	"context"
	"net/http"
	"time"

	"keygate/internal/keys"
)

// Key is an API key as answers show it.
type Key struct {
	_           struct{} `json:"-" additionalProperties:"true"`
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Prefix      string   `json:"prefix" doc:"What the secret starts with."`
	LastFour    string   `json:"last_four" doc:"What the secret ends with."`
	Status      string   `json:"status" enum:"active,paused,expired,revoked"`
	Permissions []string `json:"permissions" nullable:"false" doc:"As they were given, wildcards included. What the key can do is also bounded by what its account holds."`
	// Titles are for people who look after keys and do not know the catalogue.
	Titles       map[string]string `json:"permission_titles,omitempty" nullable:"false" doc:"Titles of those permissions whose titles say more, by name."`
	Organization string            `json:"organization,omitempty" doc:"Id; left out for keys of the instance's operators."`
	Space        string            `json:"space,omitempty" doc:"Id of the space that the key is restricted to."`
	Account      string            `json:"account" doc:"Id of the account that owns the key."`
	AllowedCIDRs []string          `json:"allowed_cidrs" nullable:"false" doc:"Client addresses that may use the key; empty: all."`
	Plan         string            `json:"plan,omitempty" doc:"Set where the key has another plan than its organization."`
	Overrides    *Overrides        `json:"overrides,omitempty" doc:"Terms negotiated for this key."`
	Imported     bool              `json:"imported,omitempty" doc:"The secret was made elsewhere."`
	CreatedAt    time.Time         `json:"created_at"`
	UpdatedAt    time.Time         `json:"updated_at"`
	ExpiresAt    time.Time         `json:"expires_at,omitzero" doc:"Left out: never."`
	PausedAt     time.Time         `json:"paused_at,omitzero"`
	RevokedAt    time.Time         `json:"revoked_at,omitzero"`
	LastUsedAt   time.Time         `json:"last_used_at,omitzero"`
	RotatedAt    time.Time         `json:"rotated_at,omitzero"`
	Former       *FormerSecret     `json:"former_secret,omitempty" doc:"The secret before the present one."`
	Outcome
}

// FormerSecret is one that a rotation replaced.
type FormerSecret struct {
	_          struct{}  `json:"-" additionalProperties:"true"`
	Prefix     string    `json:"prefix"`
	LastFour   string    `json:"last_four"`
	CreatedAt  time.Time `json:"created_at"`
	EndsAt     time.Time `json:"ends_at" doc:"Until then it works beside the present one."`
	LastUsedAt time.Time `json:"last_used_at,omitzero" doc:"To a minute."`
}

// CreatedKey is a key with its new secret, which cannot be read again.
type CreatedKey struct {
	Key
	Secret string `json:"secret,omitempty" doc:"The API key itself. It is shown here once and cannot be read again; a replayed answer is without it."`
}

// Overrides are terms negotiated for one organization or key. They replace the
// plan's limits of the same name and add the others.
type Overrides struct {
	Limits  []OverrideLimit `json:"limits,omitempty" nullable:"false"`
	MaxKeys *int            `json:"max_keys,omitempty" nullable:"false" doc:"For an organization: number of active keys; -1 for unlimited."`
}

// OverrideLimit is one limit.
type OverrideLimit struct {
	Name     string `json:"name" doc:"1 to 32 letters, digits, '_', '-' and '.'."`
	Requests int64  `json:"requests" doc:"So many in any stretch of time as long as per, or in each day or month."`
	Per      string `json:"per" doc:"A duration of whole seconds such as 1m or 24h, or day or month."`
	Timezone string `json:"timezone,omitempty" doc:"Of a day or month, such as Europe/Zurich; left out: UTC."`
	Shared   bool   `json:"shared,omitempty" doc:"One budget for all keys of the organization."`
}

// NewKey is what a key is made from. Only the name is needed.
type NewKey struct {
	Name         string     `json:"name" doc:"1 to 100 characters."`
	Description  string     `json:"description,omitempty" doc:"Up to 500 characters."`
	Organization string     `json:"organization,omitempty" doc:"Id or slug. Left out: that of the account, or one's own, and for operators default."`
	Space        string     `json:"space,omitempty" doc:"Id or slug of the space that the key is restricted to."`
	Account      string     `json:"account,omitempty" doc:"Id of the owner. Left out: one's own account, and for operators the organization's account default."`
	Permissions  []string   `json:"permissions,omitempty" nullable:"false" doc:"Entries of the policy's catalogue or wildcards, within what the owner holds."`
	AllowedCIDRs []string   `json:"allowed_cidrs,omitempty" nullable:"false" doc:"Addresses and networks that may use the key; none: all."`
	Plan         string     `json:"plan,omitempty" doc:"A plan of the policy, other than the organization's. Operators only."`
	Overrides    *Overrides `json:"overrides,omitempty" nullable:"false" doc:"Terms negotiated for this key. Operators only."`
	Expires      string     `json:"expires,omitempty" doc:"never, days (30d), years (1y), a date (valid to the end of that day, UTC) or an instant (RFC 3339). Left out: never."`
}

// keyOf is the key with the titles that the policy in force gives its permissions.
func (h *handler) keyOf(k *keys.Key, now time.Time) Key {
	out := keyOf(k, now)
	out.Titles = h.Policy().Catalogue.Titles(k.Permissions)
	return out
}

func keyOf(k *keys.Key, now time.Time) Key {
	out := Key{
		ID: k.ID, Name: k.Name, Description: k.Description, Status: string(k.Status(now)),
		Permissions: append([]string{}, k.Permissions...), AllowedCIDRs: []string{},
		Organization: k.Organization, Space: k.Space, Account: k.Account, Plan: k.Plan,
		CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt, ExpiresAt: k.ExpiresAt, PausedAt: k.PausedAt,
		RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt, RotatedAt: k.RotatedAt,
	}
	out.Overrides = overridesOf(k.Overrides)
	if len(k.Secrets) > 0 {
		present := k.Secrets[0]
		out.Prefix, out.LastFour, out.Imported = present.Prefix, present.LastFour, present.Imported
	}
	if len(k.Secrets) > 1 {
		f := k.Secrets[1]
		out.Former = &FormerSecret{Prefix: f.Prefix, LastFour: f.LastFour, CreatedAt: f.CreatedAt, EndsAt: f.EndsAt, LastUsedAt: f.LastUsedAt}
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

type listKeys struct {
	PageQuery
	Organization string `query:"organization" doc:"Id or slug: only keys of this organization."`
	Space        string `query:"space" doc:"Id or slug: only keys restricted to this space of the organization."`
	Account      string `query:"account" doc:"Id: only keys that this account owns."`
	Name         string `query:"name" doc:"Only keys of exactly this name."`
	Q            string `query:"q" maxLength:"100" doc:"Only keys whose name contains this, in any letter case."`
	Status       string `query:"status" enum:"active,paused,expired,revoked" doc:"Only keys of this status."`
	UnusedDays   int    `query:"unused_days" minimum:"1" maximum:"36500" doc:"Only keys that were last used, or else made, so many days ago or earlier; longest unused first."`
	ExpiresDays  int    `query:"expires_days" minimum:"1" maximum:"36500" doc:"Only keys that will expire within so many days; soonest first."`
}

func (h *handler) registerKeys() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys", id: "create-key", tag: "Keys", status: http.StatusCreated, versioned: true,
		summary: "Create a key",
		detail:  "The secret is in this answer and nowhere else. Needs keygate:keys-write; no permission can be given that the caller or the owner lacks.",
		errors:  []int{http.StatusConflict}, bodyExample: exampleNewKey, example: exampleCreatedKey,
	}, h.createKey)
	register(h, operation{
		method: http.MethodGet, path: "/v1/keys", id: "list-keys", tag: "Keys", status: http.StatusOK,
		summary: "List keys", detail: "Newest first, unless a filter says otherwise. Needs keygate:keys-read or keygate:keys-write. A page can be shorter than asked for, even empty, and still have a next one.",
		errors: []int{http.StatusNotFound}, example: Page[Key]{Items: []Key{exampleKey}, Next: exampleCursor},
	}, h.listKeys)
	register(h, operation{
		method: http.MethodGet, path: "/v1/keys/{id}", id: "get-key", tag: "Keys", status: http.StatusOK, versioned: true,
		summary: "Get a key", detail: "Without its secret, which nobody can read again. A key that holds any of this API's permissions sees itself; others need keygate:keys-read or keygate:keys-write.",
		errors: []int{http.StatusNotFound}, example: exampleKey,
	}, func(ctx context.Context, by *call, in *keyPath) (*body[Key], error) {
		k, err := h.Service.Key(ctx, by.actor, in.ID)
		return h.answerKey(by, k, err, in.ID)
	})
	register(h, operation{
		method: http.MethodPatch, path: "/v1/keys/{id}", id: "edit-key", tag: "Keys", status: http.StatusOK, versioned: true,
		summary: "Edit a key", detail: "Fields that are left out stay as they are. A revoked key cannot be edited, nor the expiry of an expired one: rotate it. Needs keygate:keys-write, and nothing can be given that the caller or the owner lacks. A key that is no operator's puts off neither its own expiry nor allows itself more addresses.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, bodyExample: exampleKeyEdit, example: exampleKey,
	}, h.editKey)
	register(h, operation{
		method: http.MethodDelete, path: "/v1/keys/{id}", id: "delete-key", tag: "Keys", status: http.StatusNoContent,
		summary: "Delete a key", detail: "For good: record and name are gone, and its secret is unknown from then on. To keep the record, revoke the key. Needs keygate:keys-write.",
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, by *call, in *keyPath) (*deleted, error) {
		return deletion(by, naming(h.Service.DeleteKey(ctx, by.actor, in.ID), "key", "id", in.ID))
	})
}

func (h *handler) answerKey(by *call, k keys.Key, err error, id string) (*body[Key], error) {
	if err != nil {
		return nil, naming(err, "key", "id", id)
	}
	return &body[Key]{shown[Key](h, by, k)}, nil
}

func (h *handler) createKey(ctx context.Context, by *call, in *body[NewKey]) (*body[CreatedKey], error) {
	k, secret, err := h.Service.CreateKey(ctx, by.actor, newKey(&in.Body))
	if err != nil {
		return nil, err
	}
	return &body[CreatedKey]{CreatedKey{Key: shown[Key](h, by, k), Secret: secret}}, nil
}

func newKey(n *NewKey) keys.NewKey {
	return keys.NewKey{
		Name: n.Name, Description: n.Description, Organization: n.Organization, Space: n.Space, Account: n.Account,
		Permissions: n.Permissions, AllowedCIDRs: n.AllowedCIDRs, Plan: n.Plan, Overrides: n.Overrides.domain(), Expires: n.Expires,
	}
}

func (h *handler) listKeys(ctx context.Context, by *call, in *listKeys) (*body[Page[Key]], error) {
	now := h.Now()
	filter := keys.KeyFilter{
		Organization: in.Organization, Space: in.Space, Account: in.Account, Name: in.Name, Query: in.Q, Status: keys.Status(in.Status),
	}
	if in.UnusedDays > 0 {
		filter.UnusedSince = now.AddDate(0, 0, -in.UnusedDays)
	}
	if in.ExpiresDays > 0 {
		filter.ExpiresBefore = now.AddDate(0, 0, in.ExpiresDays)
	}
	page, err := fill(h, by, "keys", in.PageQuery, func(p keys.Page) ([]keys.Key, string, error) {
		found, err := h.Service.Keys(ctx, by.actor, filter, p)
		return found.Keys, found.Next, err
	}, func(k *keys.Key) Key { return h.keyOf(k, now) })
	return page, h.namingPlace(err, in.Organization, in.Space)
}

// namingPlace says which of the two that a query names is not there.
func (h *handler) namingPlace(err error, organization, space string) error {
	if space != "" {
		return naming(err, "space of the organization", "id or slug", space)
	}
	return naming(err, "organization", "id or slug", organization)
}
