package config

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"keygate/proxy/route"
)

// cors reads which pages of other origins may use a route.
func (d *routeDecoder) cors(v value) *route.CORS {
	out := &route.CORS{Headers: route.DefaultCORSHeaders(), MaxAge: route.DefaultCORSMaxAge}
	fields, _ := d.fields(v, corsForm)
	if v, ok := fields["origins"]; ok {
		out.Origins = d.origins(v)
	}
	if v, ok := fields["methods"]; ok {
		names, places := d.names(v)
		for i, name := range names {
			if !slices.Contains(route.Methods(), name) {
				d.fail(places[i], "is %s, which is no method%s", quoted(name), d.didYouMean(strings.ToUpper(name), route.Methods()))
			}
		}
		out.Methods = names
	}
	if v, ok := fields["headers"]; ok {
		out.Headers = d.corsHeaders(v)
	}
	if v, ok := fields["credentials"]; ok {
		out.Credentials, _ = d.boolean(v)
		if out.Credentials && slices.Contains(out.Origins, route.AnyOrigin) {
			d.fail(v, "is true, but the origins are all there are: every page could act for whoever is logged in; name the origins")
		}
	}
	if v, ok := fields["max_age"]; ok {
		span, ok := d.duration(v)
		if ok && (span < 0 || span > route.MaxCORSMaxAge || span%time.Second != 0) {
			d.fail(v, "is %s; allowed are whole seconds from 0s to %s", quoted(v.node.Value), "24h")
		}
		out.MaxAge = span
	}
	return out
}

// origins wants them as browsers send them (RFC 6454, section 6.2), which is
// compared byte for byte.
func (d *decoder) origins(v value) []string {
	names, places := d.names(v)
	for i, name := range names {
		if name == route.AnyOrigin {
			if len(names) > 1 {
				d.fail(places[i], "is %s, which allows all origins and stands alone", quoted(name))
			}
			continue
		}
		scheme, authority, ok := strings.Cut(name, "://")
		if !ok || scheme != "http" && scheme != "https" || !isAuthority(authority) || strings.ToLower(name) != name {
			d.fail(places[i], "is %s; allowed is * or an origin as browsers send it: http or https, host and port in lower case and nothing more, such as https://app.example.com", quoted(name))
			continue
		}
		if standard := map[string]string{"http": ":80", "https": ":443"}[scheme]; strings.HasSuffix(authority, standard) {
			d.fail(places[i], "is %s, but browsers leave out the standard port %s", quoted(name), standard[1:])
		}
	}
	return names
}

func (d *decoder) corsHeaders(v value) []string {
	names, places := d.names(v)
	var out []string
	for i, name := range names {
		if problem := checkField(name); problem != "" || len(name) > maxBinding {
			if problem == "" {
				problem = "it is too long"
			}
			d.fail(places[i], "is %s, but %s", quoted(name), problem)
			continue
		}
		out = append(out, http.CanonicalHeaderKey(name))
	}
	return out
}
