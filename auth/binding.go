package auth

import (
	"net/http"
	"net/url"
	"strings"

	"keygate/proxy/route"
)

// boundValue reads the one value by which a request names its organization or
// space. None is a refusal like a wrong one; several, or a request in which an
// upstream could find another than we do, is the client's error.
func boundValue(r *http.Request, rule *route.Rule, b *route.Binding, what string) (string, *Refusal) {
	switch b.Source {
	case route.FromHeader:
		return headerValue(r.Header, b.Name, what)
	case route.FromQuery:
		return queryValue(r.URL.RawQuery, b.Name, what)
	default:
		param, _ := rule.Pattern.Param(b.Name) // its presence was checked at load
		value := param.Value(r.URL.Path)
		if value == "" {
			return "", refuse(Tenant, "The path names no %s.", what)
		}
		return value, nil
	}
}

func headerValue(h http.Header, name, what string) (string, *Refusal) {
	if nominated(h, name) {
		return "", refuse(BadBinding, "The Connection header names %s, which says what %s the request is about and must reach the API.", name, what)
	}
	for field := range h {
		// Some servers read X_Organization and X-Organization as one header.
		if field != name && route.SameField(field, name) {
			return "", refuse(BadBinding, "The request spells the header %s, which says what %s it is about, in another way too. Send exactly one.", name, what)
		}
	}
	values := h[name]
	if len(values) == 0 {
		return only("", 0, "header", name, what)
	}
	return only(values[0], len(values), "header", name, what)
}

func queryValue(rawQuery, name, what string) (string, *Refusal) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil || strings.Contains(rawQuery, "#") { // behind which some servers read no further
		return "", refuse(BadBinding, "The query cannot be parsed, and it says what %s the request is about.", what)
	}
	return only(query.Get(name), len(query[name]), "query parameter", name, what)
}

func only(value string, n int, source, name, what string) (string, *Refusal) {
	switch {
	case n > 1:
		return "", refuse(BadBinding, "The request has %d values for the %s %s, which says what %s it is about. Send exactly one.", n, source, name, what)
	case n == 0 || value == "":
		return "", refuse(Tenant, "The request names no %s: send it as the %s %s.", what, source, name)
	}
	return value, nil
}

func nominated(h http.Header, name string) bool {
	for _, value := range h["Connection"] {
		for token := range strings.SplitSeq(value, ",") {
			if route.SameField(strings.TrimSpace(token), name) {
				return true
			}
		}
	}
	return false
}
