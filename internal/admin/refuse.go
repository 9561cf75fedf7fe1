package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/internal/problem"
)

// errorText is the fixed text of each status that this API itself gives; auth
// has those of refused credentials.
var errorText = map[int]string{
	http.StatusBadRequest:            "Malformed request",
	http.StatusNotFound:              "Not found",
	http.StatusMethodNotAllowed:      "Method not allowed",
	http.StatusRequestTimeout:        "Request timeout",
	http.StatusConflict:              "Conflict",
	http.StatusPreconditionFailed:    "Changed meanwhile",
	http.StatusRequestEntityTooLarge: "Request body too large",
	http.StatusUnsupportedMediaType:  "Unsupported media type",
	http.StatusUnprocessableEntity:   "Invalid input",
	http.StatusTooManyRequests:       "Rate limit exceeded",
	http.StatusInternalServerError:   "Internal error",
	http.StatusServiceUnavailable:    "Temporarily unavailable",
}

// retryUnavailable is the Retry-After of a 503, in seconds.
const retryUnavailable = "1"

func (c *call) problem(status int, detail string) *problem.Problem {
	return &problem.Problem{
		Title:     http.StatusText(status),
		Status:    status,
		Detail:    detail,
		Instance:  "urn:uuid:" + c.id,
		RequestID: c.id,
		Error:     errorText[status],
	}
}

func (c *call) write(w http.ResponseWriter, status int, detail string) {
	problem.Write(w, c.problem(status, detail))
}

// refuse answers what authentication refused.
func (c *call) refuse(w http.ResponseWriter, refusal *auth.Refusal, realm string, r *http.Request) {
	a := refusal.Answer(realm, r.Method+" "+r.URL.Path)
	c.err = refusal.Err
	if a.Challenge != "" {
		w.Header().Set("WWW-Authenticate", a.Challenge)
	}
	if a.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryUnavailable)
	}
	p := c.problem(a.Status, a.Detail)
	if a.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.FormatInt(refusal.RetryAfter, 10))
		p.Type, p.ViolatedPolicies = problem.TypeQuotaExceeded, []string{"address"}
	}
	p.Error, p.Required, p.Granted = a.Error, refusal.Required, refusal.Granted
	problem.Write(w, p)
}

// missingError says what was not found.
type missingError struct{ kind, by, ref string }

func (e *missingError) Error() string {
	if ref := []rune(e.ref); len(ref) > 100 {
		return fmt.Sprintf("no %s has this %s", e.kind, e.by)
	}
	return fmt.Sprintf("no %s has the %s %q", e.kind, e.by, e.ref)
}

func (e *missingError) Unwrap() error { return keys.ErrNotFound }

// naming tells what was asked for where it does not exist.
func naming(err error, kind, by, ref string) error {
	if errors.Is(err, keys.ErrNotFound) {
		return &missingError{kind, by, ref}
	}
	return err
}

// failure is a problem on its way through huma, which asks errors for their
// status, headers and content type.
type failure struct{ *problem.Problem }

func (f failure) Error() string             { return f.Detail }
func (f failure) GetStatus() int            { return f.Status }
func (f failure) ContentType(string) string { return problem.ContentType }

// GetHeaders belong to the status.
func (f failure) GetHeaders() http.Header {
	if f.Status == http.StatusServiceUnavailable {
		return http.Header{"Retry-After": {retryUnavailable}}
	}
	return nil
}

// fail is the one place where a domain error gets a status.
func (c *call) fail(err error) failure {
	var (
		invalid *keys.InvalidError
		missing *missingError
		exists  *keys.ExistsError
		state   *keys.StateError
		tooMany *keys.TooManyKeysError
		query   *parameterError
		version *keys.VersionError
		inUse   *keys.InUseError
		other   *keys.ConflictError
		many    *tooManyError
	)
	if forbidden, ok := errors.AsType[*keys.ForbiddenError](err); ok {
		return c.forbidden(forbidden)
	}
	switch {
	case errors.As(err, &many):
		return failure{c.tooMany(many.seconds(), many.Error())}
	case errors.As(err, &version):
		c.header.Set("ETag", etag(version.Version))
		return failure{c.problem(http.StatusPreconditionFailed, "Somebody changed the "+version.Kind+" since it was read: its version is "+etag(version.Version)+" by now. Look at it again and decide anew.")}
	case errors.Is(err, keys.ErrCursor):
		return failure{c.invalid([]problem.FieldError{{Field: "cursor", Detail: badCursor}})}
	case errors.As(err, &invalid):
		return failure{c.invalid(fieldErrors(invalid))}
	case errors.As(err, &query):
		return failure{c.invalid([]problem.FieldError{{Field: query.name, Detail: query.detail}})}
	case errors.As(err, &missing):
		return failure{c.problem(http.StatusNotFound, sentence(missing.Error()))}
	case errors.Is(err, keys.ErrNotFound):
		return failure{c.problem(http.StatusNotFound, "Something that the request refers to does not exist any more.")}
	case errors.Is(err, keys.ErrConflict):
		return failure{c.problem(http.StatusConflict, "Somebody else changed the same thing at the same time. Look at it again and retry.")}
	case errors.As(err, &exists) && exists.Kind == "request":
		return failure{c.problem(http.StatusConflict, "A request with this Idempotency-Key was answered at this very moment. Send it again to get that answer.")}
	case errors.As(err, &exists), errors.As(err, &state), errors.As(err, &tooMany), errors.As(err, &inUse), errors.As(err, &other):
		return failure{c.problem(http.StatusConflict, sentence(err.Error()))}
	}
	c.err = err
	detail := "The store could not be asked at the moment. Try again shortly."
	if !strings.HasPrefix(c.route, http.MethodGet+" ") {
		detail = "The store did not confirm the change. Whether it was made is not known: look before repeating it."
	}
	return failure{c.problem(http.StatusServiceUnavailable, detail)}
}

// tooMany answers where the one limit of this API is reached.
func (c *call) tooMany(seconds int64, detail string) *problem.Problem {
	c.header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	p := c.problem(http.StatusTooManyRequests, detail)
	p.Type, p.ViolatedPolicies = problem.TypeQuotaExceeded, []string{managementLimit}
	return p
}

// mostFields bounds the wrong fields that an answer lists.
const mostFields = 100

// invalid answers wrong fields.
func (c *call) invalid(fields []problem.FieldError) *problem.Problem {
	p := c.problem(http.StatusUnprocessableEntity, summary(fields))
	p.Errors = fields[:min(mostFields, len(fields))]
	return p
}

// summary says in a sentence what is wrong with fields.
func summary(fields []problem.FieldError) string {
	const most = 3 // the list has more
	var parts []string
	for _, f := range fields[:min(most, len(fields))] {
		parts = append(parts, f.Field+": "+f.Detail)
	}
	detail := strings.Join(parts, "; ")
	if more := len(fields) - most; more > 0 {
		detail += fmt.Sprintf("; and %d more", more)
	}
	return detail + "."
}

// scopes lists permissions for a header, as many as fit in what any proxy passes on; the
// body has all.
func scopes(permissions []string) string {
	const most = 1024 // bytes
	list := strings.Join(permissions, " ")
	if len(list) > most {
		list = list[:strings.LastIndexByte(list[:most+1], ' ')]
	}
	return list
}

// forbidden says what the actor lacks.
func (c *call) forbidden(err *keys.ForbiddenError) failure {
	p := c.problem(http.StatusForbidden, "Insufficient permissions for operation "+c.route+": "+strings.TrimSuffix(err.Detail, ".")+".")
	p.Error = "Insufficient permissions"
	p.Required, p.Granted = err.Required, err.Granted
	if len(err.Required) > 0 {
		c.header.Set("WWW-Authenticate", `Bearer realm="`+c.realm+`", error="insufficient_scope", scope="`+scopes(err.Required)+`"`)
	}
	if len(err.Fields) > 0 {
		p.Errors = fieldErrors(&keys.InvalidError{Fields: err.Fields})
	}
	return failure{p}
}

func fieldErrors(err *keys.InvalidError) []problem.FieldError {
	fields := make([]problem.FieldError, len(err.Fields))
	for i, f := range err.Fields {
		detail := f.Problem
		if given := strconv.Quote(f.Value); f.Value != "" && !strings.Contains(detail, given) {
			detail += " (given: " + given + ")"
		}
		fields[i] = problem.FieldError{Pointer: pointer(f.Field), Field: f.Field, Detail: detail}
	}
	return fields
}

// pointer is the JSON Pointer (RFC 6901) of "allowed_cidrs[2]" as a URI fragment.
func pointer(field string) string {
	path := strings.NewReplacer("~", "~0", "/", "~1", "[", "/", "]", "", ".", "/").Replace(field)
	return "#/" + strings.ReplaceAll(url.PathEscape(path), "%2F", "/")
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	if c := s[0]; 'a' <= c && c <= 'z' {
		s = string(c-'a'+'A') + s[1:]
	}
	return strings.TrimSuffix(s, ".") + "."
}

// problems puts every error body, huma's own too, into the one form.
func problems(ctx huma.Context, _ string, v any) (any, error) {
	switch e := v.(type) {
	case failure:
		return e.Problem, nil
	case *huma.ErrorModel:
		return callOf(ctx.Context()).ofHuma(e), nil
	}
	return v, nil
}
