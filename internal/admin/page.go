package admin

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"keygate/internal/keys"
)

// Page is a stretch of a list, newest first.
type Page[T any] struct {
	_     struct{} `json:"-" additionalProperties:"true"`
	Items []T      `json:"items" nullable:"false"`
	Next  string   `json:"next,omitempty" doc:"The cursor of the page that follows; left out on the last one."`
}

// PageQuery selects a page. It is exported for huma, which does not look into
// embedded types that are not.
type PageQuery struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Number of items on a page."`
	Cursor string `query:"cursor" doc:"Where to go on: next of the page before."`
}

const badCursor = "is not a cursor of this list: take next of the page before, or leave it out"

// cursorMark starts a cursor. A cursor is opaque so that what it holds may
// change; the mark tells one of ours from a guess, and the list's name one list's
// from another's, where it could pass for the end.
const cursorMark = "2:"

func encodeCursor(list, after string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorMark + list + ":" + after))
}

func decodeCursor(list, cursor string) (after string, ok bool) {
	if cursor == "" {
		return "", true
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return "", false
	}
	after, ok = strings.CutPrefix(string(b), cursorMark+list+":")
	return after, ok && after != "" && len(after) <= keys.MaxCursor
}

// fillTries bounds how often a list goes on looking where the store found
// little: it looks at a bounded number of records at a time.
const fillTries = 20

// fill answers one page of the list of a name, whose cursor is the store's. Where the
// caller may not look any further for now, the page is what was found until then.
func fill[R, T any](h *handler, by *call, name string, q PageQuery, read func(keys.Page) (records []R, next string, err error), show func(*R) T) (*body[Page[T]], error) {
	after, ok := decodeCursor(name, q.Cursor)
	if !ok {
		return nil, &parameterError{"cursor", badCursor}
	}
	page := Page[T]{Items: []T{}}
	for try := 0; try < fillTries && len(page.Items) < q.Limit; try++ {
		if err := h.search(by); err != nil {
			if try > 0 {
				break
			}
			return nil, err
		}
		records, next, err := read(keys.Page{After: after, Limit: q.Limit - len(page.Items)})
		if err != nil {
			return nil, err
		}
		for i := range records {
			page.Items = append(page.Items, show(&records[i]))
		}
		if after = next; next == "" {
			break
		}
	}
	if after != "" {
		page.Next = encodeCursor(name, after)
	}
	return &body[Page[T]]{page}, nil
}

// list answers one page of the list of a name. It reads one record more than it shows, to know
// whether another page follows.
func list[R, T any](name string, q PageQuery, read func(keys.Page) ([]R, error), show func(*R) (id string, shown T)) (*body[Page[T]], error) {
	after, ok := decodeCursor(name, q.Cursor)
	if !ok {
		return nil, &parameterError{"cursor", badCursor}
	}
	records, err := read(keys.Page{After: after, Limit: q.Limit + 1})
	if err != nil {
		return nil, err
	}
	page := Page[T]{Items: []T{}}
	for i := range records[:min(q.Limit, len(records))] {
		id, shown := show(&records[i])
		page.Items = append(page.Items, shown)
		if i == q.Limit-1 && len(records) > q.Limit {
			page.Next = encodeCursor(name, id)
		}
	}
	return &body[Page[T]]{page}, nil
}

// search spends one look into the store for a list. Each takes it some milliseconds in
// which Redis serves nobody else, so that all keys of an organization together have as
// many as one key has requests; operators have theirs by key.
func (h *handler) search(by *call) error {
	who := by.actor.Authority.Organization
	if who == "" {
		who = by.actor.Key
	}
	if ok, wait := h.Allow("search of " + who); !ok {
		return &tooManyError{wait}
	}
	return nil
}

// tooManyError says that a budget is used up, and for how long.
type tooManyError struct{ wait time.Duration }

func (e *tooManyError) Error() string {
	return fmt.Sprintf("This API key, or those of its organization together, look through more lists than the management API allows. Try again in %d s.", e.seconds())
}

// seconds is what Retry-After says.
func (e *tooManyError) seconds() int64 { return max(1, seconds(e.wait)) }

// parameterError is a wrong query parameter that no schema can describe.
type parameterError struct{ name, detail string }

func (e *parameterError) Error() string { return e.name + ": " + e.detail }
