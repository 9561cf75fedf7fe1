package upstream

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxKept bounds what is remembered of a body so that it can be sent again.
const maxKept = 64 << 10

// ErrTooLarge is what reading a body beyond its bound gives.
var ErrTooLarge = errors.New("the body is larger than max_body")

// Body is the body of a client's request on its way upstream. It remembers what
// was wrong with it, so that the client's mistake is not blamed on the upstream,
// and its beginning, for as long as it could be sent again.
//
// It outlives its request: a transport may still read from it when the answer is
// long out. End makes that harmless.
type Body struct {
	client io.ReadCloser
	length int64 // -1: unknown
	most   int64 // 0: no bound
	ended  atomic.Bool
	broken atomic.Bool
	large  atomic.Bool
	lost   atomic.Bool // more was read than is kept
	stall  *stall      // of the upstream, while the client is not waited for

	mu   sync.Mutex
	kept []byte
	read int64
	err  error // of the last Read
}

// NewBody returns the body of a request, of which at most so many bytes are read;
// 0 is no bound.
func NewBody(r *http.Request, most int64) *Body {
	return &Body{client: r.Body, length: r.ContentLength, most: most}
}

// Broken reports whether the client's body could not be read to its end.
func (b *Body) Broken() bool { return b != nil && b.broken.Load() }

// TooLarge reports whether the body went beyond its bound.
func (b *Body) TooLarge() bool { return b != nil && b.large.Load() }

// end lets nobody read from the client any more.
func (b *Body) end() {
	if b != nil {
		b.ended.Store(true)
	}
}

// attempt is the body as one attempt sends it, from its beginning.
type attempt struct {
	body  *Body
	at    int64 // bytes of it that were sent
	ended atomic.Bool
}

// errNotKept is what an attempt gets that would need what is no longer there.
var errNotKept = errors.New("the body cannot be sent again from its beginning")

// again returns the body for another attempt.
func (b *Body) again() (io.ReadCloser, error) {
	if b.lost.Load() {
		return nil, errNotKept
	}
	return &attempt{body: b}, nil
}

func (a *attempt) Read(p []byte) (int, error) {
	b := a.body
	b.mu.Lock() // an attempt that was given up may still wait for the client
	defer b.mu.Unlock()
	if a.ended.Load() || b.ended.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if a.at < b.read {
		if b.lost.Load() {
			return 0, errNotKept
		}
		n := copy(p, b.kept[a.at:])
		a.at += int64(n)
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.next(p)
	a.at = b.read
	return n, err
}

// next reads on from the client.
func (b *Body) next(p []byte) (int, error) {
	b.stall.pause()
	n, err := b.client.Read(p)
	b.stall.run()
	b.read += int64(n)
	switch {
	case b.most > 0 && b.read > b.most:
		b.large.Store(true)
		n, err = 0, ErrTooLarge
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.broken.Store(true)
	}
	b.keep(p[:n])
	b.err = err
	return n, err
}

func (b *Body) keep(p []byte) {
	switch {
	case b.lost.Load():
	case b.length > maxKept || len(b.kept)+len(p) > maxKept:
		b.lost.Store(true)
		b.kept = nil
	case b.kept == nil && b.length > 0:
		b.kept = make([]byte, 0, b.length)
		fallthrough
	default:
		b.kept = append(b.kept, p...)
	}
}

// Close ends the attempt, not the client's body, which another one may need.
func (a *attempt) Close() error {
	a.ended.Store(true)
	return nil
}

// noBody is an empty one that net/http does not know to be empty: it may not send
// the request twice.
type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }
