package admin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"keygate/internal/keys"
)

// KeyEdit says what to change of a key. What is left out stays as it is.
type KeyEdit struct {
	Name         *string    `json:"name,omitempty" nullable:"false"`
	Description  *string    `json:"description,omitempty" nullable:"false"`
	Permissions  *[]string  `json:"permissions,omitempty" nullable:"false" doc:"All that the key shall have."`
	AllowedCIDRs *[]string  `json:"allowed_cidrs,omitempty" nullable:"false" doc:"All that may use the key; an empty list: everybody."`
	Expires      *string    `json:"expires,omitempty" nullable:"false" doc:"As at creation; empty is refused."`
	Plan         *string    `json:"plan,omitempty" nullable:"false" doc:"An empty text: the organization's. Operators only."`
	Overrides    *Overrides `json:"overrides,omitempty" nullable:"false" doc:"All of them; an empty object: none. Operators only."`
}

// Rotation says how a key gets another secret.
type Rotation struct {
	Overlap string `json:"overlap,omitempty" doc:"How long the present secret goes on working, such as 24h or 7d, whole seconds, at most 30d. Left out: it stops at once."`
	Expires string `json:"expires,omitempty" doc:"A new expiry, as at creation. Left out: as it is; an expired key gets the lifetime that it had."`
}

type editKey struct {
	ID   string `path:"id" example:"key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35" doc:"The key's id."`
	Body KeyEdit
}

func (h *handler) editKey(ctx context.Context, by *call, in *editKey) (*body[Key], error) {
	e := in.Body
	edit := keys.KeyEdit{
		Name: e.Name, Description: e.Description, Permissions: e.Permissions, AllowedCIDRs: e.AllowedCIDRs, Expires: e.Expires, Plan: e.Plan,
	}
	if e.Overrides != nil {
		edit.Overrides = new(e.Overrides.domain())
	}
	k, err := h.Service.EditKey(ctx, by.actor, in.ID, edit)
	return h.answerKey(by, k, err, in.ID)
}

func (h *handler) registerLifecycle() {
	h.registerTransition("pause", "Pause a key", "Stops it at once until it is resumed. Pausing a paused key changes nothing.", examplePausedKey, h.Service.PauseKey)
	h.registerTransition("resume", "Resume a key", "Lets a paused key work again, if the plan still has room for it. Resuming an active key changes nothing.", exampleKey, h.Service.ResumeKey)
	h.registerTransition("revoke", "Revoke a key", "Ends it for good; its record stays. Revoking a revoked key changes nothing.", exampleRevokedKey, h.Service.RevokeKey)
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys/{id}/rotate", id: "rotate-key", tag: "Keys", status: http.StatusOK, versioned: true,
		summary: "Rotate a key",
		detail: "Gives it another secret, which is in this answer and nowhere else; id, history and budget stay. The former secret stops at once, or after the overlap; at most two work at a time. " +
			"An expired key comes back to life, without its former secrets. Needs keygate:keys-write; nobody gets the secret of a key that can do more than the one that asks.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, bodyExample: exampleRotation, optionalBody: true, example: exampleRotatedKey,
	}, h.rotateKey)
}

func (h *handler) registerTransition(verb, summary, detail string, example Key, change func(context.Context, keys.Actor, string) (keys.Key, error)) {
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys/{id}/" + verb, id: verb + "-key", tag: "Keys", status: http.StatusOK, versioned: true,
		summary: summary, detail: detail + " Needs keygate:keys-write.",
		errors: []int{http.StatusNotFound, http.StatusConflict}, example: example,
	}, func(ctx context.Context, by *call, in *keyPath) (*body[Key], error) {
		k, err := change(ctx, by.actor, in.ID)
		return h.answerKey(by, k, err, in.ID)
	})
}

type rotateKey struct {
	ID   string `path:"id" example:"key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35" doc:"The key's id."`
	Body *Rotation
}

func (h *handler) rotateKey(ctx context.Context, by *call, in *rotateKey) (*body[CreatedKey], error) {
	var r keys.Rotation
	if in.Body != nil {
		overlap, ok := parseOverlap(in.Body.Overlap)
		if !ok {
			return nil, badField("overlap", in.Body.Overlap, `must be a duration such as "24h" or "7d", at most "30d"`)
		}
		r = keys.Rotation{Overlap: overlap, Expires: in.Body.Expires}
	}
	k, secret, err := h.Service.RotateKey(ctx, by.actor, in.ID, r)
	if err != nil {
		if invalid, ok := errors.AsType[*keys.InvalidError](err); ok && in.Body != nil {
			for i := range invalid.Fields {
				if invalid.Fields[i].Field == "overlap" { // as it was given: 60d and not 1440h0m0s
					invalid.Fields[i].Value = in.Body.Overlap
				}
			}
		}
		return nil, naming(err, "key", "id", in.ID)
	}
	return &body[CreatedKey]{CreatedKey{Key: shown[Key](h, by, k), Secret: secret}}, nil
}

// parseOverlap reads a duration in Go's form, or whole days.
func parseOverlap(s string) (time.Duration, bool) {
	if s == "" || s == "0" {
		return 0, true
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// badField is an input that package keys never sees.
func badField(field, value, problem string) error {
	return &keys.InvalidError{Fields: []keys.FieldError{{Field: field, Value: value, Problem: problem}}}
}

// domain turns overrides into those of package keys.
func (o *Overrides) domain() keys.Overrides {
	if o == nil {
		return keys.Overrides{}
	}
	out := keys.Overrides{MaxKeys: o.MaxKeys}
	for _, l := range o.Limits {
		out.Add(l.Name, l.Requests, l.Per, l.Timezone, l.Shared)
	}
	return out
}
