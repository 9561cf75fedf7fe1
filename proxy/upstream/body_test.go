package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"keygate/internal/pace"
)

// Whatever attempts read of a body, and however it arrives, each attempt that is
// not told otherwise gets it from its beginning, byte for byte.
func TestBodyIsReplayed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(0, 2000), rapid.IntRange(maxKept-100, maxKept+100), rapid.IntRange(0, 3*maxKept)).Draw(t, "size")
		whole := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		length := int64(-1)
		if rapid.Bool().Draw(t, "length") {
			length = int64(size)
		}
		source := io.Reader(bytes.NewReader(whole))
		if rapid.Bool().Draw(t, "halves") {
			source = iotest.HalfReader(source)
		}
		if rapid.Bool().Draw(t, "early end") {
			source = iotest.DataErrReader(source)
		}
		b := NewBody(&http.Request{Body: io.NopCloser(source), ContentLength: length}, nil, 0, pace.Pace{})
		for {
			again, err := b.again()
			if err != nil {
				if size <= maxKept {
					t.Fatalf("a body of %d bytes was not kept", size)
				}
				return
			}
			buf := make([]byte, rapid.IntRange(1, 3*maxKept).Draw(t, "read"))
			n, err := io.ReadFull(again, buf)
			if !bytes.Equal(buf[:n], whole[:n]) {
				t.Fatalf("%d bytes that are not those of the body", n)
			}
			if err != nil && n != size {
				t.Fatalf("%v after %d of %d bytes", err, n, size)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := again.Read(buf); !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Fatalf("an attempt that has ended reads on: %v", err)
			}
			if rapid.Bool().Draw(t, "enough") {
				return
			}
		}
	})
}

func TestBodyBound(t *testing.T) {
	for size, want := range map[int]error{99: nil, 100: nil, 101: ErrTooLarge, 5000: ErrTooLarge} {
		b := NewBody(&http.Request{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", size))), ContentLength: -1}, nil, 100, pace.Pace{})
		again, _ := b.again()
		n, err := io.Copy(io.Discard, again)
		if !errors.Is(err, want) || b.TooLarge() != (want != nil) || b.Broken() || n > 100 {
			t.Errorf("%d bytes: %v after %d, too large %v, broken %v", size, err, n, b.TooLarge(), b.Broken())
		}
	}
}

// An attempt that began before the body grew beyond what is kept must not go on in
// its middle.
func TestBodyLostMeanwhile(t *testing.T) {
	whole := strings.Repeat("x", 2*maxKept)
	b := NewBody(&http.Request{Body: io.NopCloser(strings.NewReader(whole)), ContentLength: -1}, nil, 0, pace.Pace{})
	first, _ := b.again()
	if _, err := io.ReadFull(first, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	second, err := b.again()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, second); !errors.Is(err, errNotKept) || n != 0 {
		t.Errorf("%v after %d bytes", err, n)
	}
}

func TestBrokenBody(t *testing.T) {
	b := NewBody(&http.Request{Body: io.NopCloser(iotest.ErrReader(errors.New("malformed chunk"))), ContentLength: -1}, nil, 0, pace.Pace{})
	again, _ := b.again()
	if _, err := io.Copy(io.Discard, again); err == nil || !b.Broken() {
		t.Errorf("%v, broken %v", err, b.Broken())
	}
}
