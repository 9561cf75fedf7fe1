package management

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// attempt is a request about another organization's things.
type attempt struct {
	request
	// want is what a key gets that may do everything at its own organization.
	want int
	// elsewhere: an answer depends on where in a list an id would stand, so that
	// those about different ids differ.
	elsewhere bool
}

func at(want int, method, target string, body any) attempt {
	return attempt{request: request{method: method, target: target, body: body}, want: want}
}

func cursorOf(list, position string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("2:" + list + ":" + position))
}

// both asks for a thing by its id and by another name of it.
func both(want int, method, before string, names []string, after string, body any) []attempt {
	var all []attempt
	for _, name := range names {
		all = append(all, at(want, method, before+url.PathEscape(name)+after, body))
	}
	return all
}

// listed asks for a list from a place in another's.
func listed(list string, r refs) []attempt {
	a := at(200, "GET", list+"?cursor="+r.cursors[list], nil)
	a.elsewhere = true
	return []attempt{a}
}

func keyed(want int, verb string, body any) func(own *tenant, r refs) []attempt {
	return func(_ *tenant, r refs) []attempt {
		all := both(want, "POST", "/v1/keys/", []string{r.key, r.name}, "/"+verb, body)
		exposed := at(400, "POST", "/v1/keys/"+r.secret+"/"+verb, body) // whosever it is
		matched := at(want, "POST", "/v1/keys/"+r.key+"/"+verb, body)
		matched.header = map[string]string{"If-Match": `"1"`, "Idempotency-Key": "hostile"}
		return append(all, exposed, matched)
	}
}

func plain(target string) func(*tenant, refs) []attempt {
	return func(*tenant, refs) []attempt { return []attempt{at(200, "GET", target, nil)} }
}

func join(lists ...[]attempt) []attempt {
	var all []attempt
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// hostile has the attempts of each operation, for things of any organization but
// one's own.
var hostile = map[string]func(own *tenant, r refs) []attempt{
	"create-key": func(own *tenant, r refs) []attempt {
		return []attempt{
			at(422, "POST", "/v1/keys", object{"name": "x", "organization": r.org}),
			at(422, "POST", "/v1/keys", object{"name": "x", "organization": r.slug}),
			at(422, "POST", "/v1/keys", object{"name": "x", "organization": r.org, "space": r.space, "account": r.account}),
			at(422, "POST", "/v1/keys", object{"name": "x", "organization": r.slug, "account": own.account}),
			at(422, "POST", "/v1/keys", object{"name": "x", "account": r.account}),
			at(422, "POST", "/v1/keys", object{"name": "x", "account": r.account, "organization": own.org}),
			at(422, "POST", "/v1/keys", object{"name": "x", "space": r.space}),
			at(422, "POST", "/v1/keys", object{"name": "x", "space": r.spaceSlug}),
			at(422, "POST", "/v1/keys", object{"name": "x", "space": r.spaceSlug, "organization": own.slug, "account": own.account}),
		}
	},
	"list-keys": func(own *tenant, r refs) []attempt {
		return join(
			both(404, "GET", "/v1/keys?organization=", []string{r.org, r.slug}, "", nil),
			both(404, "GET", "/v1/keys?space=", []string{r.space, r.spaceSlug}, "", nil),
			both(404, "GET", "/v1/keys?organization="+own.org+"&space=", []string{r.space, r.spaceSlug}, "", nil),
			both(404, "GET", "/v1/keys?organization="+r.org+"&space=", []string{r.space, own.space}, "", nil),
			both(200, "GET", "/v1/keys?account=", []string{r.account}, "", nil),
			both(200, "GET", "/v1/keys?name=", []string{r.name}, "", nil),
			both(200, "GET", "/v1/keys?q=", []string{r.name, r.slug}, "", nil),
			listed("/v1/keys", r),
		)
	},
	"get-key": func(_ *tenant, r refs) []attempt {
		return append(both(404, "GET", "/v1/keys/", []string{r.key, r.name}, "", nil), at(400, "GET", "/v1/keys/"+r.secret, nil))
	},
	"edit-key": func(own *tenant, r refs) []attempt {
		matched := at(404, "PATCH", "/v1/keys/"+r.key, object{"name": "x"})
		matched.header = map[string]string{"If-Match": `"1"`}
		stale := at(404, "PATCH", "/v1/keys/"+r.key, object{"name": "x"})
		stale.header = map[string]string{"If-Match": `"99"`}
		return append(both(404, "PATCH", "/v1/keys/", []string{r.key, r.name}, "", object{"name": "x"}), matched, stale,
			at(404, "PATCH", "/v1/keys/"+r.key, object{"permissions": []string{}}), at(404, "PATCH", "/v1/keys/"+r.key, object{}))
	},
	"delete-key": func(_ *tenant, r refs) []attempt {
		matched := at(404, "DELETE", "/v1/keys/"+r.key+"?wait=replicas", nil)
		matched.header = map[string]string{"If-Match": `"1"`}
		return append(both(404, "DELETE", "/v1/keys/", []string{r.key, r.name}, "", nil), matched)
	},
	"pause-key":  keyed(404, "pause", nil),
	"resume-key": keyed(404, "resume", nil),
	"revoke-key": keyed(404, "revoke", nil),
	"rotate-key": func(own *tenant, r refs) []attempt {
		return join(keyed(404, "rotate", nil)(own, r), keyed(404, "rotate", object{"overlap": "1h", "expires": "30d"})(own, r))
	},
	"test-key": func(own *tenant, r refs) []attempt {
		return append(join(keyed(404, "test", nil)(own, r), keyed(404, "test", object{"permission": "orders:read"})(own, r)),
			at(404, "POST", "/v1/keys/"+own.key+"/test", object{"permission": "orders:read", "space": r.space}),
			at(404, "POST", "/v1/keys/"+own.key+"/test", object{"permission": "orders:read", "space": r.spaceSlug}))
	},
	"explain": func(_ *tenant, r refs) []attempt {
		return []attempt{
			at(404, "POST", "/v1/explain", object{"method": "GET", "path": "/orders", "key_id": r.key}),
			at(404, "POST", "/v1/explain", object{"method": "GET", "path": "/orders", "key_id": r.name}),
			at(200, "POST", "/v1/explain", object{"method": "GET", "path": "/orders", "key": r.secret}),
			at(200, "POST", "/v1/explain", object{"method": "GET", "path": "/orders", "headers": object{"Authorization": "Bearer " + r.secret}}),
		}
	},
	"import-keys": func(_ *tenant, r refs) []attempt {
		hash := strings.Repeat("ab", 32)
		return []attempt{
			at(403, "POST", "/v1/keys/import", object{"keys": []object{{"name": "x", "organization": r.org, "hash": hash}}}),
			at(403, "POST", "/v1/keys/import", object{"keys": []object{}}),
		}
	},
	"export-keys": func(_ *tenant, r refs) []attempt {
		return both(403, "GET", "/v1/keys/export?organization=", []string{r.org, r.slug, ""}, "", nil)
	},
	"create-organization": func(_ *tenant, r refs) []attempt {
		return []attempt{at(403, "POST", "/v1/organizations", object{"slug": r.slug})}
	},
	"list-organizations": func(_ *tenant, r refs) []attempt {
		return append(listed("/v1/organizations", r), at(200, "GET", "/v1/organizations", nil))
	},
	"get-organization": func(_ *tenant, r refs) []attempt {
		return both(404, "GET", "/v1/organizations/", []string{r.org, r.slug, r.org + ":" + r.spaceSlug}, "", nil)
	},
	"edit-organization": func(_ *tenant, r refs) []attempt {
		return join(
			both(404, "PATCH", "/v1/organizations/", []string{r.org, r.slug}, "", object{"name": "x"}),
			both(404, "PATCH", "/v1/organizations/", []string{r.org, r.slug}, "", object{"plan": "wide", "slug": "x"}),
		)
	},
	"delete-organization": func(_ *tenant, r refs) []attempt {
		return both(404, "DELETE", "/v1/organizations/", []string{r.org, r.slug}, "", nil)
	},
	"create-space": func(_ *tenant, r refs) []attempt {
		return []attempt{
			at(422, "POST", "/v1/spaces", object{"organization": r.org, "slug": "x"}),
			at(422, "POST", "/v1/spaces", object{"organization": r.slug, "slug": r.spaceSlug}),
		}
	},
	"list-spaces": func(_ *tenant, r refs) []attempt {
		return join(both(404, "GET", "/v1/spaces?organization=", []string{r.org, r.slug}, "", nil), listed("/v1/spaces", r))
	},
	"get-space":    spaced("GET", nil),
	"edit-space":   spaced("PATCH", object{"name": "x"}),
	"delete-space": spaced("DELETE", nil),
	"create-account": func(_ *tenant, r refs) []attempt {
		return []attempt{
			at(422, "POST", "/v1/accounts", object{"name": "x", "role": "viewer", "organization": r.org}),
			at(422, "POST", "/v1/accounts", object{"name": "x", "role": "viewer", "organization": r.slug}),
			at(422, "POST", "/v1/accounts", object{"name": "x", "role": "viewer", "space": r.space}),
			at(422, "POST", "/v1/accounts", object{"name": "x", "role": "viewer", "space": r.spaceSlug}),
		}
	},
	"list-accounts": func(_ *tenant, r refs) []attempt {
		return join(both(404, "GET", "/v1/accounts?organization=", []string{r.org, r.slug}, "", nil), listed("/v1/accounts", r))
	},
	"get-account": func(_ *tenant, r refs) []attempt {
		return both(404, "GET", "/v1/accounts/", []string{r.account}, "", nil)
	},
	"edit-account": func(_ *tenant, r refs) []attempt {
		return both(404, "PATCH", "/v1/accounts/", []string{r.account}, "", object{"name": "x"})
	},
	"delete-account": func(_ *tenant, r refs) []attempt {
		return both(404, "DELETE", "/v1/accounts/", []string{r.account}, "", nil)
	},
	"add-grant": func(own *tenant, r refs) []attempt {
		mine := "/v1/accounts/" + own.weakAccount + "/grants"
		return []attempt{
			at(404, "POST", "/v1/accounts/"+r.account+"/grants", object{"role": "viewer"}),
			at(404, "POST", "/v1/accounts/"+r.account+"/grants", object{"role": "viewer", "organization": own.org}),
			at(422, "POST", mine, object{"role": "viewer", "organization": r.org}),
			at(422, "POST", mine, object{"role": "viewer", "organization": r.slug}),
			at(422, "POST", mine, object{"role": "viewer", "space": r.space}),
			at(422, "POST", mine, object{"role": "viewer", "space": r.spaceSlug}),
		}
	},
	"remove-grant": func(own *tenant, r refs) []attempt {
		return []attempt{
			at(404, "DELETE", "/v1/accounts/"+r.account+"/grants/"+r.grant, nil),
			at(404, "DELETE", "/v1/accounts/"+own.account+"/grants/"+r.grant, nil),
			at(404, "DELETE", "/v1/accounts/"+r.account+"/grants/"+own.grant, nil),
		}
	},
	"list-audit":   audited("/v1/audit"),
	"export-audit": audited("/v1/audit/export"),
	"get-caller":   plain("/v1/me"),
	"list-replicas": func(*tenant, refs) []attempt {
		return []attempt{at(403, "GET", "/v1/replicas", nil)}
	},
	"list-permissions": plain("/v1/permissions"),
	"list-roles":       plain("/v1/roles"),
	"list-plans":       plain("/v1/plans"),
}

func spaced(method string, body any) func(*tenant, refs) []attempt {
	return func(own *tenant, r refs) []attempt {
		names := []string{r.space, r.spaceSlug}
		return join(
			both(404, method, "/v1/spaces/", names, "", body),
			both(404, method, "/v1/spaces/", names, "?organization="+r.org, body),
			both(404, method, "/v1/spaces/", names, "?organization="+r.slug, body),
			both(404, method, "/v1/spaces/", names, "?organization="+own.org, body),
			both(404, method, "/v1/spaces/", []string{own.space, own.spaceSlug}, "?organization="+r.org, body),
		)
	}
}

func audited(path string) func(*tenant, refs) []attempt {
	return func(own *tenant, r refs) []attempt {
		all := join(
			both(404, "GET", path+"?organization=", []string{r.org, r.slug}, "", nil),
			both(200, "GET", path+"?target=", []string{r.key, r.org, r.account}, "", nil),
			both(200, "GET", path+"?actor=", []string{r.actor, r.account}, "", nil),
		)
		if path == "/v1/audit" {
			all = append(all, listed(path, r)...)
		}
		return all
	}
}
