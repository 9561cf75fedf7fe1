package config

import (
	"net/http"
	"slices"
	"strings"

	"keygate/proxy/route"
)

// forwarding reads how the requests of a route are passed on.
func (d *routeDecoder) forwarding(fields map[string]value, rule *route.Rule, hasPattern bool) {
	rule.Timeouts, rule.Retries = route.DefaultTimeouts(), route.DefaultRetries
	if up, ok := d.targets[rule.Upstream]; ok {
		rule.Timeouts = up.Timeouts
	}
	if v, ok := fields["timeouts"]; ok {
		rule.Timeouts = d.timeouts(v, rule.Timeouts)
	}
	if v, ok := fields["retries"]; ok {
		rule.Retries = int(d.within(v, 0, route.MaxRetries))
	}
	if v, ok := fields["max_body"]; ok {
		rule.MaxBody = d.size(v)
	}
	if v, ok := fields["forward_key"]; ok {
		rule.ForwardKey, _ = d.boolean(v)
	}
	if v, ok := fields["rewrite"]; ok {
		rule.Rewrite = d.rewrite(v, rule.Pattern, hasPattern)
	}
	if v, ok := fields["request_headers"]; ok {
		rule.RequestHeaders = d.headers(v, requestOwn)
	}
	if v, ok := fields["response_headers"]; ok {
		rule.ResponseHeaders = d.headers(v, responseOwn)
	}
	if v, ok := fields["cors"]; ok {
		rule.CORS = d.cors(v)
	}
}

func (d *routeDecoder) rewrite(v value, pattern route.Pattern, hasPattern bool) (out route.Rewrite) {
	fields, _ := d.fields(v, rewriteForm)
	if v, ok := fields["strip"]; ok {
		if out.Strip, ok = d.pathPart(v); ok && hasPattern && !pattern.BeginsWith(out.Strip) {
			d.fail(v, "is %s, which is not what every path of %s begins with", quoted(out.Strip), quoted(pattern.String()))
		}
	}
	if v, ok := fields["prefix"]; ok {
		out.Prefix, _ = d.pathPart(v)
	}
	if v, ok := fields["host"]; ok {
		if out.Host, ok = d.text(v); ok && out.Host != route.ClientHost && !isAuthority(out.Host) {
			d.fail(v, "is %s; allowed is a host with a port perhaps, or %s for the one that the client asked for", quoted(out.Host), route.ClientHost)
		}
	}
	return out
}

// pathPart wants whole segments of characters that are the same however a path is
// written (RFC 3986, section 2.3).
func (d *decoder) pathPart(v value) (string, bool) {
	s, ok := d.text(v)
	if !ok {
		return s, false
	}
	good := strings.HasPrefix(s, "/")
	for segment := range strings.SplitSeq(strings.TrimPrefix(s, "/"), "/") {
		good = good && segment != "" && segment != "." && segment != ".."
	}
	for _, c := range []byte(s) {
		good = good && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/-._~", c) >= 0)
	}
	if !good {
		d.fail(v, "is %s; allowed are segments of letters, digits, '-', '.', '_' and '~', each after a /, as in /internal/v2", quoted(s))
	}
	return s, good
}

// isAuthority reports whether a Host header may say this.
func isAuthority(s string) bool {
	host, port, ported := strings.Cut(s, ":")
	return host != "" && isHostname(host) && (!ported || isPort(port, 1))
}

// What of a header is keygate's own and cannot be changed by a policy.
var (
	requestOwn  = []string{"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "forwarded"}
	responseOwn = []string{"ratelimit", "ratelimit-policy", "x-request-id"}
)

// maxValue bounds the value of a header.
const maxValue = 4096

func (d *decoder) headers(v value, own []string) (out route.Headers) {
	fields, _ := d.fields(v, headersForm)
	there := make(map[string]string)
	once := func(v value, name, how string) string {
		name = d.headerName(v, name, own)
		if before, twice := there[name]; twice && name != "" {
			d.fail(v, "is under %s already", before)
		}
		there[name] = how
		return name
	}
	for _, part := range []struct {
		name string
		to   *[]route.Field
	}{{"set", &out.Set}, {"add", &out.Add}} {
		v, ok := fields[part.name]
		if !ok {
			continue
		}
		entries, _ := d.mapping(v)
		for _, e := range entries {
			name := once(e.key, e.name, part.name)
			*part.to = append(*part.to, route.Field{Name: name, Value: d.headerValue(e.value)})
		}
	}
	if v, ok := fields["remove"]; ok {
		names, places := d.names(v)
		for i, name := range names {
			out.Remove = append(out.Remove, once(places[i], name, "remove"))
		}
	}
	return out
}

// headerName returns a name in canonical form, "" if it cannot be changed.
func (d *decoder) headerName(v value, name string, own []string) string {
	problem := checkField(name)
	if len(name) > maxBinding {
		problem = "it is too long"
	}
	// As the proxy does: some servers read '_' as '-'.
	if field := strings.ReplaceAll(strings.ToLower(name), "_", "-"); slices.Contains(own, field) || strings.HasPrefix(field, "x-keygate-") {
		problem = "that header is keygate's own"
	}
	if problem != "" {
		d.fail(v, "is %s, but %s", quoted(name), problem)
		return ""
	}
	return http.CanonicalHeaderKey(name)
}

// headerValue wants what a header can hold (RFC 9110, section 5.5), without the
// octets beyond ASCII, which everybody reads in another way. It is not repeated:
// it may be a credential.
func (d *decoder) headerValue(v value) string {
	s, ok := d.text(v)
	if ok && (!isPrintable(s) || strings.TrimSpace(s) != s || len(s) > maxValue) {
		d.fail(v, "is no value of a header; allowed are at most %d printable ASCII characters, without space at the ends", maxValue)
	}
	return s
}

// checkField returns why a policy cannot name a header at all.
func checkField(name string) string {
	for _, c := range []byte(name) {
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return "that is no header name (RFC 9110, section 5.1)"
		}
	}
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return "that header belongs to the connection and is not forwarded"
	case "Host", "Content-Length":
		return "that header has a meaning of its own in HTTP"
	}
	return ""
}
