package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keygate/internal/keys"
)

const description = `Manages the keys of a keygate instance, and the organizations, spaces and accounts that they belong to.

Every request but the one for this description carries ` + "`Authorization: Bearer <key>`" + `. A key that holds ` + "`keygate:operator`" + ` acts in every organization.
Any other sees its own organization only, for which it needs ` + "`keygate:keys-read`, `keygate:keys-write`, `keygate:members` or `keygate:audit`" + `, and hands on nothing that it lacks; what belongs to others does not exist for it (404).
Errors are problem details (RFC 9457): ` + "`error`" + ` is a fixed text for each kind, ` + "`detail`" + ` says what to do, ` + "`errors`" + ` lists wrong fields.
A field that is not set is left out of an answer; lists are always there. Times are RFC 3339 in UTC. Answers may get further fields.`

const securityScheme = "apiKey"

func (h *handler) newAPI() huma.API {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	api := humago.New(h.mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "keygate management API", Version: h.Version, Description: description, License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}},
			Servers: []*huma.Server{{URL: "http://127.0.0.1:9090", Description: "Where keygate listens unless KEYGATE_ADMIN_ADDR says otherwise."}},
			Components: &huma.Components{
				Schemas:   registry,
				Responses: sharedResponses(registry),
				Headers:   sharedHeaders(),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					securityScheme: {Type: "http", Scheme: "bearer", Description: "An API key that holds keygate:operator or other permissions of the resource keygate."},
				},
			},
			Security: []map[string][]string{{securityScheme: {}}},
			Tags: []*huma.Tag{
				{Name: "Keys", Description: "What clients of the API send, and what each may do."},
				{Name: "Organizations", Description: "Customers of the API. Plan and number of keys belong to an organization."},
				{Name: "Spaces", Description: "Parts of one organization."},
				{Name: "Accounts", Description: "People and service users; they own keys, and hold roles."},
				{Name: "Questions", Description: "What the gate would do, and why. Nothing is sent and nothing is spent."},
				{Name: "Audit", Description: "Who did what."},
				{Name: "Instance", Description: "The instance: its policy and its replicas."},
			},
		},
		// huma looks for what follows the plus of application/problem+json.
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{problems},
	})
	api.UseMiddleware(readBody)
	return api
}

// durableHeader says of a change whether it survives the process that keeps it:
// false where a shared store has neither a log nor a second copy of it yet.
const durableHeader = "X-Keygate-Durable"

// operation is what there is to say about one besides its types.
type operation struct {
	method, path         string
	id, summary, detail  string
	tag                  string
	status               int   // of success
	errors               []int // those that are this operation's own
	example, bodyExample any
	optionalBody         bool
	versioned            bool // the answer has an ETag
	lines                bool // the answer is JSON lines
}

var errGoneMeanwhile = &keys.ConflictError{Detail: "something that the request refers to was deleted at this very moment: look at it again"}

// register adds an operation whose errors are the domain's.
func register[I, O any](h *handler, op operation, do func(ctx context.Context, by *call, in *I) (*O, error)) {
	o := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary, Description: op.detail,
		Tags: []string{op.tag}, DefaultStatus: op.status,
		Responses: map[string]*huma.Response{},
		// readBody has its own bound, which lets a body of just that size pass.
		MaxBodyBytes: -1, BodyReadTimeout: -1,
	}
	success := &huma.Response{Description: http.StatusText(op.status), Headers: headers()}
	if op.versioned {
		success.Headers = headers("ETag")
	}
	if op.example != nil {
		success.Content = map[string]*huma.MediaType{"application/json": {Example: op.example}}
	}
	if op.lines {
		success.Content = map[string]*huma.MediaType{"application/jsonl": {Schema: &huma.Schema{Type: huma.TypeString}, Example: op.example}}
	}
	o.Responses[strconv.Itoa(op.status)] = success
	if op.bodyExample != nil {
		o.RequestBody = &huma.RequestBody{Required: !op.optionalBody, Content: map[string]*huma.MediaType{"application/json": {Example: op.bodyExample}}}
		op.errors = append(op.errors, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if op.method != http.MethodGet && !asks[op.id] {
		success.Headers[durableHeader] = &huma.Header{Ref: "#/components/headers/" + durableHeader}
		op.errors = append(op.errors, h.changes(&o)...)
	}
	h.describeErrors(&o, op.errors)
	// What a body names and nobody has is a wrong field, so that only one that is
	// deleted while the request is under way gets as far as the store.
	creates := op.method == http.MethodPost && !strings.Contains(op.path, "{") && !asks[op.id]
	huma.Register(h.api, o, func(ctx context.Context, in *I) (*O, error) {
		by := callOf(ctx)
		by.actor.Applied = func(a keys.Applied) {
			by.seq = max(by.seq, a.Seq) // an import is several changes
			by.header.Set(durableHeader, strconv.FormatBool(a.Durable))
		}
		if err := h.prepare(by, &o); err != nil {
			return nil, by.fail(err)
		}
		if done, err := h.replay(ctx, by); err != nil {
			return nil, by.fail(err)
		} else if done {
			return nil, nil
		}
		out, err := do(ctx, by, in)
		if err != nil { // perhaps for the same request, sent twice, which was made meanwhile
			if done, _ := h.replay(ctx, by); done {
				return nil, nil
			}
		}
		if err == nil {
			err = h.confirm(ctx, by, out)
		}
		if creates && errors.Is(err, keys.ErrNotFound) {
			err = errGoneMeanwhile
		}
		if err != nil {
			return nil, by.fail(err)
		}
		return out, nil
	})
	if op.method == http.MethodDelete { // huma would describe a body of 204
		ok := o.Responses[strconv.Itoa(http.StatusNoContent)]
		o.Responses[strconv.Itoa(http.StatusOK)] = &huma.Response{Description: "Deleted; with wait=replicas.", Content: ok.Content, Headers: ok.Headers}
		for _, media := range ok.Content {
			media.Example = Outcome{Replicas: []Confirmation{{ID: exampleReplica.ID, Name: exampleReplica.Name, Confirmed: true}}}
		}
		ok.Content = nil
	}
}

// encodeSpec renders the description once: it does not change.
func encodeSpec(spec *huma.OpenAPI) []byte {
	// huma's own error types are registered whether or not anything uses them.
	schemas := spec.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	describeProblem(schemas)
	b, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		panic("admin: " + err.Error()) // our own types get here, and every start and test does
	}
	return append(b, '\n')
}
