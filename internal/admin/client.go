package admin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"keygate/internal/problem"
)

const (
	clientTimeout = 30 * time.Second // one request, its body included
	maxWait       = 10 * time.Second // for a 429, over all tries
	maxAnswer     = 16 << 20         // bytes
)

// Client calls the management API of a running keygate. The zero value of what
// is optional is fine. It is safe for concurrent use.
type Client struct {
	// URL of the management API, such as http://127.0.0.1:9090.
	URL *url.URL
	// Key holds keygate:operator or other permissions of the resource keygate. No
	// error and no log shows it.
	Key string
	// Insecure lets the key go over plain HTTP to a host that is not loopback,
	// where the network can read it.
	Insecure bool
	// HTTP is optional; its time-out then applies and its CheckRedirect does not.
	HTTP *http.Client
	// UserAgent is optional.
	UserAgent string
	// WaitReplicas has every change wait until all replicas have acted on it.
	WaitReplicas bool
	// Confirmed is optional: with WaitReplicas it is told after each change which
	// replicas have acted on it.
	Confirmed func([]Confirmation)
	// Repeat sends a POST once more whose connection broke before the answer came,
	// under one Idempotency-Key, so that it is done once. The answer to the second
	// is then the first one's without its secret, and Replayed is true.
	Repeat bool

	version     int64
	idempotency string
}

// Option is what one call says beside its request: see Client.With.
type Option func(*Client)

// IfVersion has a change made only at this version of the thing, which Version of
// an answer tells: otherwise the call fails with an *APIError of status 412, and
// nothing is changed.
func IfVersion(version int64) Option { return func(c *Client) { c.version = version } }

// IdempotencyKey names a POST: repeated under the same name within 24 h it is not
// done again, and its answer is the first one's, without its secret.
func IdempotencyKey(name string) Option { return func(c *Client) { c.idempotency = name } }

// With is a client for one call with options, such as
//
//	c.With(IfVersion(k.Version())).EditKey(ctx, k.ID, edit)
func (c *Client) With(options ...Option) *Client {
	with := *c
	for _, o := range options {
		o(&with)
	}
	return &with
}

// APIError is a refusal by the management API, or an answer that is none of its.
type APIError struct {
	Status  int
	Problem problem.Problem
}

// Error is the problem's detail.
func (e *APIError) Error() string {
	text := e.Problem.Detail
	if text == "" {
		text = e.Problem.Error
	}
	if text == "" {
		text = "the answer is " + strconv.Itoa(e.Status) + " " + http.StatusText(e.Status)
	}
	return text
}

// UnreachableError says that no answer came.
type UnreachableError struct {
	URL string
	Err error
}

func (e *UnreachableError) Error() string { return "no answer from " + e.URL + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// InsecureError says that a key was not sent, because it would cross a network
// in clear.
type InsecureError struct{ Host string }

func (e *InsecureError) Error() string {
	return "the API key was not sent: " + e.Host + " is not this machine and http shows the key to the network; use https"
}

// call sends one request and decodes the answer into out, if that is not nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if c.WaitReplicas && method != http.MethodGet {
		query = maps.Clone(query)
		if query == nil {
			query = url.Values{}
		}
		query.Set("wait", "replicas")
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	if method == http.MethodPost && c.Repeat && c.idempotency == "" {
		c = c.With(IdempotencyKey(rand.Text()))
	}
	resp, answer, err := c.ask(ctx, method, path, query, body)
	if method == http.MethodPost && c.Repeat && broke(err) && ctx.Err() == nil {
		resp, answer, err = c.ask(ctx, method, path, query, body)
	}
	if err != nil {
		return err
	}
	if err := decode(resp.StatusCode, resp.Header, answer, out); err != nil {
		return err
	}
	if o, ok := out.(interface{ outcome() *Outcome }); ok {
		o.outcome().version, _ = ifMatch(resp.Header.Get("ETag")) // 0 where there is none
	}
	c.tell(method, answer)
	return nil
}

// ask sends one request and reads the answer.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, []byte, error) {
	resp, err := c.exchange(ctx, clientTimeout, method, path, query, body)
	if err != nil {
		return nil, nil, err
	}
	answer, err := readAnswer(resp)
	if err != nil {
		return nil, nil, &UnreachableError{c.URL.Redacted(), err}
	}
	return resp, answer, nil
}

// broke reports whether a request may have arrived of which no answer did: not
// where no connection came about.
func broke(err error) bool {
	unreachable, ok := errors.AsType[*UnreachableError](err)
	if !ok {
		return false
	}
	op, ok := errors.AsType[*net.OpError](unreachable.Err)
	return !ok || op.Op != "dial"
}

// tell passes on which replicas have acted on a change.
func (c *Client) tell(method string, answer []byte) {
	var o Outcome
	if c.WaitReplicas && c.Confirmed != nil && method != http.MethodGet && json.Unmarshal(answer, &o) == nil {
		c.Confirmed(o.Replicas)
	}
}

// exchange sends one request and returns the answer, whose body is still to be
// read. A 429 is waited for, since nothing happened.
func (c *Client) exchange(ctx context.Context, timeout time.Duration, method, path string, query url.Values, body []byte) (*http.Response, error) {
	if c.URL.Scheme == "http" && !c.Insecure && !loopback(c.URL.Hostname()) {
		return nil, &InsecureError{c.URL.Host}
	}
	target := c.URL.JoinPath(path)
	target.RawQuery = query.Encode()
	for waited := time.Duration(0); ; {
		resp, err := c.send(ctx, timeout, method, target.String(), body)
		if err != nil {
			return nil, &UnreachableError{c.URL.Redacted(), err}
		}
		wait, ok := retryAfter(resp.Header)
		if resp.StatusCode != http.StatusTooManyRequests || !ok || waited+wait > maxWait {
			return resp, nil
		}
		resp.Body.Close()
		waited += wait
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (c *Client) send(ctx context.Context, timeout time.Duration, method, target string, body []byte) (*http.Response, error) {
	hc := http.Client{Timeout: timeout}
	if c.HTTP != nil {
		hc = *c.HTTP
	}
	// The API never redirects; following one could carry the key elsewhere.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+c.Key)
	r.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.version > 0 {
		r.Header.Set("If-Match", etag(c.version))
	}
	if c.idempotency != "" && method == http.MethodPost {
		r.Header.Set("Idempotency-Key", c.idempotency)
	}
	if c.UserAgent != "" {
		r.Header.Set("User-Agent", c.UserAgent)
	}
	resp, err := hc.Do(r)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the rest repeats method and URL
	}
	return resp, err
}

func readAnswer(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	return answer, err
}

func decode(status int, header http.Header, answer []byte, out any) error {
	media, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	if status < 200 || status > 299 {
		e := &APIError{Status: status}
		if media != problem.ContentType || json.Unmarshal(answer, &e.Problem) != nil {
			e.Problem = problem.Problem{Detail: notOurs(status)}
		}
		return e
	}
	if out == nil { // a deletion
		var o Outcome
		if status == http.StatusNoContent && header.Get(requestIDHeader) != "" || media == "application/json" && json.Unmarshal(answer, &o) == nil && o.Replicas != nil {
			return nil
		}
		return &APIError{Status: status, Problem: problem.Problem{Detail: notOurs(status)}}
	}
	// Another API may well answer JSON with success: every answer of ours is a
	// record with its id, a page, or an explanation.
	var ours struct {
		ID     string          `json:"id"`
		Items  json.RawMessage `json:"items"`
		Checks json.RawMessage `json:"checks"`
	}
	if media != "application/json" || json.Unmarshal(answer, &ours) != nil || ours.ID == "" && ours.Items == nil && ours.Checks == nil || json.Unmarshal(answer, out) != nil {
		return &APIError{Status: status, Problem: problem.Problem{Detail: notOurs(status)}}
	}
	return nil
}

func notOurs(status int) string {
	return fmt.Sprintf("the answer (%d %s) is not one of keygate's management API", status, http.StatusText(status))
}

// retryAfter reads the header in seconds, the form that keygate uses.
func retryAfter(h http.Header) (time.Duration, bool) {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	return time.Duration(max(1, seconds)) * time.Second, err == nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// loopback reports whether a host is this machine for certain: the name
// localhost is by RFC 6761, section 6.3, and no resolver is asked.
func loopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
