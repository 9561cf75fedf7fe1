package redis

import (
	"context"
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
	for from := uint32(0); from < tags; {
		calls := make([]*call, 0, markBatch)
		for n := from; n < from+markBatch; n++ {
			name := string(appendTag([]byte(markerKind), n))
			calls = append(calls, newCall(ctx, []any{"evalsha", l.mark.hash, 1, name, string(as)}))
		}
		err := l.run(ctx, &l.mark, calls)
		switch {
		case err == nil:
			from += markBatch
		case ctx.Err() != nil || isReply(err):
			return err
		default:
			select {
			case <-ctx.Done():
			case <-time.After(markPause):
			}
		}
	}
	return nil
}
