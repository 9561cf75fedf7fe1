package proxy_test

import (
	"net/http"
	"testing"

	"keygate/auth"
	"keygate/internal/keys"
)

// Methods are case-sensitive, and many frameworks write them in capitals all the same:
// "delete" was no DELETE to the rules, went by the one for all other methods, and was a
// DELETE to the upstream. Methods that nobody knows are as they are.
func TestMethodInAnotherCase(t *testing.T) {
	g := newGate(t, gateOptions{policy: `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
permissions: { "orders:read": { group: Read }, "orders:delete": { group: Admin } }
routes:
  - { match: "/orders/{id}", permission: any }
  - { match: "DELETE /orders/{id}", permission: "orders:delete" }
`})
	_, secret := g.key(keys.NewKey{Permissions: []string{"orders:read"}})
	for method, status := range map[string]int{
		"GET": 200, "BREW": 200, "brew": 200, "DELETE": 403, "TRACE": 405,
		"delete": 400, "Delete": 400, "get": 400, "trace": 400, "pROPFIND": 400,
	} {
		res := g.raw(method + " /orders/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n\r\n")
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d", method, res.StatusCode, status)
		}
		e := g.proxy.Explain(t.Context(), auth.Question{Method: method, Target: "/orders/1", Key: keys.HashSecret(secret)})
		if e.Status != status && (e.Status != 0 || status != http.StatusOK) {
			t.Errorf("%s: explained as %d", method, e.Status)
		}
	}
	if _, _, n := g.upstream.seen(); n != 3 {
		t.Errorf("%d requests reached the upstream, want 3", n)
	}
}
