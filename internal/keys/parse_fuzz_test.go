package keys

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// FuzzParseHash: a hash has four spellings, and no more.
func FuzzParseHash(f *testing.F) {
	h := HashSecret("x")
	f.Add(hex.EncodeToString(h[:]))
	f.Add(base64.StdEncoding.EncodeToString(h[:]))
	f.Add(base64.RawURLEncoding.EncodeToString(h[:]))
	f.Add(base64.StdEncoding.EncodeToString(h[:31]) + "\n")
	f.Add("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			return
		}
		spellings := []string{base64.StdEncoding.EncodeToString(h[:]), base64.RawStdEncoding.EncodeToString(h[:]), base64.URLEncoding.EncodeToString(h[:]), base64.RawURLEncoding.EncodeToString(h[:])}
		if h == HashSecret("") || !slices.Contains(spellings, s) && strings.ToLower(s) != hex.EncodeToString(h[:]) {
			t.Fatalf("%q is taken for %x", s, h)
		}
	})
}

// TestHashInOnePiece: a hash in base64 with line ends in it was taken for one without.
func TestHashInOnePiece(t *testing.T) {
	h := HashSecret("x")
	for _, spelling := range []string{base64.StdEncoding.EncodeToString(h[:]), base64.RawURLEncoding.EncodeToString(h[:])} {
		for _, cut := range []int{0, 20, len(spelling) - 1, len(spelling)} {
			for _, end := range []string{"\n", "\r", "\r\n"} {
				if _, err := ParseHash(spelling[:cut] + end + spelling[cut:]); err == nil {
					t.Errorf("%q at %d is passed over", end, cut)
				}
			}
		}
	}
	// One of the padding's length, which made up for it.
	if _, err := ParseHash(strings.Repeat("0", 42) + "\r0="); err == nil {
		t.Error("a carriage return is passed over")
	}
}

// FuzzParseOverrides: what was stored of negotiated limits is read as limits that are
// in order, and stored again the same.
func FuzzParseOverrides(f *testing.F) {
	for _, raw := range []string{
		`{"limits":[{"name":"minute","requests":5,"per":"1m0s"},{"name":"month","requests":7,"per":"month","timezone":"Europe/Zurich","shared":true}],"max_keys":3}`,
		`{"max_keys":-1}`, `{"max_keys":-2}`, `{}`, `null`, `{"limits":"none"}`, `{"limits":[{"name":"a","requests":0,"per":"1s"}]}`, `{"limits":[{"per":"day"}]}`,
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := ParseOverrides(json.RawMessage(raw))
		if err != nil {
			return
		}
		for _, l := range o.Limits {
			if err := l.Validate(); err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
		}
		if again, err := ParseOverrides(o.Encode()); err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%q is stored as %s: %+v, was %+v: %v", raw, o.Encode(), again, o, err)
		}
	})
}
