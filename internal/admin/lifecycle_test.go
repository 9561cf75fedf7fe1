package admin

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

// A key that ends soon, or may be used from one place only, made itself one for
// ever and from anywhere. Whoever took it could.
func TestKeyDoesNotLoosenItsOwnBounds(t *testing.T) {
	t.Parallel()
	in := start(t)
	owner := in.key
	in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "acme", Plan: "enterprise"})
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{
		Name: "a", Organization: "acme", Permissions: []string{"keygate:keys-write"}, Expires: "30d", AllowedCIDRs: []string{"127.0.0.0/8", "::1"},
	}))
	other := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "b", Organization: "acme", Permissions: []string{"keygate:keys-write"}}))
	path := "/v1/keys/" + k.ID
	in.key = k.Secret
	all := KeyEdit{Expires: new("never"), AllowedCIDRs: new([]string{})}
	for _, edit := range []KeyEdit{all, {Expires: new("31d")}, {AllowedCIDRs: new([]string{"0.0.0.0/0"})}, {AllowedCIDRs: new([]string{"127.0.0.1", "10.0.0.1"})}} {
		if p := in.must(http.StatusForbidden, "PATCH", path, edit).problem(t); len(p.Errors) == 0 || !strings.Contains(p.Detail, "another key of the organization") {
			t.Errorf("%+v", p)
		}
	}
	in.must(http.StatusForbidden, "POST", path+"/rotate", Rotation{Expires: "1y"})
	in.must(http.StatusOK, "PATCH", path, KeyEdit{Expires: new("29d"), AllowedCIDRs: new([]string{"127.0.0.0/16"})})
	in.key = other.Secret
	in.must(http.StatusOK, "PATCH", path, all)
	in.key = owner
}

// A policy from which an entry was missing for a moment let a member have the secret
// of a key that holds the entry: when it was back, the member held it too.
func TestSecretOfWhatThePolicyLacks(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "strong", Permissions: []string{"orders:write", "orders:*"}}))
	member := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "weak", Permissions: []string{"keygate:keys-write", "keygate:members"}}))
	whole := in.policy
	catalogue, err := keys.NewCatalogue(nil)
	if err != nil {
		t.Fatal(err)
	}
	reduced := *whole
	reduced.Catalogue = catalogue
	for name, policy := range map[string]*keys.Policy{"whole": whole, "reduced": &reduced} {
		in.policy = policy
		p := in.as(member.Secret, "POST", "/v1/keys/"+k.ID+"/rotate", nil)
		if p.status != http.StatusForbidden || !strings.Contains(p.problem(t).Detail, "orders:write") {
			t.Errorf("under the %s policy: %d %s", name, p.status, p.body)
		}
		in.must(http.StatusOK, "POST", "/v1/keys/"+k.ID+"/rotate", nil) // an operator may
	}
}

// An empty text, as from a variable that is not set, made a key one for ever.
func TestEmptyExpiryIsNoExpiry(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a", Expires: "30d"}))
	if p := in.must(http.StatusUnprocessableEntity, "PATCH", "/v1/keys/"+k.ID, KeyEdit{Expires: new("")}).problem(t); p.Errors[0].Pointer != "#/expires" {
		t.Errorf("%+v", p)
	}
	if got := into[Key](t, in.must(http.StatusOK, "GET", "/v1/keys/"+k.ID, nil)); got.ExpiresAt.IsZero() {
		t.Error("the key never expires")
	}
	in.now = in.now.AddDate(0, 0, 31)
	if p := in.must(http.StatusConflict, "POST", "/v1/keys/"+k.ID+"/resume", nil).problem(t); !strings.Contains(p.Detail, "rotate it") {
		t.Errorf("an expired key: %s", p.Detail)
	}
}

// The answer said when the former secret ends to the nanosecond, the store kept
// less; and the fourth secret back was no longer known as one that had been good.
func TestFormerSecrets(t *testing.T) {
	t.Parallel()
	in := start(t)
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: "a", Permissions: []string{"read:all"}}))
	path := "/v1/keys/" + k.ID
	in.must(http.StatusUnprocessableEntity, "POST", path+"/rotate", Rotation{Overlap: "1s1ns"})
	rotated := into[CreatedKey](t, in.must(http.StatusOK, "POST", path+"/rotate", Rotation{Overlap: "1h"}))
	if got := into[Key](t, in.must(http.StatusOK, "GET", path, nil)); !got.Former.EndsAt.Equal(rotated.Former.EndsAt) {
		t.Errorf("the former secret ends %v, it was said %v", got.Former.EndsAt, rotated.Former.EndsAt)
	}
	in.now = in.now.Add(2 * time.Hour)
	rotations, operator := 1, in.key
	for ; rotations < 12; rotations++ {
		in.key = k.Secret
		if p := in.must(http.StatusUnauthorized, "GET", "/v1/me", nil).problem(t); p.Error != "API key has been revoked" {
			t.Fatalf("after %d rotations the first secret: %s", rotations, p.Error)
		}
		in.key = operator
		in.must(http.StatusOK, "POST", path+"/rotate", nil)
	}
	in.key = k.Secret
	if p := in.must(http.StatusUnauthorized, "GET", "/v1/me", nil).problem(t); p.Error != "API key is invalid" {
		t.Errorf("after %d rotations the first secret: %s", rotations, p.Error)
	}
}
