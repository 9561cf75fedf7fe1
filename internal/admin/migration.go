package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"keygate/internal/keys"
	"keygate/internal/problem"
)

// ImportedKey is a key that was made elsewhere: known by the SHA-256 of its
// whole string. An export has the same form.
type ImportedKey struct {
	NewKey
	Hash      string    `json:"hash" doc:"SHA-256 of the whole key: 64 hex digits, or base64."`
	Prefix    string    `json:"prefix,omitempty" doc:"What may be shown of its beginning."`
	LastFour  string    `json:"last_four,omitempty" doc:"What may be shown of its end."`
	Status    string    `json:"status,omitempty" doc:"active, paused, revoked or expired; left out: active. An expired key has the past instant in expires, a revoked one may have it."`
	Paused    bool      `json:"paused,omitempty" doc:"Of an expired key: it is paused once a rotation has brought it back."`
	Lifetime  string    `json:"lifetime,omitempty" doc:"How long expires was set for, such as 90d or 12h30m: a rotation of the expired key gives it that anew. Left out: from created_at to expires."`
	CreatedAt time.Time `json:"created_at,omitzero" doc:"When it was made elsewhere."`
}

// Form describes the strings of keys that were made elsewhere.
type Form struct {
	Prefix string `json:"prefix" doc:"What they start with: 3 to 32 characters."`
	Min    int    `json:"min" doc:"Least length of the whole key, at least 16."`
	Max    int    `json:"max" doc:"Greatest length of the whole key, at most 512."`
}

// Import is a number of keys to be imported.
type Import struct {
	Form *Form         `json:"form,omitempty" nullable:"false" doc:"What the keys look like, unless they have this instance's own form: the gate looks for no others."`
	Keys []ImportedKey `json:"keys" nullable:"false" maxItems:"1000"`
}

// KeyExport is a page of an export.
type KeyExport struct {
	Page[ImportedKey]
	LeftOut int `json:"left_out,omitempty" doc:"Keys of the instance's operators that were passed over: they belong to no organization, and another instance has its own."`
}

// ImportReport says what became of each key of an import.
type ImportReport struct {
	_        struct{}     `json:"-" additionalProperties:"true"`
	Imported int          `json:"imported"`
	Failed   int          `json:"failed"`
	Items    []ImportItem `json:"items" nullable:"false" doc:"One for each key, in the order of the request."`
	Outcome
}

// ImportItem is what became of one key.
type ImportItem struct {
	_      struct{}             `json:"-" additionalProperties:"true"`
	ID     string               `json:"id,omitempty" doc:"The new key's; left out where there is none."`
	Detail string               `json:"detail,omitempty" doc:"Why it was not imported."`
	Errors []problem.FieldError `json:"errors,omitempty" nullable:"false" doc:"The wrong fields, of more than 20 the first 20."`
}

type exportKeys struct {
	PageQuery
	Organization string `query:"organization" doc:"Id or slug: only keys of this organization."`
}

func (h *handler) registerMigration() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys/import", id: "import-keys", tag: "Keys", status: http.StatusOK,
		summary: "Import keys by hash",
		detail: "Those who hold the keys go on using them. Each key stands for itself: the report says of each what became of it, and a second import of the same keys changes nothing. " +
			"Only a body that is not of the described form, with a field of a wrong type or name, is refused as a whole. An account can also be given by a name that only one of the organization's accounts has. Operators only.",
		errors: []int{http.StatusConflict}, bodyExample: exampleImport, example: exampleImportReport,
	}, h.importKeys)
	register(h, operation{
		method: http.MethodGet, path: "/v1/keys/export", id: "export-keys", tag: "Keys", status: http.StatusOK,
		summary: "Export keys", detail: "In the form of an import, with the hash of the present secret. Organization and space are named by their slugs, an account by its name, or its id where several have the name or another organization manages it; left out: the organization's account default. " +
			"Keys of the instance's operators are left out. Operators only.",
		errors: []int{http.StatusNotFound}, example: KeyExport{Page: Page[ImportedKey]{Items: []ImportedKey{exampleImportedKey}}},
	}, h.exportKeys)
}

func (h *handler) importKeys(ctx context.Context, by *call, in *body[Import]) (*body[ImportReport], error) {
	batch := make([]keys.ImportedKey, len(in.Body.Keys))
	for i := range in.Body.Keys {
		k := &in.Body.Keys[i]
		batch[i] = keys.ImportedKey{
			NewKey: newKey(&k.NewKey), Hash: k.Hash, Prefix: k.Prefix, LastFour: k.LastFour,
			Status: k.Status, Paused: k.Paused, Lifetime: k.Lifetime, CreatedAt: k.CreatedAt,
		}
	}
	var form *keys.Form
	if f := in.Body.Form; f != nil {
		form = &keys.Form{Prefix: f.Prefix, Min: f.Min, Max: f.Max}
	}
	results, err := h.Service.ImportKeys(ctx, by.actor, form, batch)
	if err != nil {
		return nil, err
	}
	return &body[ImportReport]{reportOf(results)}, nil
}

func reportOf(results []keys.Imported) ImportReport {
	report := ImportReport{Items: make([]ImportItem, len(results))}
	for i, r := range results {
		report.Items[i] = importItem(r)
		if r.Err == nil {
			report.Imported++
		} else {
			report.Failed++
		}
	}
	return report
}

// mostItemFields bounds the wrong fields of one key in a report, which may have a
// thousand keys and must be no longer than a client reads.
const mostItemFields = 20

func importItem(r keys.Imported) ImportItem {
	item := ImportItem{ID: r.Key}
	if r.Err == nil {
		return item
	}
	if invalid, ok := errors.AsType[*keys.InvalidError](r.Err); ok {
		fields := fieldErrors(invalid)
		item.Detail, item.Errors = sentence(summary(fields)), fields[:min(mostItemFields, len(fields))]
		return item
	}
	item.Detail = sentence(r.Err.Error())
	return item
}

func (h *handler) exportKeys(ctx context.Context, by *call, in *exportKeys) (*body[KeyExport], error) {
	now, leftOut := h.Now(), 0
	page, err := fill(h, by, "export", in.PageQuery, func(p keys.Page) ([]keys.ExportedKey, string, error) {
		found, err := h.Service.ExportKeys(ctx, by.actor, keys.KeyFilter{Organization: in.Organization}, p)
		leftOut += found.LeftOut
		return found.Keys, found.Next, err
	}, func(k *keys.ExportedKey) ImportedKey { return exportOf(k, now) })
	if err != nil {
		return nil, naming(err, "organization", "id or slug", in.Organization)
	}
	return &body[KeyExport]{KeyExport{Page: page.Body, LeftOut: leftOut}}, nil
}

func exportOf(k *keys.ExportedKey, now time.Time) ImportedKey {
	shown := keyOf(&k.Key, now)
	out := ImportedKey{
		NewKey: NewKey{
			Name: k.Name, Description: k.Description, Organization: k.OrganizationSlug, Space: k.SpaceSlug, Account: k.Owner,
			Permissions: shown.Permissions, AllowedCIDRs: shown.AllowedCIDRs, Plan: k.Plan, Overrides: shown.Overrides,
		},
		Hash: keys.HashText(k.Secrets[0].Hash), Prefix: shown.Prefix, LastFour: shown.LastFour, Status: shown.Status, CreatedAt: k.CreatedAt,
		Paused: shown.Status == string(keys.Expired) && !k.PausedAt.IsZero(),
	}
	if !k.ExpiresAt.IsZero() {
		out.Expires = k.ExpiresAt.UTC().Format(time.RFC3339Nano)
		if k.Lifetime > 0 {
			out.Lifetime = k.Lifetime.String()
		}
	}
	return out
}
