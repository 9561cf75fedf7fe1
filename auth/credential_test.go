package auth

import (
	"net/http"
	"strings"
	"testing"

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
		c, refusal := Bearer(format, h, query)
		if (refusal == nil) != (c.Token != "" && !c.Exposed) {
			t.Fatalf("token %q, exposed %v, refusal %v", c.Token, c.Exposed, refusal)
		}
		if refusal == nil && (!strings.HasPrefix(strings.ToLower(value), "bearer ") || !strings.Contains(value, c.Token)) {
			t.Fatalf("%q gave the token %q", value, c.Token)
		}
		if refusal != nil && c.Token != "" && len(c.Token) > 20 && strings.Contains(refusal.Detail, c.Token) {
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
		if got := inQuery(format, query); got != want {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
}
