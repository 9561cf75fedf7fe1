package proxy

import (
	"fmt"
	"net/http"
	"strings"

	"keygate/internal/problem"
)

// Status codes of gRPC, as its headers spell them.
const (
	grpcCancelled         = "1"
	grpcInvalid           = "3"
	grpcDeadline          = "4"
	grpcPermissionDenied  = "7"
	grpcResourceExhausted = "8"
	grpcUnimplemented     = "12"
	grpcInternal          = "13"
	grpcUnavailable       = "14"
	grpcUnauthenticated   = "16"
)

// grpcStatus is what a refusal is called in gRPC.
func grpcStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return grpcResourceExhausted
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return grpcUnavailable
	case http.StatusGatewayTimeout:
		return grpcDeadline
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return grpcUnimplemented
	case http.StatusBadRequest, http.StatusRequestURITooLong:
		return grpcInvalid
	case statusClientGone:
		return grpcCancelled
	}
	return grpcInternal
}

// writeGRPC answers as gRPC clients expect it: HTTP 200, and the status in a header
// that is a trailer at the same time, since nothing follows ("Trailers-Only" in gRPC
// over HTTP/2). The log goes by the HTTP status that anybody else would get.
func (x *exchange) writeGRPC(p *problem.Problem) {
	h := x.w.Header()
	h["Content-Type"] = x.r.Header["Content-Type"]
	h.Set("Grpc-Status", grpcStatus(p.Status))
	h.Set("Grpc-Message", grpcMessage(p.Error+": "+p.Detail))
	h.Set("X-Request-Id", p.RequestID)
	x.status = p.Status
	x.w.WriteHeader(http.StatusOK)
}

// grpcMessage is a text as Grpc-Message has it: percent-encoded but for printable
// ASCII.
func grpcMessage(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
