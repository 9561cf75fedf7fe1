package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// clientBody remembers that the client's body could not be read to its end, so
// that the client's mistake is not blamed on the upstream. It is not reused:
// the transport may still read from it when the answer is long out.
type clientBody struct {
	io.ReadCloser
	broken atomic.Bool
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.broken.Store(true)
	}
	return n, err
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
