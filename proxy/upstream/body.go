package upstream

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"keygate/internal/pace"
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
	client  io.ReadCloser
	control *http.ResponseController // of the client's connection
	length  int64                    // -1: unknown
	most    int64                    // 0: no bound
	ended   atomic.Bool
	broken  atomic.Bool
	large   atomic.Bool
	lost    atomic.Bool // more was read than is kept
	waits   atomic.Bool // for the client
	late    atomic.Bool // the client did not send in time
	cut     atomic.Bool // nothing more is waited for
	whole   atomic.Bool // it was read to its end
	beside  atomic.Bool // it is read while the answer goes out
	stall   *stall      // of the upstream, while the client is not waited for
	orphan  orphan
	current atomic.Pointer[attempt]
	patient patience    // with the client
	trailer http.Header // the client's, which has values once the body was read to its end
	forward http.Header // those of them that go upstream; nil: none

	mu   sync.Mutex
	kept []byte
	read int64
	err  error // of the last Read
}

// NewBody returns the body of a request, of which at most so many bytes are read (0:
// no bound), and which must come at that pace until the answer begins. The controller
// is that of its answer.
func NewBody(r *http.Request, control *http.ResponseController, most int64, at pace.Pace) *Body {
	return &Body{client: r.Body, control: control, length: r.ContentLength, most: most, trailer: r.Trailer, patient: patience{pace: at, control: control}}
}

// ForwardTrailers has the values of these trailers follow when the body has been
// read to its end, which is when the client has sent them: httputil.ReverseProxy
// copies the names alone. It is called before the body is read.
func (b *Body) ForwardTrailers(names http.Header) {
	if b != nil && len(names) > 0 {
		b.forward = names
	}
}

// Answered is called when the answer begins: the client is from then on waited for
// as long as the upstream does.
func (b *Body) Answered() {
	if b != nil {
		b.patient.end()
		b.orphan.end()
	}
}

// Broken reports whether the client's body could not be read to its end.
func (b *Body) Broken() bool { return b != nil && b.broken.Load() }

// TooLarge reports whether the body went beyond its bound.
func (b *Body) TooLarge() bool { return b != nil && b.large.Load() }

// Late reports whether the client did not send the body in time.
func (b *Body) Late() bool { return b != nil && b.late.Load() }

// interrupt ends the wait for the client. A transport does not come back with its
// request, however that ended, before its Read of the body has.
func (b *Body) interrupt() {
	if b == nil {
		return
	}
	b.cut.Store(true)
	if b.waits.Load() {
		_ = b.control.SetReadDeadline(time.Now()) // writers of tests have none
	}
}

// Beside is called before the answer to an HTTP/1 request begins. If the body has
// not been read to its end it has it read on while the answer goes out, and
// reports so: the connection must then end with the answer.
//
// Without that net/http reads up to 256 KiB of the body for itself at the answer's
// beginning. The transport reads the same body for the upstream, which would get
// one with a hole in it.
func (b *Body) Beside() bool {
	if b == nil || b.whole.Load() || b.control.EnableFullDuplex() != nil {
		return false
	}
	b.beside.Store(true)
	return true
}

// unreadTimeout bounds what net/http waits for a rest that nobody wants, so that
// the client's machine is not answered with a reset, which would take what is left
// of the answer along.
const unreadTimeout = 2 * time.Second

// end lets nobody read from the client any more. A read beside the answer must be
// over by then: net/http knows nothing of it.
func (b *Body) end() {
	if b == nil {
		return
	}
	b.ended.Store(true)
	b.patient.end()
	b.orphan.end()
	if !b.beside.Load() {
		return
	}
	b.interrupt()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.whole.Load() {
		_ = b.control.SetReadDeadline(time.Now().Add(unreadTimeout)) // it supported full duplex
	}
}

// attempt is the body as one attempt sends it, from its beginning.
type attempt struct {
	body  *Body
	at    int64 // bytes of it that were sent
	ended atomic.Bool
	wire  atomic.Pointer[wire]
}

// errNotKept is what an attempt gets that would need what is no longer there.
var errNotKept = errors.New("the body cannot be sent again from its beginning")

// again returns the body for another attempt.
func (b *Body) again() (io.ReadCloser, error) {
	if b.lost.Load() {
		return nil, errNotKept
	}
	a := &attempt{body: b}
	b.current.Store(a)
	b.orphan.rest()
	return a, nil
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
	b.waits.Store(true)
	b.patient.wait()
	n, err := 0, os.ErrDeadlineExceeded
	if !b.cut.Load() {
		n, err = b.client.Read(p)
	}
	late := b.patient.heard(n, err)
	b.waits.Store(false)
	b.stall.run()
	b.read += int64(n)
	if errors.Is(err, io.EOF) {
		b.whole.Store(true)
		for name := range b.forward { // once, before any attempt is told of the end
			b.forward[name] = b.trailer[name]
		}
	}
	switch {
	case b.orphan.dead.Load() && !b.whole.Load():
		n, err = 0, errAbandoned
	case b.most > 0 && b.read > b.most:
		b.large.Store(true)
		n, err = 0, ErrTooLarge
	case late, errors.Is(err, os.ErrDeadlineExceeded):
		b.late.Store(true)
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

// Close ends the attempt, not the client's body, which another one may need. Over
// HTTP/2 it may come while a Read waits for the client: the stream is gone.
func (a *attempt) Close() error {
	a.ended.Store(true)
	if w := a.wire.Load(); w != nil {
		w.carries.CompareAndSwap(a, nil)
	}
	if a.body.waits.Load() {
		a.abandon()
	}
	return nil
}

// noBody is an empty one that net/http does not know to be empty: it may not send
// the request twice.
type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }
