package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keygate/internal/problem"
)

const (
	maxBody     = 1 << 20 // of a request, in bytes
	bodyTimeout = 10 * time.Second
)

// readBody checks the form of a body before huma looks at its fields: huma
// would repeat the whole body in its error, take {"NAME": …} for a name, and
// know only a size, a time-out and a media type of its own.
func readBody(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().RequestBody == nil {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	c := callOf(r.Context())
	if value := r.Header.Get("Content-Type"); value != "" {
		if media, _, err := mime.ParseMediaType(value); err != nil || media != "application/json" {
			w.Header().Set("Accept-Post", "application/json")
			c.write(w, http.StatusUnsupportedMediaType, "The body must be JSON: send Content-Type: application/json.")
			return
		}
	}
	// The connection is not held longer than this by a client that sends a byte
	// now and then. Writers of tests have no deadline.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		c.unreadable(w, err)
		return
	}
	c.body = body
	if len(bytes.TrimSpace(body)) == 0 && !ctx.Operation().RequestBody.Required {
		r.Body, r.ContentLength = http.NoBody, 0
		next(ctx)
		return
	}
	if len(bytes.TrimSpace(body)) == 0 {
		c.write(w, http.StatusBadRequest, "The request has no body: send a JSON object.")
		return
	}
	if bytes.HasPrefix(body, []byte("\ufeff")) {
		c.write(w, http.StatusBadRequest, "The body starts with a byte order mark, which JSON has none of: save it as UTF-8 without one.")
		return
	}
	if i := invalidUTF8(body); i >= 0 { // encoding/json would put U+FFFD in its place
		c.write(w, http.StatusBadRequest, fmt.Sprintf("The body is not UTF-8: byte %d is part of no character.", i+1))
		return
	}
	if err := json.Unmarshal(body, new(json.RawMessage)); err != nil { // only looks whether it is JSON
		c.write(w, http.StatusBadRequest, "The body is not JSON: "+jsonMistake(err)+".")
		return
	}
	if i := loneSurrogate(body); i >= 0 {
		c.write(w, http.StatusBadRequest, fmt.Sprintf("The body escapes half a character at byte %d: it takes a pair of surrogates, such as \\ud83d\\ude00.", i+1))
		return
	}
	if wrong := checkNames(body); len(wrong) > 0 {
		problem.Write(w, c.invalid(wrong))
		return
	}
	r.Header.Set("Content-Type", "application/json") // checked, and huma wants it spelt so
	r.Body = io.NopCloser(bytes.NewReader(body))
	next(ctx)
}

func (c *call) unreadable(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooLarge):
		c.write(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is larger than %d bytes.", maxBody))
	case errors.As(err, &timeout) && timeout.Timeout():
		w.Header().Set("Connection", "close")
		c.write(w, http.StatusRequestTimeout, "The body did not arrive in time.")
	default: // the client broke off, or its chunks are malformed
		w.Header().Set("Connection", "close")
		c.write(w, http.StatusBadRequest, "The body could not be read to its end.")
	}
}

// invalidUTF8 is where text stops being UTF-8, or -1.
func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// loneSurrogate is where a text that is known to be JSON escapes one half of a
// pair of surrogates, or -1: it stands for no character (RFC 8259, section 8.2).
func loneSurrogate(text []byte) int {
	unit := func(i int) rune {
		if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(text[i+2:i+6]), 16, 16) // four hex digits, as in all JSON
		return rune(n)
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		switch r := unit(i); {
		case utf16.IsSurrogate(r) && utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError:
			return i
		case utf16.IsSurrogate(r):
			i += 11
		default:
			i++ // what is escaped may be another backslash
		}
	}
	return -1
}

// jsonMistake says what is wrong and where, without repeating the body.
func jsonMistake(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("%s, at byte %d", syntax, syntax.Offset)
	}
	return err.Error()
}

// checkNames refuses what encoding/json would take in a way of its own, at any
// depth: a name that stands twice (the last one wins), letters in another case,
// and null, which it takes for a field that is left out: "expires": null would be
// answered like a change that was made. It also bounds what whoever reads the body
// after it has to hold and to say.
func checkNames(body []byte) []problem.FieldError {
	n := names{decoder: json.NewDecoder(bytes.NewReader(body))}
	n.decoder.UseNumber()
	n.value("", 0)
	return n.wrong
}

// names looks for wrong ones in a body that is known to be JSON.
type names struct {
	decoder *json.Decoder
	wrong   []problem.FieldError
	enough  bool
	values  int
}

func (n *names) value(at string, depth int) {
	token, err := n.decoder.Token()
	number, _ := token.(json.Number)
	n.values++
	switch {
	case err != nil:
		n.enough = true // valid JSON has no way here
	case depth > maxDepth:
		n.only("is nested too deeply")
	case n.values > maxValues:
		n.only("has too many values")
	case token == nil && at != "":
		n.wrong = append(n.wrong, bodyField(at, "is null: leave it out, or give it a value"))
	case number != "" && at != "" && !plain(number):
		n.wrong = append(n.wrong, bodyField(at, "is a number that is too large, or is not written in digits alone"))
	case token == json.Delim('['):
		for i := 0; n.more(); i++ {
			n.value(at+"["+itoa(i)+"]", depth+1)
		}
	case token == json.Delim('{'):
		n.object(at, depth)
	}
}

// plain reports whether a number is one that a request can have: whole, and in digits
// alone. 1e2 is a whole number to huma and none to encoding/json, whose error would
// tell of our types. A fraction is left to huma.
func plain(number json.Number) bool {
	if _, err := number.Int64(); err == nil {
		return true
	}
	value, err := number.Float64()
	return err == nil && value != math.Trunc(value) && len(number) <= maxNumberBytes
}

func (n *names) object(at string, depth int) {
	var seen []string
	for n.more() {
		token, err := n.decoder.Token()
		name, ok := token.(string)
		if n.enough = err != nil || !ok; n.enough {
			return
		}
		field := strings.TrimPrefix(at+"."+name, ".")
		switch {
		case len(name) > maxNameBytes:
			n.only("has a field whose name is too long")
		case len(seen) == maxNames:
			n.only("has too many fields")
		case slices.Contains(seen, name):
			n.wrong = append(n.wrong, bodyField(field, "stands twice in the body"))
		case name != strings.ToLower(name) && at != "headers": // whose names are values
			n.wrong = append(n.wrong, bodyField(field, "is not a field of this request: names are in lower case"))
		}
		seen = append(seen, name)
		n.value(field, depth+1)
	}
}

// more reports whether the object or list goes on, and steps over its end.
func (n *names) more() bool {
	if n.enough = n.enough || len(n.wrong) >= maxNames; n.enough {
		return false
	}
	if n.decoder.More() {
		return true
	}
	_, err := n.decoder.Token()
	n.enough = err != nil
	return false
}

// only answers a body that is not looked at any further.
func (n *names) only(detail string) {
	n.wrong, n.enough = []problem.FieldError{{Pointer: "#", Field: "the body", Detail: detail}}, true
}

const (
	maxNames     = 100 // of one object and of those that are wrong: keeps search and answer short
	maxNameBytes = 100 // keeps the answer about an unknown name short
	// maxDepth is more than any request has: an import's limits are six levels down.
	maxDepth = 16
	// maxValues is more than an import has room for in a body, and keeps short what is
	// said about a list of wrong ones.
	maxValues      = 100_000
	maxNumberBytes = 100
)

func bodyField(name, detail string) problem.FieldError {
	return problem.FieldError{Pointer: pointer(name), Field: name, Detail: detail}
}
