package proxy

import (
	"net/http"

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
