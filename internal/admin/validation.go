package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"keygate/internal/problem"
)

// ofHuma translates what huma found wrong with an input. Bodies are read and
// checked to be JSON before it sees them (readBody), so what is left are wrong
// types, unknown fields and parameters; anything else is a mistake of ours.
func (c *call) ofHuma(e *huma.ErrorModel) *problem.Problem {
	if e.Status != http.StatusUnprocessableEntity {
		c.err = fmt.Errorf("huma answered %d: %s", e.Status, e.Detail)
		return c.problem(e.Status, panicDetail)
	}
	fields := make([]problem.FieldError, len(e.Errors))
	for i, d := range e.Errors {
		fields[i] = wrongField(d)
	}
	slices.SortStableFunc(fields, func(a, b problem.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return c.invalid(fields)
}

func wrongField(d *huma.ErrorDetail) problem.FieldError {
	source, field, _ := strings.Cut(d.Location, ".")
	detail, ok := plainText[d.Message]
	if !ok {
		detail = d.Message
	}
	var name string
	if _, err := fmt.Sscanf(d.Message, validation.MsgExpectedRequiredProperty, &name); err == nil {
		field, detail = strings.Trim(field+"."+name, "."), "is required"
	}
	var bound int
	if _, err := fmt.Sscanf(d.Message, validation.MsgExpectedMinimumNumber, &bound); err == nil {
		detail = fmt.Sprintf("must be %d or more", bound)
	}
	if _, err := fmt.Sscanf(d.Message, validation.MsgExpectedMaximumNumber, &bound); err == nil {
		detail = fmt.Sprintf("must be %d or less", bound)
	}
	if strings.HasPrefix(d.Message, "invalid date/time for format") {
		detail = `must be an instant as in RFC 3339, such as "2031-05-31T12:00:00Z"`
	}
	f := problem.FieldError{Field: field, Detail: detail}
	switch {
	case source == "body" && field == "":
		f.Pointer, f.Field = "#", "the body"
	case source == "body":
		f.Pointer = pointer(field)
	}
	return f
}

// plainText are huma's messages in the words that package keys uses.
var plainText = map[string]string{
	validation.MsgUnexpectedProperty:      "is not a field of this request",
	validation.MsgExpectedString:          "must be a string",
	validation.MsgExpectedArray:           "must be a list",
	validation.MsgExpectedObject:          "must be a JSON object",
	validation.MsgExpectedBoolean:         "must be true or false",
	validation.MsgExpectedInteger:         "must be a whole number",
	validation.MsgExpectedNumber:          "must be a number",
	"invalid integer":                     "must be a whole number",
	"unknown query parameter":             "is not a parameter of this operation",
	"required query parameter is missing": "is required",
}

// checkQuery refuses a query that can be read in more than one way: huma drops
// what it cannot parse and takes the first of several values, so that a filter
// would silently not be one.
func (c *call) checkQuery(r *http.Request) *problem.Problem {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return c.problem(http.StatusBadRequest, "The query cannot be parsed: parameters are name=value, joined by '&' and percent-encoded.")
	}
	var fields []problem.FieldError
	for name, values := range query {
		if len(values) > 1 {
			fields = append(fields, problem.FieldError{Field: name, Detail: "stands in the query more than once"})
		}
	}
	if changing := r.Method != http.MethodGet && r.Method != http.MethodHead; changing && query.Has("wait") {
		if query.Get("wait") != "replicas" {
			fields = append(fields, problem.FieldError{Field: "wait", Detail: "must be replicas"})
		}
		c.wait = true
		query.Del("wait") // huma does not know it
		r.URL.RawQuery = query.Encode()
	}
	if fields == nil {
		return nil
	}
	slices.SortFunc(fields, func(a, b problem.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return c.invalid(fields)
}
