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
	Status    string    `json:"status,omitempty" enum:"active,paused,revoked,expired" doc:"Left out: active. An expired key has the past instant in expires."`
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
	Errors []problem.FieldError `json:"errors,omitempty" nullable:"false"`
}

type exportKeys struct {
	PageQuery
	Organization string `query:"organization" doc:"Id or slug: only keys of this organization."`
}

func (h *handler) registerMigration() {
	register(h, operation{
		method: http.MethodPost, path: "/v1/keys/import", id: "import-keys", tag: "Keys", status: http.StatusOK,
		summary: "Import keys by hash",
		detail:  "Those who hold the keys go on using them. Each key stands for itself: the report says of each what became of it, and a second import of the same keys changes nothing. Operators only.",
		errors:  []int{http.StatusConflict}, bodyExample: exampleImport, example: exampleImportReport,
	}, h.importKeys)
	register(h, operation{
		method: http.MethodGet, path: "/v1/keys/export", id: "export-keys", tag: "Keys", status: http.StatusOK,
		summary: "Export keys", detail: "In the form of an import, with the hash of the present secret. Operators only.",
		errors: []int{http.StatusNotFound}, example: Page[ImportedKey]{Items: []ImportedKey{exampleImportedKey}},
	}, h.exportKeys)
}

func (h *handler) importKeys(ctx context.Context, by *call, in *body[Import]) (*body[ImportReport], error) {
	batch := make([]keys.ImportedKey, len(in.Body.Keys))
	wrong := make([]error, len(in.Body.Keys))
	for i := range in.Body.Keys {
		k := &in.Body.Keys[i]
		n, err := newKey(&k.NewKey)
		wrong[i] = err
		batch[i] = keys.ImportedKey{NewKey: n, Hash: k.Hash, Prefix: k.Prefix, LastFour: k.LastFour, Status: k.Status, CreatedAt: k.CreatedAt}
	}
	for i, err := range wrong {
		if err != nil { // of the overrides, which only operators write by hand
			return nil, badField("keys["+itoa(i)+"]", "", err.Error())
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

func importItem(r keys.Imported) ImportItem {
	item := ImportItem{ID: r.Key}
	if r.Err == nil {
		return item
	}
	item.Detail = sentence(r.Err.Error())
	if invalid, ok := errors.AsType[*keys.InvalidError](r.Err); ok {
		item.Errors = fieldErrors(invalid)
	}
	return item
}

func (h *handler) exportKeys(ctx context.Context, by *call, in *exportKeys) (*body[Page[ImportedKey]], error) {
	now := h.Now()
	page, err := fill(in.PageQuery, func(p keys.Page) ([]keys.Key, string, error) {
		found, err := h.Service.ExportKeys(ctx, by.actor, keys.KeyFilter{Organization: in.Organization}, p)
		return found.Keys, found.Next, err
	}, func(k *keys.Key) ImportedKey { return exportOf(k, now) })
	return page, naming(err, "organization", "id or slug", in.Organization)
}

func exportOf(k *keys.Key, now time.Time) ImportedKey {
	shown := keyOf(k, now)
	out := ImportedKey{
		NewKey: NewKey{
			Name: k.Name, Description: k.Description, Organization: k.Organization, Space: k.Space, Account: k.Account,
			Permissions: shown.Permissions, AllowedCIDRs: shown.AllowedCIDRs, Plan: k.Plan, Overrides: shown.Overrides,
		},
		Hash: keys.HashText(k.Secrets[0].Hash), Prefix: shown.Prefix, LastFour: shown.LastFour, Status: shown.Status, CreatedAt: k.CreatedAt,
	}
	if !k.ExpiresAt.IsZero() {
		out.Expires = k.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	return out
}
