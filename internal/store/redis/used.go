package redis

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"keygate/internal/keys"
)

// maxUses is the most that one script notes: about 4 ms of Redis's time, in which
// it serves nobody else.
const maxUses = 250

// Used implements keys.Store: a script for each of its parts, which notes all of
// it or, where Redis lacks the memory, nothing.
func (s *Store) Used(ctx context.Context, uses []keys.Use) error {
	for part := range slices.Chunk(uses, maxUses) {
		args := []any{keys.UseEvery.Microseconds()}
		for _, u := range part {
			secret := ""
			if u.Secret != (keys.Hash{}) {
				secret = hashText(u.Secret)
			}
			args = append(args, u.Key, secret, micros(u.At))
		}
		_, err := read(ctx, s, "uses", func(ctx context.Context) (any, error) {
			return usedScript.Run(ctx, s.client, []string{usedKey}, args...).Result()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addUses adds to a key what is known of its uses besides the record: the last
// activity, which is its creation if there was no use, and lines as common.lua has
// them. Both are empty where there is nothing.
func addUses(k *keys.Key, active, uses string) error {
	if active != "" {
		µs, err := parseScore(active)
		if err != nil {
			return err
		}
		if µs != micros(k.CreatedAt) {
			k.LastUsedAt = instant(max(micros(k.LastUsedAt), µs))
		}
	}
	for line := range strings.Lines(uses) {
		what, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		µs, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		if what == "-" {
			k.LastUsedAt = instant(max(micros(k.LastUsedAt), µs))
		}
		for i := range k.Secrets {
			if s := &k.Secrets[i]; hashText(s.Hash) == what {
				s.LastUsedAt = instant(max(micros(s.LastUsedAt), µs))
			}
		}
	}
	return nil
}

// parseScore reads the score of a sorted set, which Redis may print with an
// exponent, in no other form than Redis reads it too.
func parseScore(text string) (int64, error) {
	score, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(score) >= math.MaxInt64 || strings.Trim(text, "0123456789+-.e") != "" {
		return 0, fmt.Errorf("%q is no instant", text)
	}
	return int64(score), nil
}
