package proxy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"keygate/auth"
	"keygate/internal/keys"
)

// A key in the URL, in whatever part of it and however encoded, is refused by its
// name: the client is told to rotate it. One in the path was answered as if none had
// been sent, or went upstream beside another in the header. Wherever the request was
// refused for something else before, the exposure was not reported at all.
func TestKeyInTheURL(t *testing.T) {
	g := newGate(t, gateOptions{})
	_, secret := g.key(keys.NewKey{})
	_, other := g.key(keys.NewKey{Name: "other"})
	encoded := strings.ReplaceAll(secret, "_", "%5F")
	const missing, ambiguous = "API key is missing", "Ambiguous credentials"
	for i, c := range []struct {
		target, secret string
		status         int
		text           string
	}{
		{"/any/x?k=" + secret, "", 401, missing},
		{"/any/x?k=" + encoded, "", 401, missing},
		{"/any/" + secret, "", 401, missing},
		{"/any/" + encoded + "/x", "", 401, missing},
		{"/any/x?k=" + secret, other, 400, ambiguous},
		{"/any/" + secret, other, 400, ambiguous},
		{"/any/" + secret, secret, 400, ambiguous},
		{"/status?k=" + secret, "", 200, ""},
		{"/nowhere/" + secret, other, 404, "Not found"},
		{"/nowhere?k=" + secret, "", 404, "Not found"},
		{"/both/?k=" + secret, "", 404, "Not found"},
		{"/any//x?k=" + secret, other, 400, "Ambiguous path"},
	} {
		what := strings.NewReplacer(secret, "KEY", encoded, "%KEY").Replace(c.target)
		a := g.get("GET", c.target, c.secret)
		if a.StatusCode != c.status || a.problem.Error != c.text {
			t.Errorf("%s: %d %s", what, a.StatusCode, a.body)
		}
		if told := strings.Contains(a.problem.Detail, "exposed"); told != (c.text == missing || c.text == ambiguous) {
			t.Errorf("%s: the detail is %q", what, a.problem.Detail)
		}
		if bytes.Contains(a.body, []byte(secret)) {
			t.Errorf("%s: the answer repeats the key", what)
		}
		waitFor(t, func() bool { return g.logs.FilterMessage("request").Len() == i+1 })
		line := g.logs.FilterMessage("request").All()[i]
		if fields := line.ContextMap(); fields["key_exposed_in_url"] != true || fields["key_id"] == nil || strings.Contains(fmt.Sprint(fields), secret) {
			t.Errorf("%s: logged %v", what, fields)
		}
		if strings.HasPrefix(c.target, "/status") {
			continue
		}
		e := g.proxy.Explain(t.Context(), auth.Question{Method: "GET", Target: c.target, Key: hashOf(c.secret)})
		if e.Status != c.status || e.Error != c.text {
			t.Errorf("%s: explained as %d %s", what, e.Status, e.Error)
		}
	}
	if _, _, n := g.upstream.seen(); n != 1 {
		t.Errorf("%d requests reached the upstream, want 1", n)
	}
}

// hashOf is zero for no key.
func hashOf(secret string) keys.Hash {
	if secret == "" {
		return keys.Hash{}
	}
	return keys.HashSecret(secret)
}
