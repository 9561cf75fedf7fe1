package proxy_test

import (
	"bytes"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keygate/proxy/route"
)

// activeKeys are those of a memoryGate that may be used from an address that is no
// trusted proxy's.
var activeKeys = []string{"all", "reader", "tiny", "near", "berlin"}

// identity is what the upstream is told of a key, but for its scopes.
func identity(name, plan string) map[string]string {
	return map[string]string{
		"X-Keygate-Key-Id": "key_" + name, "X-Keygate-Account": "acc_a", "X-Keygate-Organization": "org_a",
		"X-Keygate-Organization-Slug": "default", "X-Keygate-Plan": plan,
	}
}

// check checks what reached the upstream of a request.
func (s *memoryServer) check(t *testing.T, r *served, peer string, trusted bool) {
	t.Helper()
	for _, a := range r.arrived {
		if a.r == nil {
			t.Errorf("the upstream got what is no request: %q", a.wire)
			continue
		}
		if problem := misread(a.wire); problem != "" {
			t.Errorf("the upstream got %q: %s", a.wire, problem)
		}
		s.checkIdentity(t, r, a.r)
		checkForwarding(t, r, a.r, peer, trusted)
		for name := range a.r.Header {
			checkName(t, name, a.r.Header[name])
		}
		for name := range a.r.Trailer {
			if fold(name) == "authorization" || strings.HasPrefix(fold(name), "x-") && droppedField(fold(name)) {
				t.Errorf("the upstream got the trailer %s: %q", name, a.r.Trailer[name])
			}
		}
		if in := route.CheckPath(a.r.URL); in != "" || a.r.URL.RawQuery != r.URL.RawQuery {
			t.Errorf("%s reached the upstream as %s: %s", r.RequestURI, a.r.RequestURI, in)
		}
	}
}

// checkIdentity wants the request to be the key's that it carries, or one that needs
// none.
func (s *memoryServer) checkIdentity(t *testing.T, r *served, out *http.Request) {
	t.Helper()
	told := make(http.Header)
	for name, values := range out.Header {
		if strings.HasPrefix(fold(name), "x-keygate-") {
			told[name] = values
		}
	}
	if path := r.URL.Path; path == "/status" || r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		if len(told) == 0 {
			return // public, or a preflight
		}
	}
	sent := r.Header["Authorization"]
	scheme, secret := "", ""
	if len(sent) == 1 && len(sent[0]) > 7 {
		scheme, secret = sent[0][:7], strings.Trim(sent[0][7:], " ")
	}
	at := slices.IndexFunc(activeKeys, func(name string) bool { return s.secrets[name] == secret })
	if !strings.EqualFold(scheme, "bearer ") || at < 0 {
		t.Errorf("%s %s reached the upstream with %q", r.Method, r.RequestURI, sent)
		return
	}
	plan := "enterprise"
	if activeKeys[at] == "tiny" {
		plan = "tiny"
	}
	want := identity(activeKeys[at], plan)
	if r.URL.Path == "/header" {
		want["X-Keygate-Space"], want["X-Keygate-Space-Slug"] = "spc_berlin", "berlin"
	}
	if len(told["X-Keygate-Scopes"]) != 1 {
		t.Errorf("the upstream is told of the scopes %q", told["X-Keygate-Scopes"])
	}
	delete(told, "X-Keygate-Scopes")
	if !maps.EqualFunc(told, want, func(got []string, want string) bool { return len(got) == 1 && got[0] == want }) {
		t.Errorf("the upstream is told of %v, want %v", told, want)
	}
}

// checkForwarding wants the upstream to be told once, and by the gate, who asked for
// what, and not to get the key.
func checkForwarding(t *testing.T, r *served, out *http.Request, peer string, trusted bool) {
	t.Helper()
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"} {
		if len(out.Header[name]) != 1 {
			t.Errorf("the upstream got %s: %q", name, out.Header[name])
			return
		}
	}
	chain, proto, host := out.Header["X-Forwarded-For"][0], out.Header["X-Forwarded-Proto"][0], out.Header["X-Forwarded-Host"][0]
	if trusted && !strings.HasSuffix(", "+chain, ", "+peer) || !trusted && (chain != peer || proto != "http" || host != r.Host) {
		t.Errorf("the upstream is told that %q asked %q for %q", chain, proto, host)
	}
	sent, got := r.Header["Authorization"], out.Header["Authorization"]
	if r.URL.Path != "/key" && got != nil || got != nil && !slices.Equal(got, sent) {
		t.Errorf("the upstream got the key: %q", got)
	}
	if r.URL.Path == "/changed" {
		for name, values := range out.Header {
			if fold(name) == "x-debug" || fold(name) == "x-tenant" && !slices.Equal(values, []string{"ours"}) {
				t.Errorf("the upstream got %s: %q", name, values)
			}
		}
	}
	if r.URL.Path == "/header" {
		bound := make(map[string]int)
		for name, values := range out.Header {
			bound[fold(name)] += len(values)
		}
		if bound["x-organization"] != 1 || bound["x-space"] != 1 || out.Header.Get("X-Space") != r.Header.Get("X-Space") {
			t.Errorf("what was judged by fields reached the upstream with %v", out.Header)
		}
	}
}

// fold is a field's name as a server knows it that reads '_' as '-'.
func fold(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// droppedField reports whether a field is the gate's to say, by its folded name.
func droppedField(name string) bool {
	return strings.HasPrefix(name, "x-keygate-") || strings.HasPrefix(name, "x-forwarded-") || slices.Contains([]string{
		"x-request-id", "x-real-ip", "x-original-url", "x-rewrite-url", "x-http-method-override", "x-http-method", "x-method-override",
	}, name)
}

// checkName wants a field of a request at the upstream to be one that may be there.
func checkName(t *testing.T, name string, values []string) {
	t.Helper()
	folded := fold(name)
	if droppedField(folded) && (name != http.CanonicalHeaderKey(folded) || strings.HasPrefix(name, "X-Forwarded-") && !slices.Contains([]string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}, name)) {
		t.Errorf("the upstream got %s: %q", name, values)
	}
	switch folded {
	case "connection":
		if !slices.Equal(values, []string{"Upgrade"}) && !slices.Equal(values, []string{"close"}) {
			t.Errorf("the upstream got %s: %q", name, values)
		}
	case "upgrade":
		if len(values) != 1 || !strings.EqualFold(values[0], "websocket") {
			t.Errorf("the upstream got %s: %q", name, values)
		}
	case "te":
		if !slices.Equal(values, []string{"trailers"}) {
			t.Errorf("the upstream got %s: %q", name, values)
		}
	case "proxy-authorization", "proxy-connection", "keep-alive", "http2-settings", "forwarded",
		"x-original-url", "x-rewrite-url", "x-real-ip", "x-http-method-override", "x-http-method", "x-method-override":
		t.Errorf("the upstream got %s: %q", name, values)
	}
}

// misread returns what a strict reader would find wrong with a request that came
// alone on its connection (RFC 9112): what it could take for something else.
func misread(wire []byte) string {
	head, rest, found := bytes.Cut(wire, []byte("\r\n\r\n"))
	if !found {
		return "the header does not end"
	}
	lines := strings.Split(string(head), "\r\n")
	if words := strings.Split(lines[0], " "); len(words) != 3 || !isToken(words[0]) || words[2] != "HTTP/1.1" {
		return "the first line"
	}
	if _, err := url.ParseRequestURI(strings.Split(lines[0], " ")[1]); err != nil {
		return err.Error()
	}
	counts := make(map[string]int)
	var length, coding string
	for _, line := range lines[1:] {
		name, value, wrong := fieldOf(line)
		if wrong != "" {
			return wrong
		}
		counts[name]++
		switch name {
		case "content-length":
			length = value
		case "transfer-encoding":
			coding = value
		}
	}
	switch {
	case strings.ContainsFunc(lines[0], control):
		return "a control character in the first line"
	case counts["host"] != 1:
		return "hosts"
	case counts["content-length"]+counts["transfer-encoding"] > 1:
		return "lengths"
	case coding != "" && coding != "chunked":
		return "a coding"
	case coding != "":
		return misreadChunks(string(rest))
	}
	if n, err := strconv.ParseUint("0"+length, 10, 62); err != nil || uint64(len(rest)) != n {
		return "a body of another length"
	}
	return ""
}

// misreadChunks is misread for what follows a header that says that it is chunked.
func misreadChunks(s string) string {
	for {
		size, rest, found := strings.Cut(s, "\r\n")
		n, err := strconv.ParseUint(size, 16, 31)
		if !found || err != nil || uint64(len(rest)) < n+2 {
			return "the size of a chunk"
		}
		if n == 0 {
			s = rest
			break
		}
		if rest[n:n+2] != "\r\n" {
			return "the end of a chunk"
		}
		s = rest[n+2:]
	}
	for s != "\r\n" {
		line, rest, found := strings.Cut(s, "\r\n")
		if !found {
			return "the end of the trailers"
		}
		if _, _, wrong := fieldOf(line); wrong != "" {
			return wrong
		}
		s = rest
	}
	return ""
}

// fieldOf reads a line of a header, and says what is wrong with it.
func fieldOf(line string) (name, value, wrong string) {
	name, value, found := strings.Cut(line, ":")
	switch {
	case !found || !isToken(name):
		return name, value, "a name in " + strconv.Quote(line)
	case strings.ContainsFunc(value, control):
		return name, value, "a control character in " + strconv.Quote(line)
	}
	return strings.ToLower(name), strings.Trim(value, " \t"), ""
}

func control(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}
