package server

import (
	"strings"
	"testing"

	"keygate/internal/keys"
)

// With a policy of the operator's own, /hello need not be there: a request for
// it without a key was answered 404 where the text promised 401.
func TestWelcomePromisesNoPathOfAnOwnPolicy(t *testing.T) {
	for _, client := range []string{"", "kg_live_client"} {
		var text strings.Builder
		if err := welcome(&text, keys.Bootstrapped{AdminSecret: "kg_live_admin", ClientSecret: client}, "data", "http://127.0.0.1:8080", "http://127.0.0.1:9090", true); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(text.String(), "/hello"); got != (client != "") {
			t.Errorf("with the client key %q:\n%s", client, text.String())
		}
	}
}
