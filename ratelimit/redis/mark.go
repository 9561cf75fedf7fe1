package redis

import (
	"context"
	"strconv"
	"time"
)

// Marking says what is known of a Redis whose markers are made.
type Marking string

const (
	// First: it was never used before, so that a marker that is missing is none
	// that was lost.
	First Marking = "first"
	// Known: a marker that is missing was lost.
	Known Marking = "known"
	// Gone: what was there before is gone, even where others have made markers
	// since, who could not know.
	Gone Marking = "gone"
)

// markBatch is how many markers are asked for at once: well below the time that
// one answer may take.
const markBatch = 16

// markPause lies between two tries to reach a Redis that is away.
const markPause = 10 * time.Millisecond

// Mark makes the marker of every hash tag that has none, and has each look whether
// another Redis has taken over. A marker tells the script which process decided
// last, so that what may have been lost with it is noticed by whoever asks next:
// from then on sliding limits of strict plans are [ratelimit.Lost] until it cannot
// matter. All tags are looked at at once, lest one that nobody asks about be held
// for longer than it takes. It may be repeated, and is tried until ctx ends.
func (l *Ledger) Mark(ctx context.Context, as Marking) error {
	return l.markAll(ctx, string(as))
}

// Lose has the ledger take in that somebody has noticed a loss, of which Redis
// itself shows no sign, after a time of its own: in the tag of an organization, or of
// a key that stands in for one, or in all if place is empty. A loss that is known to
// have been later includes it, so that many may tell of the same. It is tried until
// ctx ends and may be repeated.
func (l *Ledger) Lose(ctx context.Context, place string, since time.Time) error {
	at := strconv.FormatInt(since.UnixMicro(), 10)
	if place == "" {
		return l.markAll(ctx, string(Known), at)
	}
	return l.markTags(ctx, tagOf(place), 1, string(Known), at)
}

// markAll has the script look at all markers.
func (l *Ledger) markAll(ctx context.Context, args ...any) error {
	for from := uint32(0); from < tags; from += markBatch {
		if err := l.markTags(ctx, from, markBatch, args...); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) markTags(ctx context.Context, from, n uint32, args ...any) error {
	for {
		calls := make([]*call, 0, n)
		for tag := from; tag < from+n; tag++ {
			name := string(appendTag([]byte(markerKind), tag))
			calls = append(calls, newCall(ctx, append([]any{"evalsha", l.mark.hash, 1, name}, args...)))
		}
		err := l.run(ctx, &l.mark, calls)
		if err == nil || ctx.Err() != nil || isReply(err) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(markPause):
		}
	}
}
