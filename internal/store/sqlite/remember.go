package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"keygate/internal/keys"
)

// forgetAtOnce bounds how many answers whose time is over go when one comes:
// more than come, so that they never pile up.
const forgetAtOnce = 100

// Remembered implements keys.Store.
func (s *Store) Remembered(ctx context.Context, id string) (keys.Remembered, error) {
	return one(ctx, s, "request", id, func(row scanner) (r keys.Remembered, err error) {
		var until int64
		err = row.Scan(&r.ID, &r.Digest, &r.Answer, &until)
		r.Until = instant(until)
		return r, err
	}, `SELECT id, digest, answer, until FROM remembered WHERE id=? AND until > ?`, id, micros(s.now()))
}

// remember keeps an answer, unless there is one under its id whose time at the
// instant of the change is not over.
func (t *tx) remember(r keys.Remembered, at int64) error {
	var until int64
	err := t.read(`SELECT until FROM remembered WHERE id=?`, []any{r.ID}, &until)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && until > at {
		return &keys.ExistsError{Kind: "request", Field: "id", Value: r.ID}
	}
	if err := t.exec(forgetQuery, at, forgetAtOnce); err != nil {
		return err
	}
	return t.exec(`INSERT INTO remembered (id, digest, answer, until) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (id) DO UPDATE SET digest=?2, answer=?3, until=?4`, r.ID, r.Digest, blob(r.Answer), micros(r.Until))
}

const forgetQuery = `DELETE FROM remembered WHERE id IN (SELECT id FROM remembered WHERE until <= ? ORDER BY until LIMIT ?)`
