package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"keygate/internal/keys"
)

// FuzzIfMatch: what is taken for a version is how an answer spelt it.
func FuzzIfMatch(f *testing.F) {
	for _, value := range []string{`"3"`, "*", ` "12" `, `W/"3"`, `"3", "4"`, `"+3"`, `"03"`, `"-1"`, `"9223372036854775808"`, `"`, ""} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		version, err := ifMatch(value)
		switch trimmed := strings.TrimSpace(value); {
		case err != nil && version != 0:
			t.Fatalf("%q: %d and %v", value, version, err)
		case err == nil && trimmed != "*" && (trimmed != etag(version) || version < 1):
			t.Fatalf("%q is taken for the version %d", value, version)
		}
	})
}

// FuzzCursor: a cursor of one list leads to where it was made and is none of another.
func FuzzCursor(f *testing.F) {
	f.Add("keys", "key_018f", "")
	f.Add("audit", "a:b", "MjprZXlzOmtleV8x")
	f.Add("", "", "!!")
	f.Fuzz(func(t *testing.T, list, after, cursor string) {
		if got, ok := decodeCursor(list, encodeCursor(list, after)); ok != (after != "" && len(after) <= keys.MaxCursor) || ok && got != after {
			t.Fatalf("%q: %q, %v", after, got, ok)
		}
		got, ok := decodeCursor("keys", cursor)
		if !ok || cursor == "" {
			return
		}
		if again, ok := decodeCursor("keys", encodeCursor("keys", got)); !ok || again != got {
			t.Fatalf("%q leads to %q, %q", cursor, got, again)
		}
		if _, ok := decodeCursor("spaces", cursor); ok {
			t.Fatalf("%q is a cursor of two lists", cursor)
		}
	})
}

// FuzzBody: a body that passes has one meaning: every field stands once, has a value
// and a name in lower case, and all of it is text.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{"name":"a","permissions":["orders:read"],"expires":"30d"}`, `{"a":1,"a":2}`, `{"a":{"B":1}}`, `{"a":null}`, `null`, `[[{"a":[null]}]]`,
		`{"headers":{"X-A":"b"}}`, `"\ud83d\ude00"`, `"\ud83d"`, `"\\ud83d"`, `"\udc00\ud800"`, "\"\xff\"", `{"":0}`, `{} {}`, `[`, `{"a":1e999}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if invalidUTF8(body) >= 0 != !utf8.Valid(body) {
			t.Fatalf("%q: UTF-8", body)
		}
		var meant any
		if !utf8.Valid(body) || json.Unmarshal(body, &meant) != nil || loneSurrogate(body) >= 0 {
			return // refused
		}
		if text := fmt.Sprint(meant); strings.ContainsRune(text, utf8.RuneError) && !bytes.ContainsRune(body, utf8.RuneError) && !bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)) {
			t.Fatalf("%q is taken for %s", body, text)
		}
		wrong := checkNames(body)
		for _, w := range wrong {
			if w.Detail == "" || !strings.HasPrefix(w.Pointer, "#") || len(w.Detail) > 200 {
				t.Fatalf("%q: %+v", body, w)
			}
		}
		if len(wrong) > 0 {
			return
		}
		if count, ok := plainNames(meant, ""); !ok || count != colons(body) {
			t.Fatalf("%q passes: %d names of %d", body, count, colons(body))
		}
	})
}

// plainNames counts the names in a value at a place, and reports whether they are in
// lower case, where that matters, and have a value. An empty name is of no request: its
// value is judged with the fields.
func plainNames(v any, at string) (count int, ok bool) {
	ok = true
	inner := func(v any, at string) {
		n, good := plainNames(v, at)
		count, ok = count+n, ok && good
	}
	switch v := v.(type) {
	case nil:
		return 0, at == ""
	case []any:
		for _, v := range v {
			inner(v, at+"[]")
		}
	case map[string]any:
		count = len(v)
		for name, v := range v {
			ok = ok && (name == strings.ToLower(name) || at == "headers")
			inner(v, strings.TrimPrefix(at+"."+name, "."))
		}
	}
	return count, ok
}

// colons counts those of JSON that stand outside its strings, one behind each name.
func colons(body []byte) (n int) {
	text := false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '"':
			text = !text
		case c == '\\':
			i++
		case c == ':' && !text:
			n++
		}
	}
	return n
}

// TestIfMatchIsSpeltAsAnAnswerSpelt: "+3" and "03" were taken for the version 3, which
// no answer ever spelt so.
func TestIfMatchIsSpeltAsAnAnswerSpelt(t *testing.T) {
	for _, value := range []string{`"+3"`, `"03"`, `"3`, `3`, `W/"3"`, `"3","4"`} {
		if version, err := ifMatch(value); err == nil {
			t.Errorf("%s is taken for the version %d", value, version)
		}
	}
	if version, err := ifMatch(` "3" `); err != nil || version != 3 {
		t.Errorf("%d %v", version, err)
	}
}
