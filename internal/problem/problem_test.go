package problem

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

const requestID = "01890a5d-ac96-774b-bcce-b302099a8057"

func TestWriteBody(t *testing.T) {
	tests := []struct {
		name string
		give Problem
		want string
	}{
		{
			"no key",
			Problem{Status: 401, Detail: "Send Authorization: Bearer <key>.", RequestID: requestID, Error: "API key is missing"},
			`{"title":"Unauthorized","status":401,"detail":"Send Authorization: Bearer <key>.","instance":"urn:uuid:` + requestID +
				`","request_id":"` + requestID + `","error":"API key is missing"}`,
		},
		{
			"missing scope, nothing granted",
			Problem{Status: 403, Error: "Insufficient permissions", Required: []string{"orders:read"}, Granted: []string{}},
			`{"title":"Forbidden","status":403,"error":"Insufficient permissions","required":["orders:read"],"granted":[]}`,
		},
		{
			"rate limit",
			Problem{Type: TypeQuotaExceeded, Status: 429, Error: "Rate limit exceeded", ViolatedPolicies: []string{"minute", "month"}},
			`{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Too Many Requests","status":429,` +
				`"error":"Rate limit exceeded","violated-policies":["minute","month"]}`,
		},
		{
			"wrong input",
			Problem{Status: 422, Errors: []FieldError{{Pointer: "#/name", Detail: "must not be empty"}, {Field: "limit", Detail: "must be a number"}}},
			`{"title":"Unprocessable Entity","status":422,"errors":[{"pointer":"#/name","detail":"must not be empty"},` +
				`{"field":"limit","detail":"must be a number"}]}`,
		},
		{"own title and instance", Problem{Title: "T", Status: 503, Instance: "urn:x", RequestID: "r"}, `{"title":"T","status":503,"instance":"urn:x","request_id":"r"}`},
		{"status without a text", Problem{Status: 499}, `{"title":"Error","status":499}`},
		{"no status", Problem{}, `{"title":"Internal Server Error","status":500}`},
		{"status of a success", Problem{Status: 204}, `{"title":"Internal Server Error","status":500}`},
		{"status that net/http would panic on", Problem{Status: 1000}, `{"title":"Internal Server Error","status":500}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.give
			rec := httptest.NewRecorder()
			Write(rec, &tt.give)
			if got := strings.TrimSuffix(rec.Body.String(), "\n"); got != tt.want {
				t.Errorf("body\n got %s\nwant %s", got, tt.want)
			}
			var body struct{ Status int }
			if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || body.Status != rec.Code {
				t.Errorf("status line %d, body %d, %v: want the same", rec.Code, body.Status, err)
			}
			if diff := cmp.Diff(before, tt.give); diff != "" {
				t.Errorf("Write changed its argument:\n%s", diff)
			}
		})
	}
}

func TestWriteHeader(t *testing.T) {
	rec := httptest.NewRecorder()
	h := rec.Header()
	h.Set("Retry-After", "7")
	h.Set("Content-Encoding", "gzip")
	h.Set("ETag", `"x"`)
	h.Set("Cache-Control", "max-age=60")
	h.Set("Content-Type", "text/html")
	Write(rec, &Problem{Status: 429, RequestID: requestID})
	want := http.Header{
		"Content-Type":           {"application/problem+json"},
		"Content-Length":         {strconv.Itoa(rec.Body.Len())},
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
		"X-Request-Id":           {requestID},
		"Retry-After":            {"7"},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// What clients send may end up in a detail or a list; whatever it is, the body
// stays JSON and says it back as far as JSON can.
func TestWriteKeepsHostileTextInside(t *testing.T) {
	for _, text := range []string{
		`"},"error":"forged"`, "a\xffb", "\xed\xa0\x80", "line\nbreak\r\x00\x1b[31m", "\u2028", "\\", "</script>", strings.Repeat("\xc3", 1000),
	} {
		rec := httptest.NewRecorder()
		Write(rec, &Problem{
			Status: 422, Detail: text, RequestID: "r", Error: text,
			Errors: []FieldError{{Field: text, Detail: text}}, Required: []string{text}, Granted: []string{text}, ViolatedPolicies: []string{text},
		})
		body := rec.Body.Bytes()
		if !utf8.Valid(body) {
			t.Errorf("%q: the body is not UTF-8: %q", text, body)
		}
		for _, c := range body[:len(body)-1] {
			if c < 0x20 {
				t.Errorf("%q: the body holds a raw control character %#x", text, c)
			}
		}
		var got Problem
		if err := json.Unmarshal(body, &got); err != nil {
			t.Errorf("%q: %v: %q", text, err, body)
			continue
		}
		want := string([]rune(text)) // each invalid byte becomes U+FFFD
		for _, s := range []string{got.Detail, got.Error, got.Errors[0].Field, got.Errors[0].Detail, got.Required[0], got.Granted[0], got.ViolatedPolicies[0]} {
			if s != want {
				t.Errorf("%q came back as %q", text, s)
			}
		}
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("", "", 0)
	f.Add("\"\xff\u2028", "API key is invalid", 401)
	f.Fuzz(func(t *testing.T, detail, text string, status int) {
		rec := httptest.NewRecorder()
		Write(rec, &Problem{Status: status, Detail: detail, Error: text, Granted: []string{detail}})
		if !json.Valid(rec.Body.Bytes()) || !utf8.Valid(rec.Body.Bytes()) {
			t.Errorf("not JSON: %q", rec.Body.Bytes())
		}
		if rec.Code < 400 || rec.Code > 599 {
			t.Errorf("status %d for a problem", rec.Code)
		}
	})
}

// A HEAD request gets the same headers, and net/http keeps the body back.
func TestWriteToHEAD(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		Write(w, &Problem{Status: 403, Error: "HTTPS is required"})
	}))
	defer srv.Close()
	lengths := make(map[string]int64)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != 403 || (len(body) == 0) != (method == http.MethodHead) {
			t.Errorf("%s: status %d, %d bytes, %v", method, res.StatusCode, len(body), err)
		}
		lengths[method] = res.ContentLength
	}
	if lengths["GET"] != lengths["HEAD"] || lengths["GET"] <= 0 {
		t.Errorf("content lengths %v: want the same", lengths)
	}
}
