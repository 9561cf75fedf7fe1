// Package upstream takes admitted requests to the API behind the gate: it chooses
// a target, bounds every wait, sends again what may be sent again, and leaves
// alone what does not answer.
package upstream

import (
	"net"
	"net/http"
	"net/url"
	"time"

	"keygate/proxy/route"
)

// MaxTargets bounds the targets of one upstream.
const MaxTargets = 64

// Options of an Upstream. Two that are equal make the same upstream.
type Options struct {
	// Name is how routes, logs and metrics call it.
	Name string
	// Targets are places to which path and query of a request are added: http,
	// https, or h2c for HTTP/2 without TLS.
	Targets []*url.URL
	Balance Balance
	// Health, where set, asks each target whether it is well.
	Health *Health
	// Timeouts hold for routes that set none of their own.
	Timeouts route.Timeouts
	TLS      TLS
	// MaxConcurrent bounds the requests under way; 0: no bound.
	MaxConcurrent int
	// Breaker, where set, holds requests back while too many fail.
	Breaker *Breaker
	// RetryBudget is how many retries there may be, in percent of the requests.
	RetryBudget int
	// Instead, where set, answers instead of the targets: to measure what is in
	// front of them.
	Instead http.RoundTripper
}

// DefaultRetryBudget is a fifth: it turns a target's restart into nothing that a
// client would notice, and cannot double the load of an upstream that is down.
const DefaultRetryBudget = 20

// Balance is how a target is chosen.
type Balance uint8

const (
	// RoundRobin takes one after the other.
	RoundRobin Balance = iota
	// LeastRequests takes, of two targets chosen at random, the one with fewer
	// requests under way (Mitzenmacher, "The Power of Two Choices", 2001).
	LeastRequests
)

// Kinds of health checks.
const (
	HTTPCheck = "http"
	TCPCheck  = "tcp"
	GRPCCheck = "grpc"
)

// Health is an active check.
type Health struct {
	Type string
	// Path is what an HTTP check asks for; 2xx is well.
	Path string
	// Service is what a gRPC check asks about; empty is the whole server.
	Service string
	Every   time.Duration
}

// DefaultHealthEvery lies between two checks of a target where a policy says
// nothing.
const DefaultHealthEvery = 5 * time.Second

// Breaker says when an upstream is left alone.
type Breaker struct {
	// Failures is the share in percent that opens it, of at least Requests
	// requests within Window.
	Failures int
	Requests int
	Window   time.Duration
	// Open is how long all are refused before one may try.
	Open time.Duration
}

// DefaultBreaker holds where a policy's breaker leaves something out.
func DefaultBreaker() Breaker {
	return Breaker{Failures: 50, Requests: 20, Window: 10 * time.Second, Open: 5 * time.Second}
}

// TLS is how https targets are talked to.
type TLS struct {
	// CA, where set, holds the certificates that are trusted, in PEM, instead of
	// the system's. Certificate and Key are shown to targets that ask.
	CA, Certificate, Key []byte
	// ServerName is what a target's certificate must be for, instead of its host.
	ServerName string
}

// H2C is the scheme of targets that speak HTTP/2 without TLS (RFC 9113, section
// 3.3).
const H2C = "h2c"

// dialAddress is where a target listens.
func dialAddress(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// idempotent methods may be sent again (RFC 9110, section 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
