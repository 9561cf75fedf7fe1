package config

import (
	"fmt"
	"testing"
)

// An organization could be named by a header that never goes upstream: what the gate
// had judged the upstream was not told, and went by another.
func TestNoBindingByADroppedHeader(t *testing.T) {
	const policy = `
version: 1
upstreams: { api: { targets: ["http://upstream.test"] } }
routes: [{ match: "/x", permission: any, organization: "header:%s" }]
`
	parses := func(name string) bool {
		_, err := ParsePolicy("test.yaml", fmt.Appendf(nil, policy, name))
		return err == nil
	}
	for _, name := range []string{
		"Proxy", "True-Client-Ip", "True_client_ip", "X-Keygate-Any", "X-Forwarded-Any", "x_forwarded_for", "Forwarded",
		"X-Request-Id", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Forwarded", "X-Host", "X-Original-Host",
		"X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
	} {
		if parses(name) {
			t.Errorf("a policy may bind an organization by %s", name)
		}
	}
	if !parses("X-Organization") {
		t.Error("no header may be bound at all")
	}
}
