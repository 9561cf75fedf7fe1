package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keygate/internal/keys"
)

const (
	// rememberFor is how long the answer to a request with an Idempotency-Key is kept.
	rememberFor = 24 * time.Hour
	// maxIdempotencyKey bounds the header, in bytes.
	maxIdempotencyKey = 255
	// waitFor is the longest that wait=replicas waits.
	waitFor = 2 * time.Second
)

// Outcome is what the answer to a change says about the change itself.
type Outcome struct {
	Replayed bool           `json:"replayed,omitempty" doc:"True where an Idempotency-Key was used before: this is the answer of then, without a secret."`
	Replicas []Confirmation `json:"replicas,omitempty" nullable:"false" doc:"With wait=replicas: which replicas have acted on the change."`

	version int64
}

func (o *Outcome) outcome() *Outcome { return o }

// Version is the one that the answer showed, as its ETag has it, for IfVersion; 0
// for what a list shows, and for a change that has none.
func (o *Outcome) Version() int64 { return o.version }

// Confirmation says whether a replica has acted on a change.
type Confirmation struct {
	_         struct{} `json:"-" additionalProperties:"true"`
	ID        string   `json:"id"`
	Name      string   `json:"name,omitempty" doc:"The host's name; for operators only."`
	Confirmed bool     `json:"confirmed" doc:"False: not within 2 s. It may be cut off, and then stops trusting what it remembers."`
}

// changes describes what all changes understand and returns their own errors.
func (h *handler) changes(o *huma.Operation) []int {
	text := func(most int) *huma.Schema {
		return &huma.Schema{Type: huma.TypeString, MinLength: new(1), MaxLength: &most}
	}
	var statuses []int
	o.Parameters = append(o.Parameters, &huma.Param{
		Name: "wait", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"replicas"}},
		Description: "replicas: answer only when all replicas have acted on the change, at most 2 s later; replicas lists which have.",
	})
	if versioned(o) {
		statuses = append(statuses, http.StatusPreconditionFailed)
		o.Parameters = append(o.Parameters, &huma.Param{
			Name: "If-Match", In: "header", Schema: text(100), Example: `"3"`,
			Description: "ETag of the version that the change is meant for; with another the answer is 412 and nothing is changed.",
		})
	}
	if o.Method == http.MethodPost {
		o.Parameters = append(o.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: text(maxIdempotencyKey),
			Description: "A name of the client's choice for this request. For 24 h a request with the same name, from the same API key, to the same operation is answered as the first one was, without its secret and with replayed: true; with another body it is refused (422).",
		})
	}
	return statuses
}

// versioned reports whether a change is made to something that has a version.
func versioned(o *huma.Operation) bool { return strings.Contains(o.Path, "{") }

// asks are the POSTs that change nothing.
var asks = map[string]bool{"explain": true, "test-key": true}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// prepare reads what a request says about the change that it asks for.
func (h *handler) prepare(by *call, o *huma.Operation) error {
	if asks[o.OperationID] { // there is no version to be at and nothing to wait for
		by.wait = false
		return nil
	}
	if o.Method == http.MethodGet {
		return nil
	}
	values := by.request.Header["If-Match"]
	if len(values) > 0 && !versioned(o) {
		return &parameterError{"If-Match", "is for a change of something that is there; this request makes something new"}
	}
	if len(values) > 0 {
		version, err := ifMatch(strings.Join(values, ","))
		if err != nil {
			return err
		}
		by.actor.If = version
	}
	names := by.request.Header["Idempotency-Key"]
	if len(names) == 0 {
		return nil
	}
	name := names[0]
	if len(names) > 1 || name == "" || len(name) > maxIdempotencyKey {
		return &parameterError{"Idempotency-Key", "must stand once and have 1 to " + strconv.Itoa(maxIdempotencyKey) + " characters"}
	}
	if o.Method != http.MethodPost {
		return &parameterError{"Idempotency-Key", "is understood with POST only; this request can be repeated as it is"}
	}
	by.remembered = &keys.Remembered{
		ID:     digest(by.actor.Key, o.OperationID, name),
		Digest: digest(by.request.URL.Path, string(bytes.TrimSpace(by.body))),
		Until:  h.Now().Add(rememberFor).UTC().Truncate(time.Microsecond),
	}
	by.actor.Remember = func(result any) (*keys.Remembered, error) {
		r, version := *by.remembered, int64(0)
		shown, version := h.show(result)
		body, err := json.Marshal(shown)
		if err != nil {
			return nil, err
		}
		r.Answer, err = json.Marshal(storedAnswer{o.DefaultStatus, version, body})
		return &r, err
	}
	return nil
}

// storedAnswer is what is kept of an answer.
type storedAnswer struct {
	Status  int             `json:"status"`
	Version int64           `json:"version,omitempty"`
	Body    json.RawMessage `json:"body"`
}

// ifMatch reads the version that a client wants to change; 0 for "*". What is
// not an ETag of ours matches no version.
func ifMatch(value string) (int64, error) {
	value = strings.TrimSpace(value)
	if value == "*" {
		return 0, nil
	}
	inner, ok := strings.CutPrefix(value, `"`)
	if ok {
		inner, ok = strings.CutSuffix(inner, `"`)
	}
	version, err := strconv.ParseInt(inner, 10, 64)
	if !ok || err != nil || version < 1 || value != etag(version) { // "+3" and "03" are no answer's
		return 0, &parameterError{"If-Match", `must be one ETag as an answer had it, such as "3", or *`}
	}
	return version, nil
}

// digest joins parts so that no two lists of parts are the same.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// replay answers a request as it was answered before.
func (h *handler) replay(ctx context.Context, by *call) (done bool, err error) {
	if by.remembered == nil {
		return false, nil
	}
	found, err := h.Service.Remembered(ctx, by.remembered.ID)
	switch {
	case errors.Is(err, keys.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case found.Digest != by.remembered.Digest:
		return false, &parameterError{"Idempotency-Key", "was used within the last 24 hours for another request: take another one"}
	}
	var a storedAnswer
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(found.Answer, &a); err != nil {
		return false, err
	}
	if err := json.Unmarshal(a.Body, &fields); err != nil {
		return false, err
	}
	fields["replayed"] = json.RawMessage("true")
	out, err := json.Marshal(fields)
	if err != nil {
		return false, err
	}
	header := by.writer.Header()
	header.Set("Content-Type", "application/json")
	if a.Version > 0 {
		header.Set("ETag", etag(a.Version))
	}
	by.writer.WriteHeader(a.Status)
	_, _ = by.writer.Write(append(out, '\n'))
	return true, nil
}

// confirm waits for the replicas, if the client wants it to, and fills in what
// an answer says about its change.
func (h *handler) confirm(ctx context.Context, by *call, out any) error {
	if !by.wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	replicas, err := h.Confirmed(ctx, by.seq)
	if err != nil && ctx.Err() == nil {
		h.Log.Warn("replicas could not be asked whether they acted on a change: " + err.Error())
	}
	shown := []Confirmation{}
	for _, r := range replicas {
		if !by.actor.Operator {
			r.Name = "" // how the operators call their hosts is none of a tenant's business
		}
		shown = append(shown, Confirmation{ID: r.ID, Name: r.Name, Confirmed: r.Confirmed})
	}
	if o, ok := out.(interface{ outcomeOf() *Outcome }); ok {
		o.outcomeOf().Replicas = shown
	}
	return nil
}

// outcomeOf finds the outcome in an answer's body, if it has one.
func (b *body[T]) outcomeOf() *Outcome {
	if o, ok := any(&b.Body).(interface{ outcome() *Outcome }); ok {
		return o.outcome()
	}
	return &Outcome{}
}

// deleted is the answer to a deletion: 204 without a body, 200 with one where
// the client waits for the replicas.
type deleted struct {
	Status int
	Body   Outcome
}

func (d *deleted) outcomeOf() *Outcome { return &d.Body }

func deletion(by *call, err error) (*deleted, error) {
	if by.wait {
		return &deleted{Status: http.StatusOK}, err
	}
	return &deleted{Status: http.StatusNoContent}, err
}
