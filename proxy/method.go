package proxy

import "net/http"

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
