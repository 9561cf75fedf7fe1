package admin

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

func TestWhoMayManage(t *testing.T) {
	t.Parallel()
	in := start(t)
	create := func(n NewKey) CreatedKey {
		t.Helper()
		return into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", n))
	}
	plain := create(NewKey{Name: "plain", Permissions: []string{"orders:read"}})
	admin := create(NewKey{Name: "admin", Permissions: []string{"admin"}})
	paused := create(NewKey{Name: "paused"})
	in.must(http.StatusOK, "POST", "/v1/keys/"+paused.ID+"/pause", nil)
	revoked := create(NewKey{Name: "revoked"})
	in.must(http.StatusOK, "POST", "/v1/keys/"+revoked.ID+"/revoke", nil)
	expired := create(NewKey{Name: "expired", Expires: testStart.Add(time.Second).Format(time.RFC3339)})
	in.now = in.now.Add(time.Second)
	flipped := in.key[:len(in.key)-1] + "!"

	for _, tc := range []struct {
		name, authorization, query string
		status                     int
		error, challenge           string
	}{
		{"no key", "", "", 401, "API key is missing", `Bearer realm="keygate"`},
		{"another scheme", "Basic " + in.key, "", 401, "API key is missing", `Bearer realm="keygate"`},
		{"malformed", "Bearer " + flipped, "", 401, "API key is invalid", `Bearer realm="keygate", error="invalid_token", error_description="API key is invalid"`},
		{"unknown", "Bearer " + in.format.Generate(), "", 401, "API key is invalid", `Bearer realm="keygate", error="invalid_token", error_description="API key is invalid"`},
		{"paused", "Bearer " + paused.Secret, "", 401, "API key is paused", `Bearer realm="keygate", error="invalid_token", error_description="API key is paused"`},
		{"revoked", "Bearer " + revoked.Secret, "", 401, "API key has been revoked", `Bearer realm="keygate", error="invalid_token", error_description="API key has been revoked"`},
		{"expired", "Bearer " + expired.Secret, "", 401, "API key has expired", `Bearer realm="keygate", error="invalid_token", error_description="API key has expired"`},
		{"in the URL", "", "?key=" + in.key, 401, "API key is missing", `Bearer realm="keygate"`},
		{"in the URL and the header", "Bearer " + in.key, "?key=" + in.key, 400, "Ambiguous credentials", `Bearer realm="keygate", error="invalid_request", error_description="Ambiguous credentials"`},
		{"holds nothing of keygate", "Bearer " + plain.Secret, "", 403, "Insufficient permissions", `Bearer realm="keygate", error="insufficient_scope", scope="keygate:keys-read"`},
		{"admin of an organization", "Bearer " + admin.Secret, "", 200, "", ""},
		{"any case of the scheme", "bEARER   " + in.key, "", 200, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := in.request("GET", "/v1/keys"+tc.query, nil)
			if tc.authorization != "" {
				r.Header.Set("Authorization", tc.authorization)
			}
			got := in.send(r)
			if got.status != tc.status || got.header.Get("WWW-Authenticate") != tc.challenge {
				t.Fatalf("%d %q %s", got.status, got.header.Get("WWW-Authenticate"), got.body)
			}
			if tc.status == http.StatusOK {
				return
			}
			p := got.problem(t)
			if p.Error != tc.error {
				t.Errorf("error %q, want %q", p.Error, tc.error)
			}
			if strings.Contains(string(got.body), in.key) {
				t.Error("the answer repeats the key")
			}
			if tc.status == http.StatusForbidden {
				if !strings.HasPrefix(p.Detail, "Insufficient permissions for operation GET /v1/keys") || !slices.Equal(p.Required, []string{keys.PermissionKeysRead}) || len(p.Granted) == 0 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

func TestTwoAuthorizationHeaders(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.request("GET", "/v1/keys", nil)
	r.Header["Authorization"] = []string{"Bearer " + in.key, "Bearer " + in.key}
	if got := in.send(r); got.status != http.StatusBadRequest || got.problem(t).Error != "Ambiguous credentials" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A key of the operators that is bound to addresses is refused elsewhere: the
// rule for the proxy holds for the management API too.
func TestAllowedAddressesHoldHere(t *testing.T) {
	t.Parallel()
	in := start(t)
	page := into[Page[Key]](t, in.must(http.StatusOK, "GET", "/v1/keys?name=administrator", nil))
	near := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{
		Name: "near", Account: page.Items[0].Account, Permissions: []string{keys.PermissionOperator}, AllowedCIDRs: []string{"127.0.0.0/8"},
	}))
	far := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{
		Name: "far", Account: page.Items[0].Account, Permissions: []string{keys.PermissionOperator}, AllowedCIDRs: []string{"192.0.2.0/24"},
	}))
	if r := in.as(near.Secret, "GET", "/v1/keys", nil); r.status != http.StatusOK {
		t.Errorf("from an allowed address: %d %s", r.status, r.body)
	}
	r := in.as(far.Secret, "GET", "/v1/keys", nil)
	if r.status != http.StatusForbidden || !strings.Contains(r.problem(t).Detail, "127.0.0.1") {
		t.Errorf("from another address: %d %s", r.status, r.body)
	}
}

// What changes through the API takes effect on this replica with the answer.
func TestRevocationIsImmediate(t *testing.T) {
	t.Parallel()
	in := start(t)
	page := into[Page[Key]](t, in.must(http.StatusOK, "GET", "/v1/keys?name=administrator", nil))
	second := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{
		Name: "second", Account: page.Items[0].Account, Permissions: []string{keys.PermissionOperator},
	}))
	if r := in.as(second.Secret, "GET", "/v1/keys", nil); r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	in.must(http.StatusOK, "POST", "/v1/keys/"+second.ID+"/revoke", nil)
	if r := in.as(second.Secret, "GET", "/v1/keys", nil); r.status != http.StatusUnauthorized {
		t.Errorf("after its revocation: %d %s", r.status, r.body)
	}
}
