package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
)

const (
	// maxChanges is the most that one call returns.
	maxChanges = 1000
	// feedBlock is how long Redis holds one read back: the longest that a reader
	// whose context ends, and Close, wait.
	feedBlock = 250 * time.Millisecond
)

// eras tells apart the histories that a cursor may belong to. Another identity
// of the store means that it was emptied and made anew; another replication id
// that a replica was promoted, which may lack the end of the feed, or that Redis
// was restarted. A cursor carries its era above the number of the entry, so that
// every reader of this process notices, however many there are.
type eras struct {
	mu   sync.Mutex
	mark string
	id   string
	n    int64
}

const eraShift = 40 // a cursor has room for 8 million eras of a trillion entries

// of returns the present era; another identity or replication id than the last
// one begins the next, of which turned is told.
func (e *eras) of(id, replication string, turned func(emptied bool)) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	mark := id + " " + replication
	if e.mark != "" && e.mark != mark {
		e.n++
		if turned != nil {
			turned(e.id != id)
		}
	}
	e.mark, e.id = mark, id
	return e.n
}

// Changes implements keys.Store. Redis holds the read back until there is
// something to tell; what proves that nothing was missed comes with it. The
// numbers are those of the stream's entries, until the store is emptied or a
// replica promoted: from then on they are larger by a multiple of 2^40.
func (s *Store) Changes(ctx context.Context, after int64, wait time.Duration) (keys.ChangeBatch, error) {
	if err := s.ended(ctx); err != nil {
		return keys.ChangeBatch{}, err
	}
	deadline := time.Now().Add(wait)
	block := time.Duration(-1) // the first read does not wait
	for {
		batch, err := s.changesAfter(ctx, after, block)
		if err != nil {
			return keys.ChangeBatch{}, s.failed(ctx, err)
		}
		if err := s.ended(ctx); err != nil {
			return keys.ChangeBatch{}, err
		}
		left := time.Until(deadline)
		if len(batch.Changes) > 0 || batch.Gap || after < 0 || left <= 0 {
			return batch, nil
		}
		block = max(time.Millisecond, min(left, feedBlock)) // 0 would be for ever
	}
}

// errReplica: what a replica tells of proves nothing about its master.
var errReplica = errors.New("this Redis is a replica: REDIS_URL must lead to the master")

// changesAfter reads one stretch of the feed. The identity is read after it: if
// the era still is the cursor's, the stretch belongs to it. For a cursor that is
// to be made it is the other way round: one of an era that just ended is a gap at
// the next read, one that took its number from there would skip changes.
func (s *Store) changesAfter(ctx context.Context, after int64, block time.Duration) (keys.ChangeBatch, error) {
	bounded, cancel := context.WithTimeout(ctx, callTimeout+max(block, 0))
	defer cancel()
	from := after & (1<<eraShift - 1)
	var end, identity, info *goredis.StringCmd
	var stream *goredis.XStreamSliceCmd
	err := s.onMaster(bounded, func(c *goredis.Client) error {
		p := c.Pipeline()
		if after >= 0 {
			end = p.Get(bounded, sequenceKey)
			stream = p.XRead(bounded, &goredis.XReadArgs{
				Streams: []string{changesKey, strconv.FormatInt(from, 10) + "-0"}, Count: maxChanges, Block: block,
			})
		}
		identity, info = p.HGet(bounded, schemaKey, "id"), p.Info(bounded, "replication")
		if after < 0 {
			end = p.Get(bounded, sequenceKey)
		}
		return execute(bounded, p)
	})
	if err != nil {
		return keys.ChangeBatch{}, err
	}
	id := identity.Val()
	if id == "" { // the store was emptied under us
		found, err := s.ensureSchema(ctx)
		if err != nil {
			return keys.ChangeBatch{}, err
		}
		id = found.identity
	}
	replication := parseInfo(info.Val()) // empty where INFO is not allowed
	if replication["role"] == "slave" {
		return keys.ChangeBatch{}, errReplica
	}
	base := s.eras.of(id, replication["master_replid"], s.turned) << eraShift
	last := int64(0)
	if text := end.Val(); text != "" {
		if last, err = strconv.ParseInt(text, 10, 64); err != nil {
			return keys.ChangeBatch{}, fmt.Errorf("the number of the last change in Redis: %w", err)
		}
	}
	switch {
	case after < 0: // keys.FeedEnd
		return keys.ChangeBatch{Next: base + last}, nil
	case after-from != base: // last may be of the era before
		batch, err := s.changesAfter(ctx, keys.FeedEnd, block)
		batch.Gap = true
		return batch, err
	case from > last:
		return keys.ChangeBatch{Next: base + last, Gap: true}, nil
	case len(stream.Val()) == 0: // if there should have been something, the stream is lost
		return keys.ChangeBatch{Next: base + max(from, last), Gap: last > from}, nil
	}
	changes, err := parseChanges(stream.Val()[0].Messages, base)
	if err != nil {
		return keys.ChangeBatch{}, err
	}
	return keys.ChangeBatch{Changes: changes, Next: changes[len(changes)-1].Seq, Gap: changes[0].Seq > after+1}, nil
}

// execute sends a pipeline and returns its first failure that matters: no record
// is none, and INFO may be forbidden. Of a connection that Redis refused, such as
// for its password, go-redis tells none of the commands.
func execute(ctx context.Context, p goredis.Pipeliner) error {
	cmds, err := p.Exec(ctx)
	for _, c := range cmds {
		switch failed := c.Err(); {
		case failed == nil:
		case errors.Is(failed, goredis.Nil), c.Name() == "info" && isReply(failed):
			err = nil // it was this one's
		default:
			return failed
		}
	}
	return err
}

func parseChanges(entries []goredis.XMessage, base int64) ([]keys.Change, error) {
	changes := make([]keys.Change, len(entries))
	for i, e := range entries {
		text := func(field string) string {
			v, _ := e.Values[field].(string)
			return v
		}
		seq, err := strconv.ParseInt(strings.TrimSuffix(e.ID, "-0"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("entry %s of the feed in Redis: %w", e.ID, err)
		}
		version, err := strconv.ParseInt(text("v"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("entry %s of the feed in Redis: %w", e.ID, err)
		}
		changes[i] = keys.Change{Seq: base + seq, Kind: keys.Kind(text("k")), ID: text("i"), Organization: text("o"), Version: version}
	}
	return changes, nil
}
