package admin

import (
	"net/http"
	"strings"

	"keygate/internal/keys"
)

// callerRoute is open to every valid key: it is what somebody asks who was
// refused everything else.
const callerRoute = "GET /v1/me"

// neededFor names the permission that an operation wants, for a key that holds
// nothing for this API; "" where there is none. Where one of several is enough it
// is the least.
func neededFor(route string) string {
	method, path, _ := strings.Cut(route, " ")
	switch {
	case route == callerRoute:
		return ""
	case strings.HasPrefix(path, "/v1/audit"):
		return keys.PermissionAudit
	case path == "/v1/replicas":
		return keys.PermissionOperator
	case method == http.MethodGet, path == "/v1/explain", strings.HasSuffix(path, "/test"):
		return keys.PermissionKeysRead
	case strings.HasPrefix(path, "/v1/keys"):
		return keys.PermissionKeysWrite
	}
	return keys.PermissionMembers
}
