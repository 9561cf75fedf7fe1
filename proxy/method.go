package proxy

import (
	"net/http"
	"slices"
	"strings"

	"keygate/proxy/route"
)

// inAnotherCase reports whether a method is a known one but for the case of its letters.
// Methods are case-sensitive (RFC 9110, section 9.1), so that it is another to the rules;
// to frameworks that write them in capitals it is not.
func inAnotherCase(method string) bool {
	if !strings.ContainsFunc(method, func(c rune) bool { return 'a' <= c && c <= 'z' }) {
		return false
	}
	capitals := strings.ToUpper(method)
	return capitals == http.MethodConnect || capitals == http.MethodTrace || slices.Contains(route.Methods(), capitals)
}

// overridesMethod returns the header, if there is one, by which many frameworks
// let a request act as if it had another method than its own.
func overridesMethod(h http.Header) string {
	for _, name := range [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
		if _, ok := h[name]; ok {
			return name
		}
	}
	return ""
}
