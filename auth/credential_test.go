package auth

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

func FuzzBearer(f *testing.F) {
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	secret := format.Generate()
	f.Add("Bearer "+secret, "a=b")
	f.Add("bearer   x", "key="+secret)
	f.Add("Bearer", "kg_live_kg_live_"+secret[8:])
	f.Add("", "&&;"+secret)
	f.Fuzz(func(t *testing.T, value, query string) {
		h := http.Header{}
		if value != "" {
			h["Authorization"] = []string{value}
		}
		exposed := Exposed(format, &url.URL{RawQuery: query})
		sent, refusal := Bearer(h, exposed)
		if (refusal == nil) != (sent != "" && !exposed) {
			t.Fatalf("token %q, exposed %v, refusal %v", sent, exposed, refusal)
		}
		if refusal == nil && (!strings.HasPrefix(strings.ToLower(value), "bearer ") || !strings.Contains(value, sent)) {
			t.Fatalf("%q gave the token %q", value, sent)
		}
		if refusal != nil && len(sent) > 20 && strings.Contains(refusal.Detail, sent) {
			t.Fatal("the refusal repeats the token")
		}
	})
}

func TestExposedKeys(t *testing.T) {
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	secret := format.Generate()
	for query, want := range map[string]bool{
		"":                                  false,
		"api_key=" + secret:                 true,
		secret:                              true,
		"a=b&x=" + secret + "&c=d":          true,
		"x=" + secret + ";y":                true,
		"x=" + secret + "z":                 false,
		"x=" + secret[:len(secret)-1] + "!": false,
		"x=kg_live_&y=" + secret:            true,
		"x=kg_livekg_live_" + secret[8:]:    true,
		"x=" + strings.ReplaceAll(secret, "_", "-"): false,
	} {
		if got := keyIn(format, query) != ""; got != want {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
}

// TestQueryFullOfPrefixes: each prefix used to be followed to the end of the
// query, so that 64 KiB of them cost a tenth of a second, without a key.
func TestQueryFullOfPrefixes(t *testing.T) {
	format, _ := keys.NewFormat(keys.DefaultPrefix)
	cost := func(repeat int) time.Duration {
		query, least := strings.Repeat(format.Prefix(), repeat), time.Hour
		for range 5 {
			start := time.Now()
			if keyIn(format, query) != "" {
				t.Fatal("found a key")
			}
			least = min(least, time.Since(start))
		}
		return least
	}
	if short, long := cost(1000), cost(8000); long > 24*short { // 8 if linear, 64 if not
		t.Errorf("%v for 1,000 prefixes, %v for 8,000", short, long)
	}
}
