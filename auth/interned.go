package auth

import (
	"runtime"
	"sync"
	"weak"
)

// interned keeps one copy of what many remembered keys have in common, for as
// long as one of them refers to it. It is asked when a key is fetched or a policy
// is new, never by a request for a key in memory.
type interned[T any] struct {
	same func(a, b *T) bool

	mu     sync.Mutex
	values map[string]weak.Pointer[T]
}

func newInterned[T any](same func(a, b *T) bool) *interned[T] {
	return &interned[T]{same: same, values: make(map[string]weak.Pointer[T])}
}

// of returns the copy of v that is known under the name, which v becomes unless
// there is one that says the same. Nobody may change it.
func (i *interned[T]) of(name string, v *T) *T {
	i.mu.Lock()
	defer i.mu.Unlock()
	if known := i.values[name].Value(); known != nil && i.same(known, v) {
		return known
	}
	p := weak.Make(v)
	i.values[name] = p
	runtime.AddCleanup(v, func(name string) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.values[name] == p { // or another has taken its place
			delete(i.values, name)
		}
	}, name)
	return v
}
