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
	feedWait  = 10 * time.Second
	feedRetry = 250 * time.Millisecond
)

// Changed drops what is remembered about a changed record. The replica that
// makes a change calls it before the change is acknowledged.
func (a *Authenticator) Changed(c keys.Change) { a.cache.stamps.changed(c) }

// Follow reads the feed until ctx ends. After a failed read nothing that was
// remembered is trusted any more, since a change may have been missed.
// started, if not nil, is closed when changes from then on will be seen.
func (a *Authenticator) Follow(ctx context.Context, feed Feed, started chan<- struct{}) {
	cursor := int64(keys.FeedEnd)
	wait := time.Duration(0) // the first read only fixes the cursor
	for ctx.Err() == nil {
		batch, err := feed.Changes(ctx, cursor, wait)
		if err != nil {
			a.flush()
			sleep(ctx, feedRetry)
			continue
		}
		if batch.Gap || cursor == keys.FeedEnd {
			a.flush()
		}
		for _, c := range batch.Changes {
			a.Changed(c)
		}
		cursor, wait = batch.Next, feedWait
		if started != nil {
			close(started)
			started = nil
		}
	}
}

func (a *Authenticator) flush() {
	a.cache.stats.Flushes.Add(1)
	a.cache.stamps.flush()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
