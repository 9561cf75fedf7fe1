package admin

import "testing"

// A secret in the place of an id was logged unless it had this instance's own form.
func TestPathsThatMayHoldAKeyAreNotLogged(t *testing.T) {
	t.Parallel()
	const id = "key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35"
	for path, want := range map[string]bool{
		"/v1/keys":                   true,
		"/v1/keys/" + id:             true,
		"/v1/keys/" + id + "/rotate": true,
		"/v1/accounts/acc_01980c5e7d2a7c3f9b1e4d6a8f0c2b35/grants/grt_01980c5e7d2a7c3f9b1e4d6a8f0c2b35": true,
		"/v1/organizations/the-customer-with-a-long-name":                                               true,
		"/v1/keys/kg_live_abcdefghijklmnopqrstuvwxyz0123456789":                                         false,
		"/v1/keys/sk_live_0123456789abcdef":                                                             false,
		"/v1/keys/0123456789abcdef-lower":                                                               false,
		"/v1/organizations/old_0123456789abcdef":                                                        false,
		"/sk_live_0123456789abcdef/x":                                                                   false,
		"/v1/keys/short":                                                                                true,
	} {
		if got := loggable(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
