package admin

import (
	"net/http"
	"strings"
	"testing"
)

// Bytes that are no text, and halves of characters, were stored as U+FFFD: two
// names that differ became one, and nobody was told.
func TestBodiesThatAreNoText(t *testing.T) {
	t.Parallel()
	in := start(t)
	send := func(name string) reply { return in.do("POST", "/v1/keys", `{"name": "`+name+`"}`) }
	for name, place := range map[string]string{
		"a\xffb": "byte 12", "\xed\xa0\x80": "byte 11", `\ud800`: "byte 11", `\\\udc00`: "byte 13", `\ud83dx`: "byte 11", `\ud83d\ud83d\ude00`: "byte 11", `\ude00\ud83d`: "byte 11",
	} {
		if r := send(name); r.status != http.StatusBadRequest || !strings.Contains(r.problem(t).Detail, place) {
			t.Errorf("%q: %d %s, want %s", name, r.status, r.body, place)
		}
	}
	for _, name := range []string{`\ud83d\ude00`, `\\ud800`, "\U0001F600", `\u00fc`} {
		if r := send(name); r.status != http.StatusCreated {
			t.Errorf("%q: %d %s", name, r.status, r.body)
		}
	}
	for _, name := range []string{" a", "a\u00a0", "a\u00adb", "a\U000e0041", "a\ufffe", "a\U0001ffff"} {
		if r := send(name); r.status != http.StatusUnprocessableEntity || r.problem(t).Errors[0].Pointer != "#/name" {
			t.Errorf("%q: %d %s", name, r.status, r.body)
		}
	}
}

// A body of 1 MB took 4 GB of memory where its objects were nested 9,000 deep, each
// under a name of 100 characters, and was answered with up to 46 MB: any key that may
// use this API could end the whole gateway.
func TestBodiesThatAskForMuch(t *testing.T) {
	t.Parallel()
	in := start(t)
	many := func(n int, entry string) string { return strings.TrimSuffix(strings.Repeat(entry+",", n), ",") }
	deep := strings.Repeat(`{"`+strings.Repeat("a", 100)+`":`, 900) + "1" + strings.Repeat("}", 900)
	for name, c := range map[string]struct{ body, detail string }{
		"nested objects":       {`{"name": "a", "x": ` + deep + `}`, "nested too deeply"},
		"nested lists":         {`{"name": "a", "x": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, "nested too deeply"},
		"many values":          {`{"name": "a", "permissions": [` + many(maxValues, "1") + `]}`, "too many values"},
		"wrong values":         {`{"name": "a", "permissions": [` + many(1000, "1") + `]}`, "permissions[0]: must be a string"},
		"unknown permissions":  {`{"name": "a", "permissions": [` + many(2000, `"a:b"`) + `]}`, "permissions: has 2000 entries"},
		"repeated permissions": {`{"name": "a", "permissions": [` + many(2000, `"admin"`) + `]}`, "permissions: has 2000 entries"},
		"wrong addresses":      {`{"name": "a", "allowed_cidrs": [` + many(2000, `"a"`) + `]}`, "allowed_cidrs[0]: must be an address"},
		"a long number":        {`{"name": "a", "overrides": {"max_keys": ` + strings.Repeat("9", 10_000) + `}}`, "max_keys: is a number that is too large"},
		"an exponent":          {`{"name": "a", "overrides": {"max_keys": 1e2}}`, "max_keys: is a number that is too large, or is not written in digits alone"},
		"a fraction":           {`{"name": "a", "overrides": {"max_keys": 1.5}}`, "max_keys: must be a whole number"},
		"no fraction":          {`{"name": "a", "overrides": {"max_keys": 1.0}}`, "not written in digits alone"},
		"beyond 64 bits":       {`{"name": "a", "overrides": {"limits": [{"name": "m", "per": "1m", "requests": 9223372036854775808}]}}`, "limits[0].requests: is a number that is too large"},
		"a large number":       {`{"name": "a", "overrides": {"max_keys": 1e400}}`, "max_keys: is a number that is too large"},
	} {
		r := in.do("POST", "/v1/keys", c.body)
		if r.status != http.StatusUnprocessableEntity || !strings.Contains(r.problem(t).Detail, c.detail) {
			t.Errorf("%s: %d %.300s, want %q", name, r.status, r.body, c.detail)
		}
		if len(r.body) > 20_000 || len(r.problem(t).Errors) > mostFields {
			t.Errorf("%s: an answer of %d bytes with %d errors", name, len(r.body), len(r.problem(t).Errors))
		}
	}
}

// Headers and parameters that were understood half: If-Match was ignored where
// something new is made, a mark at the beginning was a character of another alphabet,
// and an instant was to have a form that only Go programmers know.
func TestWhatIsSaidBesideTheBody(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.request("POST", "/v1/keys", NewKey{Name: "a"})
	r.Header.Set("Authorization", "Bearer "+in.key)
	r.Header.Set("If-Match", `"1"`)
	if got := in.send(r); got.status != http.StatusUnprocessableEntity || got.problem(t).Errors[0].Field != "If-Match" {
		t.Errorf("If-Match with nothing to match: %d %s", got.status, got.body)
	}
	if got := in.do("POST", "/v1/keys", "\ufeff"+`{"name": "a"}`); got.status != http.StatusBadRequest || !strings.Contains(got.problem(t).Detail, "byte order mark") {
		t.Errorf("a mark before the body: %d %s", got.status, got.body)
	}
	if got := in.do("GET", "/v1/audit?since=yesterday", nil); got.status != http.StatusUnprocessableEntity || !strings.Contains(got.problem(t).Detail, "RFC 3339") {
		t.Errorf("since yesterday: %d %s", got.status, got.body)
	}
}

// The cursor of another list was taken: an empty page, which looks like the end.
func TestCursorOfAnotherList(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, name := range []string{"a", "b"} {
		in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: name})
	}
	next := into[Page[Key]](t, in.must(http.StatusOK, "GET", "/v1/keys?limit=1", nil)).Next
	for _, list := range []string{"organizations", "accounts", "audit", "keys/export", "spaces?organization=default"} {
		join := "?"
		if strings.Contains(list, "?") {
			join = "&"
		}
		if p := in.must(http.StatusUnprocessableEntity, "GET", "/v1/"+list+join+"cursor="+next, nil).problem(t); p.Errors[0].Field != "cursor" {
			t.Errorf("%s: %+v", list, p)
		}
	}
}

// Questions change nothing: what a client says about changes was half understood
// there, refused in one form and ignored in another.
func TestQuestionsIgnoreWhatIsSaidAboutChanges(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a"}))
	for _, target := range []string{"/v1/keys/" + k.ID + "/test?wait=replicas", "/v1/explain?wait=replicas"} {
		r := in.request("POST", target, ExplainQuestion{Question: Question{Method: "GET", Path: "/"}})
		if !strings.Contains(target, "explain") {
			r = in.request("POST", target, TestQuestion{Method: "GET", Path: "/"})
		}
		r.Header.Set("Authorization", "Bearer "+in.key)
		r.Header.Set("If-Match", "no version")
		r.Header.Set("Idempotency-Key", "")
		if got := in.send(r); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", target, got.status, got.body)
		}
	}
}
