package proxy

import (
	"net/http"

	"golang.org/x/net/http/httpguts"

	"keygate/proxy/route"
)

// headerChanges are those of a route, in the form of a header: applying them
// makes nothing that an earlier request has not made.
type headerChanges struct {
	remove   []string
	set, add http.Header
}

func newHeaderChanges(of *route.Headers) *headerChanges {
	if of.Empty() {
		return nil
	}
	c := &headerChanges{remove: of.Remove, set: make(http.Header), add: make(http.Header)}
	for _, f := range of.Set {
		c.set[f.Name] = []string{f.Value}
	}
	for _, f := range of.Add {
		c.add[f.Name] = append(c.add[f.Name], f.Value)
	}
	return c
}

// decides reports whether a field, in any spelling, is one that the route sets or
// removes: servers that read '_' as '-' would take a client's for the route's.
func (c *headerChanges) decides(name string) bool {
	if c == nil {
		return false
	}
	for _, removed := range c.remove {
		if route.SameField(name, removed) {
			return true
		}
	}
	for set := range c.set {
		if route.SameField(name, set) {
			return true
		}
	}
	return false
}

// mayTrail reports whether a client's trailer goes upstream. Many servers read
// trailers as if they had come with the header, so that nothing may be said in them
// that has been judged, or is the gate's to say, there (RFC 9110, section 6.5.1).
func (x *exchange) mayTrail(name string) bool {
	return httpguts.ValidTrailerHeader(name) && httpguts.ValidHeaderFieldName(name) && !route.Dropped(name) &&
		!x.rule.requestHeaders.decides(name) && !names(x.rule.Organization, name) && !names(x.rule.Space, name)
}

// names reports whether a binding reads a field that some servers take for this one.
func names(b *route.Binding, name string) bool {
	return b != nil && b.Source == route.FromHeader && route.SameField(b.Name, name)
}

// apply changes a header: first it removes, then sets, then adds.
func (c *headerChanges) apply(h http.Header) {
	if c == nil {
		return
	}
	for _, name := range c.remove {
		delete(h, name)
	}
	for name, values := range c.set {
		h[name] = values // shared by all requests: appending to it makes a copy
	}
	for name, values := range c.add {
		former := h[name]
		h[name] = append(former[:len(former):len(former)], values...)
	}
}
