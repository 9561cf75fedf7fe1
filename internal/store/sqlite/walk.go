package sqlite

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"keygate/internal/keys"
)

// mostWalked bounds how many entries of an index one call looks at, where not
// all of a filter is in the index: about a hundredth of a second.
const mostWalked = 5_000

// order is the order of a list: by a column and then by the row's number, or by
// id, newest first.
type order struct {
	name       string // in cursors
	column     string // empty for ids
	descending bool
}

// place is where an entry stands in an order: its column's value and its row,
// or its id.
type place struct {
	at, row int64
	id      string
}

// first is a place before all entries.
func (o order) first() place {
	if o.descending {
		return place{at: math.MaxInt64, row: o.lastRow()}
	}
	return place{at: math.MinInt64, row: o.lastRow(), id: lastID}
}

// lastRow comes after all rows that are equal in the column.
func (o order) lastRow() int64 {
	if o.descending {
		return math.MinInt64
	}
	return math.MaxInt64
}

// lastID is after every id: a condition that is always there is one that an
// index serves.
const lastID = "\U0010FFFF"

// cursor names a place for a client, who cannot know what it means.
func (o order) cursor(p place) string {
	return base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%s.%d.%d.%s", o.name, p.at, p.row, p.id)))
}

// after reads a cursor of this order; an empty one is the first place.
func (o order) after(cursor string) (place, error) {
	if cursor == "" {
		return o.first(), nil
	}
	wrong := fmt.Errorf("%.100q: %w", cursor, keys.ErrCursor)
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return place{}, wrong
	}
	parts := strings.SplitN(string(text), ".", 4)
	if len(parts) != 4 || parts[0] != o.name {
		return place{}, wrong
	}
	at, atErr := strconv.ParseInt(parts[1], 10, 64)
	row, rowErr := strconv.ParseInt(parts[2], 10, 64)
	if atErr != nil || rowErr != nil || parts[3] == "" {
		return place{}, wrong
	}
	return place{at: at, row: row, id: parts[3]}, nil
}

// later is the one of two places that comes later in this order.
func (o order) later(a, b place) place {
	before := a.at < b.at || a.at == b.at && a.row < b.row
	if before != o.descending {
		return b
	}
	return a
}

// conditions all hold.
type conditions struct {
	terms []string
	args  []any
}

func (c *conditions) add(term string, args ...any) {
	c.terms = append(c.terms, term)
	c.args = append(c.args, args...)
}

func (c *conditions) text() string {
	if len(c.terms) == 0 {
		return "TRUE"
	}
	return strings.Join(c.terms, " AND ")
}

// walk goes along an index from a place on.
type walk struct {
	order order
	from  string // table, named x, and index
	start place
	// within is what the index serves, rest what is checked entry by entry,
	// match (if set) what only Go can check, of the column text.
	within, rest conditions
	text         string
	match        func(text string) bool
	most         int // entries that are looked at
}

// stretch is a part of an index in the order in which it is walked.
type stretch struct {
	conditions
	sorted string
}

// stretches are what lies behind the start: the rest of what is equal in the
// order's column, then what comes after that. In one condition SQLite would
// look at all that is equal, which after an import may be very much.
func (w *walk) stretches() []stretch {
	column, after, direction := w.order.column, " > ?", ""
	if w.order.descending {
		after, direction = " < ?", " DESC"
	}
	if column == "" {
		return []stretch{{conditions{[]string{"x.id < ?"}, []any{w.start.id}}, "x.id DESC"}}
	}
	behind := stretch{conditions{[]string{column + after}, []any{w.start.at}}, column + direction + ", x.rowid" + direction}
	if w.start.row == w.order.lastRow() {
		return []stretch{behind}
	}
	equal := stretch{conditions{[]string{column + " = ?", "x.rowid" + after}, []any{w.start.at, w.start.row}}, "x.rowid" + direction}
	return []stretch{equal, behind}
}

// query selects row, id, the order's column, whether the rest holds, and text.
func (w *walk) query(along stretch) (string, []any) {
	column, text := w.order.column, w.text
	if column == "" {
		column = "0"
	}
	if text == "" {
		text = "''"
	}
	where := conditions{terms: slices.Concat(w.within.terms, along.terms)}
	return `SELECT x.rowid, x.id, ` + column + `, (` + w.rest.text() + `) IS TRUE, ` + text +
			` FROM ` + w.from + ` WHERE ` + where.text() + ` ORDER BY ` + along.sorted + ` LIMIT ?`,
		slices.Concat(w.rest.args, w.within.args, along.args, []any{w.most + 1})
}

// walked is how far a walk has come.
type walked struct {
	found   []int64 // rows that pass
	entries int
	last    place
	more    bool // there are entries behind the last
}

// run walks until there are limit rows, the most entries or no more.
func (w *walk) run(ctx context.Context, tx *sql.Tx, limit int) (walked, error) {
	var so walked
	for _, along := range w.stretches() {
		if err := w.step(ctx, tx, along, limit, &so); err != nil || so.more {
			return so, err
		}
	}
	return so, nil
}

func (w *walk) step(ctx context.Context, tx *sql.Tx, along stretch, limit int, so *walked) error {
	query, args := w.query(along)
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for ; rows.Next(); so.entries++ {
		if so.entries == w.most || len(so.found) == limit {
			so.more = true
			return nil
		}
		var text string
		var passes bool
		if err := rows.Scan(&so.last.row, &so.last.id, &so.last.at, &passes, &text); err != nil {
			return err
		}
		if passes && (w.match == nil || w.match(text)) {
			so.found = append(so.found, so.last.row)
		}
	}
	return rows.Err()
}

// page reads what a walk finds; load takes the rows as a JSON array. Both see
// the same instant.
func page[T any](ctx context.Context, s *Store, w walk, limit int, load string, scan func(scanner) (T, error)) ([]T, string, error) {
	if limit <= 0 {
		return nil, "", ctx.Err()
	}
	tx, err := s.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, "", s.explain(err)
	}
	defer tx.Rollback() // nothing was written
	w.most = s.mostWalked
	so, err := w.run(ctx, tx, limit)
	if err != nil {
		return nil, "", s.explain(err)
	}
	next := ""
	if so.more {
		next = w.order.cursor(so.last)
	}
	if len(so.found) == 0 {
		return nil, next, nil
	}
	rows, err := json.Marshal(so.found)
	if err != nil {
		return nil, "", err
	}
	records, err := collect(ctx, s, tx, scan, load, string(rows))
	return records, next, err
}
