package sqlite

import (
	"context"
	"encoding/json"
	"slices"

	"keygate/internal/keys"
)

// usesAtOnce is how many uses are noted in one change: others get their turn in
// between.
const usesAtOnce = 1000

// useRow is a use as the statements below read it.
type useRow struct {
	Key    string `json:"key"`
	Secret string `json:"secret"` // hex; empty for none
	At     int64  `json:"at"`
}

// Used implements keys.Store with two statements for a thousand uses.
func (s *Store) Used(ctx context.Context, uses []keys.Use) error {
	for part := range slices.Chunk(uses, usesAtOnce) {
		rows := make([]useRow, len(part))
		for i, u := range part {
			rows[i] = useRow{Key: u.Key, At: micros(u.At)}
			if u.Secret != (keys.Hash{}) {
				rows[i].Secret = hexHash(u.Secret)
			}
		}
		text, err := json.Marshal(rows)
		if err != nil {
			return err
		}
		if err := s.writer.submit(ctx, func(t *tx) error { return t.used(string(text)) }); err != nil {
			return s.explain(err)
		}
	}
	return nil
}

func (t *tx) used(uses string) error {
	if err := t.exec(useKeys, uses, keys.UseEvery.Microseconds()); err != nil {
		return err
	}
	return t.exec(useSecrets, uses, keys.UseEvery.Microseconds())
}

// Several secrets of one key may have been used: the last use of any is the
// key's. A secret that is gone, or another key's, takes its use with it.
const (
	useKeys = `UPDATE keys SET last_used_at = u.at FROM (
		SELECT j.value->>'key' AS key, max(j.value->>'at') AS at FROM json_each(?1) j
		WHERE j.value->>'secret' = '' OR EXISTS (SELECT 1 FROM secrets s WHERE s.hash = unhex(j.value->>'secret') AND s.key = j.value->>'key')
		GROUP BY 1) u
	WHERE keys.id = u.key AND (keys.last_used_at = 0 OR keys.last_used_at <= u.at - ?2)`
	useSecrets = `UPDATE secrets SET last_used_at = u.at FROM (
		SELECT j.value->>'key' AS key, unhex(j.value->>'secret') AS hash, max(j.value->>'at') AS at FROM json_each(?1) j
		WHERE j.value->>'secret' <> '' GROUP BY 1, 2) u
	WHERE secrets.hash = u.hash AND secrets.key = u.key AND (secrets.last_used_at = 0 OR secrets.last_used_at <= u.at - ?2)`
)
