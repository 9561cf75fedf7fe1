package sqlite

import (
	"encoding/json"
	"fmt"

	"keygate/internal/keys"
)

// putKey stores a key. An edit is based on what was read a while ago: the last
// use, which moves without a version, is the later of the two.
func (t *tx) putKey(f *feed, k keys.Key) error {
	if k.Space != "" && k.Organization == "" {
		return fmt.Errorf("space %s of key %s, which has no organization: %w", k.Space, k.ID, keys.ErrNotFound)
	}
	permissions, err := list(k.Permissions)
	if err != nil {
		return err
	}
	cidrs, err := list(k.AllowedCIDRs)
	if err != nil {
		return err
	}
	err = t.write(keys.KindKey,
		`INSERT INTO keys (id, version, name, description, organization, space, account, permissions, allowed_cidrs, plan, overrides,
			created_at, updated_at, expires_at, paused_at, revoked_at, last_used_at, rotated_at, lifetime)
			VALUES (?1, ?2+1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)`,
		`UPDATE keys SET version=?2+1, name=?3, description=?4, organization=?5, space=?6, account=?7, permissions=?8, allowed_cidrs=?9,
			plan=?10, overrides=?11, created_at=?12, updated_at=?13, expires_at=?14, paused_at=?15, revoked_at=?16,
			last_used_at=max(last_used_at, ?17), rotated_at=?18, lifetime=?19 WHERE id=?1 AND version=?2`,
		`SELECT version FROM keys WHERE id=?`, only(k.ID),
		k.ID, k.Version, k.Name, k.Description, reference(k.Organization), reference(k.Space), k.Account, permissions, cidrs, k.Plan, string(k.Overrides),
		micros(k.CreatedAt), micros(k.UpdatedAt), micros(k.ExpiresAt), micros(k.PausedAt), micros(k.RevokedAt), micros(k.LastUsedAt), micros(k.RotatedAt),
		k.Lifetime.Microseconds())
	if err != nil {
		return err
	}
	if err := t.putSecrets(k); err != nil {
		return err
	}
	return f.add(keys.KindKey, k.ID, k.Organization, k.Version+1)
}

// putSecrets replaces the secrets of a key. Those that stay keep their last use.
func (t *tx) putSecrets(k keys.Key) error {
	used := make(map[string]int64)
	if k.Version > 0 {
		var err error
		if used, err = t.secretUses(k.ID); err != nil {
			return err
		}
		if err := t.exec(`DELETE FROM secrets WHERE key=?`, k.ID); err != nil {
			return err
		}
	}
	for i, s := range k.Secrets {
		last := max(micros(s.LastUsedAt), used[hexHash(s.Hash)])
		err := t.exec(`INSERT INTO secrets (hash, key, position, prefix, last_four, created_at, ends_at, last_used_at, imported) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.Hash[:], k.ID, i, s.Prefix, s.LastFour, micros(s.CreatedAt), micros(s.EndsAt), last, s.Imported)
		if err != nil {
			// A hash is a credential's shadow; the error shows what may be shown.
			return refused(err, string(keys.KindKey), k.ID, only(s.Prefix+"…"+s.LastFour))
		}
	}
	return nil
}

// secretUses says when each secret of a key was used last, by its hash.
func (t *tx) secretUses(key string) (map[string]int64, error) {
	var text string
	if err := t.read(`SELECT json_group_object(hex(hash), last_used_at) FROM secrets WHERE key=?`, []any{key}, &text); err != nil {
		return nil, err
	}
	var used map[string]int64
	err := json.Unmarshal([]byte(text), &used)
	return used, err
}

// hexHash writes a hash as SQLite's hex does.
func hexHash(h keys.Hash) string { return fmt.Sprintf("%X", h[:]) }
