package admin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keygate/internal/problem"
)

// exportSilence is how long an export may say nothing. The whole may take longer
// than any time-out for one request.
const exportSilence = 60 * time.Second

// maxLine bounds one entry of an export, in bytes.
const maxLine = 16 << 20

// BrokenOffError says that an export ended before its end.
type BrokenOffError struct{ Err error }

func (e *BrokenOffError) Error() string { return "the answer broke off: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BrokenOffError) Unwrap() error { return e.Err }

// ExportAudit writes all entries that pass, newest first, a JSON object on each
// line, and says how many. Of an answer that breaks off, w gets the lines that
// came whole; the error is then a *BrokenOffError.
func (c *Client) ExportAudit(ctx context.Context, o AuditOptions, w io.Writer) (entries int, err error) {
	o.Limit, o.Cursor = 0, ""
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(exportSilence, func() { cancel(errors.New("nothing came for " + exportSilence.String())) })
	defer silence.Stop()
	body, err := c.stream(ctx, "/v1/audit/export", o.query())
	if err != nil {
		return 0, err
	}
	defer body.Close()
	in := bufio.NewReader(body)
	for {
		line, err := wholeLine(in)
		switch {
		case err == io.EOF:
			return entries, nil
		case err != nil && ctx.Err() != nil:
			return entries, &BrokenOffError{context.Cause(ctx)}
		case err != nil:
			return entries, &BrokenOffError{err}
		}
		silence.Reset(exportSilence)
		if _, err := w.Write(line); err != nil {
			return entries, err
		}
		entries++
	}
}

// wholeLine reads a line with its line feed. io.EOF means that nothing follows.
func wholeLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= maxLine:
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errors.New("an entry is too large")
		case err == io.EOF && len(line) > 0: // a cut on the way can look like an end
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// stream asks for an answer that is read while it is written.
func (c *Client) stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	resp, err := c.exchange(ctx, 0, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if resp.StatusCode == http.StatusOK && media == "application/jsonl" {
		return resp.Body, nil
	}
	answer, err := readAnswer(resp)
	if err != nil {
		return nil, &UnreachableError{c.URL.Redacted(), err}
	}
	if err := decode(resp.StatusCode, resp.Header, answer, nil); err != nil {
		return nil, err
	}
	return nil, &APIError{Status: resp.StatusCode, Problem: problem.Problem{Detail: notOurs(resp.StatusCode)}}
}
