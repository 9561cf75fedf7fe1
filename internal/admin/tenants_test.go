package admin

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keygate/internal/keys"
)

func TestOrganizationsSpacesAccounts(t *testing.T) {
	t.Parallel()
	in := start(t)
	acme := into[Organization](t, in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "acme", Name: "Acme Inc.", Plan: "pro"}))
	if acme.Slug != "acme" || acme.Name != "Acme Inc." || acme.Plan != "pro" || !acme.CreatedAt.Equal(testStart) {
		t.Errorf("%+v", acme)
	}
	for _, ref := range []string{acme.ID, "acme"} {
		if got := into[Organization](t, in.must(http.StatusOK, "GET", "/v1/organizations/"+ref, nil)); !reflect.DeepEqual(got, acme) {
			t.Errorf("by %s: %+v", ref, got)
		}
	}
	list := into[Page[Organization]](t, in.must(http.StatusOK, "GET", "/v1/organizations", nil))
	if len(list.Items) != 2 || !reflect.DeepEqual(list.Items[0], acme) || list.Next != "" {
		t.Errorf("%+v", list)
	}

	research := into[Space](t, in.must(http.StatusCreated, "POST", "/v1/spaces", NewSpace{Organization: "acme", Slug: "research"}))
	if research.Organization != acme.ID || research.Name != "research" {
		t.Errorf("%+v", research)
	}
	spaces := into[Page[Space]](t, in.must(http.StatusOK, "GET", "/v1/spaces?organization=acme", nil))
	if !reflect.DeepEqual(spaces.Items, []Space{research}) {
		t.Errorf("%+v", spaces)
	}

	ada := into[Account](t, in.must(http.StatusCreated, "POST", "/v1/accounts", NewAccount{
		Name: "Ada", Email: "ada@example.com", Organization: acme.ID, Space: "research", Role: "viewer",
	}))
	if ada.Organization != acme.ID || ada.Email != "ada@example.com" || len(ada.Grants) != 1 || ada.Grants[0].Role != "viewer" || ada.Grants[0].Space != research.ID {
		t.Errorf("%+v", ada)
	}
	accounts := into[Page[Account]](t, in.must(http.StatusOK, "GET", "/v1/accounts?organization=acme", nil))
	if len(accounts.Items) != 2 || !reflect.DeepEqual(accounts.Items[0], ada) {
		t.Errorf("%+v", accounts)
	}

	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{
		Name: "reader", Organization: "acme", Account: ada.ID, Space: "research", Permissions: []string{"orders:read"}, Plan: "starter",
	}))
	if k.Organization != acme.ID || k.Account != ada.ID || k.Space != research.ID || k.Plan != "starter" {
		t.Errorf("%+v", k)
	}
	p := in.must(http.StatusUnprocessableEntity, "POST", "/v1/keys", NewKey{
		Name: "writer", Organization: "acme", Account: ada.ID, Permissions: []string{"orders:write"},
	}).problem(t)
	if len(p.Errors) != 1 || p.Errors[0].Pointer != "#/permissions/0" || !strings.Contains(p.Errors[0].Detail, "who lacks orders:write") {
		t.Errorf("beyond the owner's: %+v", p.Errors)
	}
}

func TestPagesOfKeys(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must(http.StatusCreated, "POST", "/v1/organizations", NewOrganization{Slug: "acme", Plan: "enterprise"})
	var want []string
	for i := range 7 {
		k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", NewKey{Name: fmt.Sprint("k", i%3), Organization: "acme"}))
		want = append([]string{k.ID}, want...)
	}
	for _, limit := range []int{1, 3, 7, 8, 200} {
		var got []string
		cursor, pages := "", 0
		for {
			page := into[Page[Key]](t, in.must(http.StatusOK, "GET", fmt.Sprintf("/v1/keys?organization=acme&limit=%d&cursor=%s", limit, url.QueryEscape(cursor)), nil))
			for _, k := range page.Items {
				got = append(got, k.ID)
			}
			pages++
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
		if most := (len(want) + limit - 1) / limit; pages != most {
			t.Errorf("limit %d: %d pages, want %d: the last one is known to be the last", limit, pages, most)
		}
	}
	named := into[Page[Key]](t, in.must(http.StatusOK, "GET", "/v1/keys?name=k1", nil))
	if len(named.Items) != 2 {
		t.Errorf("by name: %+v", named.Items)
	}
	none := in.must(http.StatusOK, "GET", "/v1/keys?name=nobody", nil)
	if strings.TrimSpace(string(none.body)) != `{"items":[]}` {
		t.Errorf("an empty list is %s", none.body)
	}
}

func TestCursors(t *testing.T) {
	t.Parallel()
	if after, ok := decodeCursor("keys", encodeCursor("keys", "key_1")); !ok || after != "key_1" {
		t.Errorf("%q %v", after, ok)
	}
	for _, c := range []string{"2:keys:key_1", "!", base64.RawURLEncoding.EncodeToString([]byte("1:key_1")), encodeCursor("keys", ""), encodeCursor("accounts", "key_1"), encodeCursor("keys", strings.Repeat("k", keys.MaxCursor+1))} {
		if after, ok := decodeCursor("keys", c); ok {
			t.Errorf("cursor %q is taken for %q", c, after)
		}
	}
}

func TestOperatorKeyHasNoOrganization(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.must(http.StatusOK, "GET", "/v1/keys?name=administrator", nil)
	k := into[Page[Key]](t, r).Items[0]
	if k.Organization != "" || strings.Contains(string(r.body), `"organization"`) || !slices.Equal(k.Permissions, []string{keys.PermissionOperator}) {
		t.Errorf("%s", r.body)
	}
}
