package auth

import (
	"context"
	"time"

	"keygate/internal/keys"
)

// Feed is the store's feed of changes.
type Feed interface {
	Changes(ctx context.Context, after int64, wait time.Duration) (keys.ChangeBatch, error)
}

const (
	// feedWait is how long a read of the feed waits for a change. Each answer,
	// empty or not, proves that nothing was missed when it was asked for.
	feedWait  = 250 * time.Millisecond
	feedRetry = 100 * time.Millisecond
)

// Changed drops what is remembered about a changed record. The replica that
// makes a change calls it before the change is acknowledged.
func (a *Authenticator) Changed(c keys.Change) { a.cache.stamps.changed(c) }

// Follow reads the feed until ctx ends. While reads fail, what is remembered is
// trusted for FreshFor; the next good read continues where the last one ended,
// so nothing is missed. Where it cannot, everything is forgotten. started, if
// not nil, is closed when changes from then on will be seen.
func (a *Authenticator) Follow(ctx context.Context, feed Feed, started chan<- struct{}) {
	cursor := int64(keys.FeedEnd)
	wait := time.Duration(0) // the first read only fixes the cursor
	for ctx.Err() == nil {
		asked := a.now()
		batch, err := feed.Changes(ctx, cursor, wait)
		if err != nil {
			sleep(ctx, feedRetry)
			continue
		}
		switch {
		case cursor == keys.FeedEnd:
			a.cache.stamps.flush() // what was remembered before the feed was read
		case batch.Gap:
			a.cache.stats.Flushes.Add(1)
			a.cache.stamps.flush()
		}
		for _, c := range batch.Changes {
			a.Changed(c)
		}
		a.cache.spoke(asked)
		if a.acted != nil && batch.Next != cursor {
			a.acted(keys.FeedNumber(batch.Next))
		}
		cursor, wait = batch.Next, feedWait
		if started != nil {
			close(started)
			started = nil
		}
	}
}

// FeedAge is how long ago the feed last proved that no change was missed; 0
// where this process makes all changes itself.
func (a *Authenticator) FeedAge() time.Duration {
	if a.cache.freshFor == 0 {
		return 0
	}
	return a.cache.sinceFresh()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
