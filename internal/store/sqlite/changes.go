package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"keygate/internal/keys"
)

const (
	// DefaultKeepChanges is how many change entries are kept: a reader that
	// falls further behind is told so.
	DefaultKeepChanges = 100_000
	// maxChanges is the most that one call returns.
	maxChanges = 1000
	// trimEvery spares most changes the oldest page of the table: entries are
	// trimmed by the hundred.
	trimEvery = 100
)

// feed writes the change entries of one mutation.
type feed struct {
	t           *tx
	first, last int64
	seen        map[changed]bool
}

// changed is the same for what a reader would forget twice.
type changed struct {
	kind    keys.Kind
	id      string
	version int64
}

func (f *feed) add(kind keys.Kind, id, organization string, version int64) error {
	entry := changed{kind, id, version}
	if f.seen[entry] {
		return nil
	}
	result, err := f.t.change(`INSERT INTO changes (kind, id, organization, version) VALUES (?, ?, ?, ?)`, string(kind), id, organization, version)
	if err != nil {
		return err
	}
	if f.last, err = result.LastInsertId(); err != nil {
		return err
	}
	if f.seen == nil {
		f.first, f.seen = f.last, make(map[changed]bool)
	}
	f.seen[entry] = true
	return nil
}

// trim drops what is older than the newest keep entries, once in trimEvery.
func (f *feed) trim(keep int64) error {
	if f.last/trimEvery == (f.first-1)/trimEvery {
		return nil
	}
	return f.t.exec(`DELETE FROM changes WHERE seq <= ?`, f.last-keep)
}

// bell wakes everyone who waits, once per commit.
type bell struct {
	mu   sync.Mutex
	next chan struct{}
}

func newBell() *bell { return &bell{next: make(chan struct{})} }

// wait returns a channel that closes at the next ring.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.next)
	b.next = make(chan struct{})
}

// Changes implements keys.Store. Waiting costs no query: commits wake it.
func (s *Store) Changes(ctx context.Context, after int64, wait time.Duration) (keys.ChangeBatch, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		rung := s.bell.wait() // before the query, so that no commit falls between
		batch, err := s.changesAfter(ctx, after)
		if err != nil || len(batch.Changes) > 0 || batch.Gap || after < 0 || wait <= 0 {
			return batch, s.explain(err)
		}
		select {
		case <-rung:
		case <-timer.C:
			return batch, nil
		case <-ctx.Done():
			return keys.ChangeBatch{}, ctx.Err()
		case <-s.closing:
			return keys.ChangeBatch{}, ErrClosed
		}
	}
}

// changesAfter reads one stretch of the feed. Numbers have no holes, because a
// transaction that is undone gives its numbers back, so a hole before the first
// entry is a gap.
func (s *Store) changesAfter(ctx context.Context, after int64) (keys.ChangeBatch, error) {
	if after >= 0 { // keys.FeedEnd is below
		changes, err := s.changeRows(ctx, after)
		if err != nil {
			return keys.ChangeBatch{}, err
		}
		if len(changes) > 0 {
			return keys.ChangeBatch{Changes: changes, Next: changes[len(changes)-1].Seq, Gap: changes[0].Seq > after+1}, nil
		}
	}
	var end int64 // the number given last, though its entry may be trimmed; no row before the first
	err := s.readers.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name='changes'`).Scan(&end)
	switch {
	case err != nil:
		return keys.ChangeBatch{}, err
	case after > end: // older data were restored under a reader that ran on
		return keys.ChangeBatch{Next: end, Gap: true}, nil
	case after >= 0: // a change that came between the two queries is the next call's
		return keys.ChangeBatch{Next: after}, nil
	}
	return keys.ChangeBatch{Next: end}, nil
}

func (s *Store) changeRows(ctx context.Context, after int64) ([]keys.Change, error) {
	return many(ctx, s, func(row scanner) (c keys.Change, err error) {
		err = row.Scan(&c.Seq, &c.Kind, &c.ID, &c.Organization, &c.Version)
		return c, err
	}, `SELECT seq, kind, id, organization, version FROM changes WHERE seq > ? ORDER BY seq LIMIT ?`, after, maxChanges)
}

// RegisterPolicy implements keys.Store. A policy that is registered already is
// no news for the audit log.
func (s *Store) RegisterPolicy(ctx context.Context, digest string, by keys.AuditEntry) (int64, error) {
	var number int64
	err := s.writer.submit(ctx, func(t *tx) error {
		var last string
		err := t.read(`SELECT number, digest FROM policies ORDER BY number DESC LIMIT 1`, nil, &number, &last)
		if err == nil && last == digest {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		result, err := t.change(`INSERT INTO policies (digest, at) VALUES (?, ?)`, digest, micros(s.now()))
		if err != nil {
			return err
		}
		if number, err = result.LastInsertId(); err != nil {
			return err
		}
		return t.addAudit(by)
	})
	if err != nil {
		return 0, s.explain(err)
	}
	return number, nil
}
