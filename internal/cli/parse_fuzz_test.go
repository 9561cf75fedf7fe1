package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"keygate/internal/admin"
)

// FuzzReadImport: a line that is taken for a key is that key and nothing else.
func FuzzReadImport(f *testing.F) {
	for _, line := range []string{
		`{"name":"a","hash":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","prefix":"sk","permissions":["orders:read"],"expires":"2030-01-01T00:00:00Z"}`,
		`{}`, `{"name":1}`, `{"nom":"a"}`, `{} {}`, `{}}`, `{}]`, `null`, `[]`, "{\"name\":\"\xff\"}", `{"name":"a","name":"b"}`, ``,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		k, err := readImport(line)
		if err != nil {
			if text := err.Error(); text == "" || strings.Contains(text, "\n") {
				t.Fatalf("%q: %q", line, text)
			}
			return
		}
		if !json.Valid(line) {
			t.Fatalf("%q is no JSON and was taken for a key", line)
		}
		again, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readImport(again); err != nil {
			t.Fatalf("%q was taken for %s: %v", line, again, err)
		}
	})
}

// FuzzFlags: limits are shown as they can be given; instants and ages never wrap.
func FuzzFlags(f *testing.F) {
	for _, text := range []string{"minute=5000/1m", "month=100000/month@Europe/Zurich", "a=1/7d:shared", "=1/1s", "a=1/", "2030-01-01", "2026-01-01T00:00:00Z", "7d", "65535d", "-1h", "1h30m", "9999999h", "1d1d"} {
		f.Add(text)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := parseLimit(text); err == nil {
			shown := shownLimits(&admin.Overrides{Limits: []admin.OverrideLimit{l}})
			if again, err := parseLimit(shown); err != nil || again != l {
				t.Fatalf("%q is shown as %q: %+v, %+v %v", text, shown, l, again, err)
			}
		}
		age, ok := parseAge(text)
		if ok && strings.HasSuffix(text, "d") && age < 0 {
			t.Fatalf("%q is %s", text, age)
		}
		if at, ok := parseInstant(text, now); ok && text != "" && at.After(now) && age != 0 {
			t.Fatalf("%q ago is %s", text, at)
		}
	})
}

// TestImportLineWithARest: a bracket behind a key's object used to be passed over, and
// with it whatever else stood in the line.
func TestImportLineWithARest(t *testing.T) {
	for _, rest := range []string{"}", "]", `}{"name":"b"}`, " {}", "x"} {
		if k, err := readImport([]byte(`{"name":"a"}` + rest)); err == nil {
			t.Errorf("with %q behind it the line is taken for %+v", rest, k)
		}
	}
	if k, err := readImport([]byte(`{"name":"a"}` + " \t")); err != nil || k.Name != "a" {
		t.Errorf("with blanks behind it: %+v %v", k, err)
	}
}
