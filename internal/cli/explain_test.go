package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"keygate/internal/admin"
)

// "It is let through" was said of a key that works from one network only.
func TestExplainWithoutAnAddress(t *testing.T) {
	t.Parallel()
	open := admin.Check{Name: "address", Result: "skip", Detail: "The client's address was not given; the key may be used from 192.0.2.0/24 only."}
	for name, tc := range map[string]struct {
		e          admin.Explanation
		want, lack string
	}{
		"restricted": {admin.Explanation{Allowed: true, Key: "key_1", Checks: []admin.Check{open}}, "192.0.2.0/24 only", "the request is let through"},
		"judged":     {admin.Explanation{Allowed: true, Key: "key_1", Checks: []admin.Check{{Name: "address", Result: "pass"}}}, "the request is let through", "--address"},
		"public": {
			admin.Explanation{Allowed: true, Key: "key_1", Rule: &admin.ExplainedRule{Public: "1/1s"}, Checks: []admin.Check{{Name: "address", Result: "skip"}}},
			"the request is let through", "--address",
		},
		"refused": {admin.Explanation{Key: "key_1", Status: 403, Detail: "No.", Checks: []admin.Check{open}}, "403 Forbidden", "give --address"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{stdout: &out, stderr: io.Discard}
			n := newNames(t.Context(), nil)
			n.known["key_1"] = "nightly"
			if err := a.printExplanation(n, formatTable, []string{"GET", "/x"}, tc.e); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tc.want) || strings.Contains(out.String(), tc.lack) {
				t.Errorf("%s", &out)
			}
		})
	}
}

func TestKeyTestSaysFromWhereAndWhere(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme")
	in.must("spaces", "create", "--organization", "acme", "--slug", "research")
	in.must("keys", "create", "--name", "a", "--organization", "acme", "--space", "research", "--allow-cidr", "192.0.2.0/24")
	if r := in.must("keys", "test", "a"); !strings.Contains(r.stdout, "192.0.2.0/24") || !strings.Contains(r.stdout, "research") {
		t.Errorf("%+v", r)
	}
}
