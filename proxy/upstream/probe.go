package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// probeTimeout bounds one check, and so does the time between two.
const probeTimeout = 5 * time.Second

// newProbe returns what asks a target whether it is well. Each check makes a
// connection of its own: a server that takes no new ones is not well, however
// well it serves those that it has.
func newProbe(h Health, t *target, like *connections) func(context.Context) error {
	if h.Type == TCPCheck {
		return func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.address)
			if err != nil {
				return err
			}
			return conn.Close()
		}
	}
	transport := like.make()
	transport.DisableKeepAlives = true
	if h.Type == GRPCCheck {
		return func(ctx context.Context) error { return probeGRPC(ctx, transport, t, h.Service) }
	}
	return func(ctx context.Context) error { return probeHTTP(ctx, transport, t, h.Path) }
}

func probeHTTP(ctx context.Context, transport *http.Transport, t *target, path string) error {
	u, err := url.Parse(t.scheme + "://" + t.host + path)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "keygate-health")
	res, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("answered %d", res.StatusCode)
	}
	return nil
}

// A message of gRPC stands behind one byte that says whether it is compressed and
// its length in four.
const grpcPrefix = 5

// maxHealth bounds the answer, which is two bytes long.
const maxHealth = 1 << 10

// probeGRPC asks grpc.health.v1.Health/Check (the gRPC Health Checking Protocol)
// about a service.
func probeGRPC(ctx context.Context, transport *http.Transport, t *target, service string) error {
	question := healthRequest(service)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.scheme+"://"+t.host+"/grpc.health.v1.Health/Check", bytes.NewReader(question))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	r.Header.Set("User-Agent", "keygate-health")
	res, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxHealth))
	if err != nil {
		return err
	}
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status") // where there is nothing but trailers
	}
	switch {
	case res.StatusCode != http.StatusOK || status != "0":
		return fmt.Errorf("answered %d, grpc-status %q", res.StatusCode, status)
	case !serving(answer):
		return errors.New("does not say SERVING")
	}
	return nil
}

// healthRequest is HealthCheckRequest{service}: field 1, of type string.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		message = append(message, service...)
	}
	out := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(out, message...)
}

// serving reports whether HealthCheckResponse{status} is SERVING: field 1, of
// type enum, is 1.
func serving(answer []byte) bool {
	return len(answer) == grpcPrefix+2 && bytes.Equal(answer[grpcPrefix:], []byte{1 << 3, 1})
}
