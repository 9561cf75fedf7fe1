package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"keygate/auth"
	"keygate/internal/problem"
)

// maxTarget is more than any request line that a gate reads: its server answers
// longer ones before they are a request.
const maxTarget = 64 << 10

// questioned makes the request that a question is about, as net/http reads one
// from a connection: what it refuses, nothing here decides about.
func questioned(ctx context.Context, q *auth.Question) (*http.Request, *refusal) {
	if q.Method == "" || strings.Trim(q.Method, tokenChars) != "" {
		return nil, unreadable("The method is not made of letters, digits and the characters !#$%&'*+-.^_`|~.")
	}
	if length := len(q.Method) + len(q.Target); length > maxTarget {
		answer := unreadable(fmt.Sprintf("Method and target have %d bytes; the gate reads at most %d of a request's line and headers together.", length, maxTarget))
		answer.problem.Status = http.StatusRequestHeaderFieldsTooLarge
		return nil, answer
	}
	u, answer := readTarget(q.Method, q.Target)
	if answer != nil {
		return nil, answer
	}
	header, answer := readHeader(q.Header)
	if answer != nil {
		return nil, answer
	}
	host := q.Host
	if host == "" {
		host = header.Get("Host")
	}
	host = textproto.TrimString(host)
	if strings.Trim(host, hostChars) != "" {
		return nil, unreadable("The host holds characters that no host can have: allowed is a name or an address, with a port or without.")
	}
	if u.Host != "" { // a target with a host has the say (RFC 9112, section 3.2.2)
		host = u.Host
	}
	header.Del("Host")
	header.Del("Authorization") // Question.Key stands for it
	r := &http.Request{Method: q.Method, URL: u, Host: host, Header: header, RequestURI: q.Target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return r.WithContext(ctx), nil
}

// What tokens (RFC 9110, section 5.6.2) and hosts (RFC 3986, section 3.2.2, and a
// port) are made of. strings.Trim leaves "" exactly if nothing else is inside.
const (
	alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	tokenChars   = alphanumeric + "!#$%&'*+-.^_`|~"
	hostChars    = alphanumeric + "!$%&'()*+,-.:;=[]_~"
)

func readTarget(method, target string) (*url.URL, *refusal) {
	if strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return nil, unreadable("The target holds a space or a control character, which must be encoded (a space is %20).")
	}
	authority := method == http.MethodConnect && !strings.HasPrefix(target, "/")
	if authority { // CONNECT example.com:443 (RFC 9112, section 3.2.3)
		target = "http://" + target
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, unreadable("The target is not a path that starts with a slash, or it holds a % without two hexadecimal digits after it.")
	}
	if authority {
		u.Scheme = ""
	}
	return u, nil
}

func readHeader(in http.Header) (http.Header, *refusal) {
	out := make(http.Header, len(in))
	for name, values := range in {
		if name == "" || strings.Trim(name, tokenChars) != "" {
			return nil, unreadable("The name of a header holds characters that no header's name can have.")
		}
		for _, value := range values {
			if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return nil, unreadable("The value of the header " + http.CanonicalHeaderKey(name) + " holds a control character.")
			}
			out.Add(name, textproto.TrimString(value))
		}
	}
	return out, nil
}

// unreadable is net/http's answer to what is no request.
func unreadable(detail string) *refusal {
	return &refusal{decision: badRequest, problem: problem.Problem{
		Status: http.StatusBadRequest, Error: "Malformed request", Detail: detail,
	}}
}
