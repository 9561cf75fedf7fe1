package admin

import (
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"keygate/internal/problem"
)

// requestIDHeader names a request in keygate's log and audit log.
const requestIDHeader = "X-Request-Id"

// headersOf lists the headers of a status that clients may rely on, each by its
// name among the components.
var headersOf = map[int][]string{
	http.StatusUnauthorized:         {"WWW-Authenticate"},
	http.StatusForbidden:            {"WWW-Authenticate"},
	http.StatusPreconditionFailed:   {"ETag"},
	http.StatusUnsupportedMediaType: {"Accept-Post"},
	http.StatusTooManyRequests:      {"Retry-After"},
	http.StatusServiceUnavailable:   {"Retry-After"},
}

// sharedHeaders describes the headers that answers of several operations have.
func sharedHeaders() map[string]*huma.Header {
	header := func(description, example string) *huma.Header {
		return &huma.Header{Description: description, Schema: &huma.Schema{Type: huma.TypeString}, Example: example}
	}
	always := func(h *huma.Header) *huma.Header {
		h.Required = true
		return h
	}
	seconds := &huma.Header{Description: "Whole seconds to wait.", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: new(1.0)}, Example: 1}
	return map[string]*huma.Header{
		requestIDHeader:    always(header("Names the request in keygate's log and audit log; it is always keygate's own.", exampleRequestID)),
		"ETag":             always(header("The present version, for If-Match.", `"3"`)),
		durableHeader:      header("Whether the change survives the process that keeps it; left out where nothing was changed.", "true"),
		"WWW-Authenticate": header("The challenge (RFC 6750); of a 403 where a permission is missing.", `Bearer realm="keygate", error="insufficient_scope", scope="keygate:keys-write"`),
		"Accept-Post":      always(header("The media type that a body must have.", "application/json")),
		"Retry-After":      always(seconds),
	}
}

// headers refers to shared ones.
func headers(names ...string) map[string]*huma.Header {
	out := map[string]*huma.Header{requestIDHeader: {Ref: "#/components/headers/" + requestIDHeader}}
	for _, name := range names {
		out[name] = &huma.Header{Ref: "#/components/headers/" + name}
	}
	return out
}

// describeErrors documents an operation's own errors and those of all.
func (h *handler) describeErrors(op *huma.Operation, own []int) {
	always := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
	for _, status := range append(always, own...) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Ref: "#/components/responses/" + responseName(status)}
	}
}

// responseName is the name of a status among the components, such as NotFound.
func responseName(status int) string { return strings.ReplaceAll(http.StatusText(status), " ", "") }

// sharedResponses describes all errors. They are the same for every operation.
func sharedResponses(schemas huma.Registry) map[string]*huma.Response {
	schema := schemas.Schema(reflect.TypeFor[problem.Problem](), true, "Problem")
	out := make(map[string]*huma.Response, len(errorMeaning))
	for status, meaning := range errorMeaning {
		out[responseName(status)] = &huma.Response{
			Description: meaning,
			Headers:     headers(headersOf[status]...),
			Content:     map[string]*huma.MediaType{problem.ContentType: {Schema: schema, Example: exampleProblem(status)}},
		}
	}
	return out
}

var errorMeaning = map[int]string{
	http.StatusBadRequest:            "The body is not JSON, the query cannot be parsed, or two credentials were sent.",
	http.StatusRequestTimeout:        "The body took longer than 10 s.",
	http.StatusUnauthorized:          "The API key is missing, invalid, revoked, paused or expired.",
	http.StatusForbidden:             "The API key lacks a permission, would hand on what it lacks, or may not be used from this address.",
	http.StatusNotFound:              "There is no such thing.",
	http.StatusConflict:              "The state of things does not allow it: a slug is taken, a plan's keys are used up, a key is revoked, something is in use.",
	http.StatusPreconditionFailed:    "If-Match names another version than the present one; ETag has that.",
	http.StatusRequestEntityTooLarge: "The body is larger than 1 MiB.",
	http.StatusUnsupportedMediaType:  "The body is not application/json.",
	http.StatusUnprocessableEntity:   "Fields, parameters or headers are wrong; errors lists them, of more than 100 the first 100.",
	http.StatusTooManyRequests:       "The API key sends more than 50 requests per second, or the keys of its organization look through more lists than that. Retry-After says when to try again.",
	http.StatusInternalServerError:   "A mistake in keygate. Its log has the cause under the request's id.",
	http.StatusServiceUnavailable:    "The store is out of reach; a change may or may not have been made. Retry-After says when to try again.",
}

// problemFields are what the members of a problem mean. Package problem carries
// no tags for huma.
var problemFields = map[string]string{
	"type":              "Left out: the problem means no more than its status.",
	"title":             "The status in words.",
	"status":            "The HTTP status.",
	"detail":            "What happened, and what to do about it.",
	"instance":          "The request, as a URN.",
	"request_id":        "The request, as in the header X-Request-Id.",
	"error":             "A fixed text for each kind of problem, for programs to compare.",
	"errors":            "The wrong fields.",
	"required":          "Permissions that are needed.",
	"granted":           "Permissions that the API key has.",
	"violated-policies": "Names of the limits that were hit.",
	"pointer":           "A JSON Pointer into the body, as a URI fragment; left out for parameters and headers.",
	"field":             "The field, parameter or header.",
}

// describeProblem fills in what package problem does not say of its types.
func describeProblem(schemas map[string]*huma.Schema) {
	for _, name := range []string{"Problem", "FieldError"} {
		schemas[name].AdditionalProperties = true
		for field, property := range schemas[name].Properties {
			property.Nullable = false
			property.Description = problemFields[field]
		}
	}
	schemas["FieldError"].Properties["detail"].Description = "What is wrong with it, and what is allowed."
}
