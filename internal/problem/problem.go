// Package problem is the body of every answer that keygate itself gives when it
// refuses or fails: problem details (RFC 9457) with a few members of its own.
package problem

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// ContentType is the media type of a problem body (RFC 9457, section 3).
const ContentType = "application/problem+json"

// TypeQuotaExceeded is the only type that keygate names; all other problems
// mean no more than their status, which an absent type says.
const TypeQuotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// Problem is one refusal or failure, as the client reads it. It must hold
// nothing that is meant for the operator alone.
type Problem struct {
	// Type is a URI; left out where empty, which means "about:blank".
	Type string `json:"type,omitempty"`
	// Title defaults to the status's own text, as RFC 9457 (section 4.2.1)
	// wants it for problems without a type.
	Title string `json:"title"`
	// Status is from 400 to 599; anything else is answered as 500, so that a
	// mistake of ours never looks like a success.
	Status int `json:"status"`
	// Detail says what happened this time and what to do about it.
	Detail string `json:"detail,omitempty"`
	// Instance defaults to "urn:uuid:" and the request id.
	Instance string `json:"instance,omitempty"`
	// RequestID is a UUID, and also in the header X-Request-Id.
	RequestID string `json:"request_id,omitempty"`
	// Error is a fixed text for each kind of refusal. Common API clients show
	// a top-level "error"; programs may compare it.
	Error string `json:"error,omitempty"`

	// Errors lists the wrong fields of an input (422).
	Errors []FieldError `json:"errors,omitempty"`
	// Required and Granted are permissions (403). An empty list that is not
	// nil is shown: "granted": [] tells more than silence.
	Required []string `json:"required,omitzero"`
	Granted  []string `json:"granted,omitzero"`
	// ViolatedPolicies are the names of the limits that were hit (429), as the
	// quota-exceeded type defines them.
	ViolatedPolicies []string `json:"violated-policies,omitempty"`
}

// FieldError is one wrong field. Pointer or Field says where it is.
type FieldError struct {
	// Pointer is a JSON Pointer into the request's body, as a URI fragment
	// (RFC 6901, section 6): "#/allowed_cidrs/2".
	Pointer string `json:"pointer,omitempty"`
	// Field is the input's own name for it, such as "allowed_cidrs[2]" or the
	// name of a query parameter.
	Field  string `json:"field,omitempty"`
	Detail string `json:"detail"`
}

// Write answers with p, which it does not change. Headers that belong to the
// case, such as WWW-Authenticate and Retry-After, are set before by the caller;
// those that described another body are removed.
func Write(w http.ResponseWriter, p *Problem) {
	full := p.complete()
	body := full.encode()

	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Trailer"} {
		h.Del(name)
	}
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store") // a refusal ends when the key's owner acts, not when a cache forgets
	h.Set("X-Content-Type-Options", "nosniff")
	if full.RequestID != "" {
		h.Set("X-Request-Id", full.RequestID)
	}
	w.WriteHeader(full.Status)
	_, _ = w.Write(body) // fails only if the client is gone
}

// complete fills in what follows from the rest.
func (p Problem) complete() Problem {
	if p.Status < 400 || p.Status > 599 {
		p.Status = http.StatusInternalServerError
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	if p.Title == "" {
		p.Title = "Error" // a status that net/http has no text for, such as 499
	}
	if p.Instance == "" && p.RequestID != "" {
		p.Instance = "urn:uuid:" + p.RequestID
	}
	return p
}

// encode returns p in JSON. Clients' own text may be in it: encoding/json
// escapes control characters and replaces invalid UTF-8.
func (p Problem) encode() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // the type and nosniff keep it from being HTML; a terminal shows "<" better than "\u003c"
	if err := enc.Encode(p); err != nil {
		panic("problem: " + err.Error()) // strings and ints cannot fail to encode
	}
	return b.Bytes()
}
