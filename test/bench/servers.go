package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Roles of this program, as its first argument.
const (
	roleUpstream  = "upstream"
	roleReference = "reference"
	roleLoad      = "load"
)

// body is what the upstream answers: 206 bytes, as small answers of APIs are.
const body = `{"items":[{"id":"o_1001","title":"first order","amount":1299,"currency":"EUR"},` +
	`{"id":"o_1002","title":"second order","amount":2599,"currency":"EUR"},{"id":"o_1003","amount":999,"currency":"EUR"}],"total":3}`

func serveUpstream(ctx context.Context, stdout io.Writer) error {
	length := []string{strconv.Itoa(len(body))}
	media := []string{"application/json"}
	return serve(ctx, stdout, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"], w.Header()["Content-Length"] = media, length
		_, _ = io.WriteString(w, body)
	}))
}

// serveReference is what anyone writes who needs a reverse proxy in Go, with
// enough idle connections and reused buffers: without them it would be slower
// for reasons that have nothing to do with keygate.
func serveReference(ctx context.Context, stdout io.Writer, args []string) error {
	if len(args) != 1 {
		return errors.New("reference: the upstream's address is missing")
	}
	target := &url.URL{Scheme: "http", Host: args[0]}
	return serve(ctx, stdout, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 512, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		},
		BufferPool: &buffers{},
	})
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return buf[:]
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[32 << 10]byte)(buf)) }

// serve prints the address and serves until ctx ends.
func serve(ctx context.Context, stdout io.Writer, h http.Handler) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if _, err := fmt.Fprintln(stdout, ln.Addr()); err != nil {
		return err
	}
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
