package ratelimit

import (
	"container/heap"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// DefaultBuckets is how many keys a [Buckets] tells apart unless told otherwise:
// some 20 MiB of them.
const DefaultBuckets = 1 << 16

// BucketOptions configures [Buckets].
type BucketOptions struct {
	// Requests per Per is the rate; Requests is also the burst.
	Requests int
	Per      time.Duration
	// Max bounds the number of keys told apart; DefaultBuckets by default.
	Max int
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

func (o BucketOptions) validate() error {
	if o.Requests < 1 || o.Requests > 1_000_000_000 {
		return errors.New("buckets: requests must be 1 to 1000000000")
	}
	if o.Per < time.Millisecond || o.Per > MaxWindow {
		return errors.New("buckets: per must be 1ms to 744h")
	}
	if o.Max < 0 {
		return errors.New("buckets: max must not be negative")
	}
	return nil
}

// Buckets is a bounded table of token buckets, one for each key: a client
// address, say. It protects this process and promises less than a [Ledger]: a
// bucket admits its burst and its rate, up to twice Requests in one window, and
// every replica has its own.
//
// A table that is full first forgets buckets that are full again, which loses
// nothing. Where all are in use, a new key takes over the fullest bucket WITH
// the tokens that are in it, and is refused if there is not one: no number of
// keys gets more than Max buckets together, no memory is used beyond Max, and
// no key is locked out for long, since every bucket refills. An attacker with
// more addresses than Max competes with everybody else for what refills; the
// buckets that were emptied are the last ones to be taken over.
//
// Safe for concurrent use; it starts no goroutine.
type Buckets struct {
	rate  rate.Limit
	burst int
	max   int
	now   func() time.Time

	mu        sync.Mutex
	latest    time.Time // x/time/rate makes tokens of a clock that steps back
	keys      map[string]*bucket
	fullest   fullestFirst
	evictions uint64
}

type bucket struct {
	key    string
	tokens *rate.Limiter
	full   time.Time // when the bucket is full again
	slot   int       // in the heap
}

// NewBuckets returns a table in which every key's bucket is full.
func NewBuckets(o BucketOptions) (*Buckets, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Max == 0 {
		o.Max = DefaultBuckets
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Buckets{
		rate:  rate.Limit(float64(o.Requests) / o.Per.Seconds()),
		burst: o.Requests,
		max:   o.Max,
		now:   o.Now,
		keys:  make(map[string]*bucket),
	}, nil
}

// Peek says what Allow would and takes nothing: how many requests the key has
// left, and after how long there is one more, 0 if there can be none.
func (b *Buckets) Peek(key string) (left int, next time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if now.Before(b.latest) {
		now = b.latest
	}
	k := b.keys[key]
	if k == nil {
		if len(b.fullest) < b.max || !b.fullest[0].full.After(now) {
			return b.burst, 0
		}
		k = b.fullest[0] // it would be taken over
	}
	tokens := k.tokens.TokensAt(now)
	if tokens >= float64(b.burst) {
		return b.burst, 0
	}
	whole := math.Floor(tokens)
	// x/time/rate gives a token that is less than a nanosecond away; a bucket is
	// taken over for a whole one only.
	if (whole > 0 || b.keys[key] == k) && (whole+1-tokens)/float64(b.rate)*float64(time.Second) < 1 {
		whole++
	}
	return int(whole), b.refill(whole + 1 - tokens)
}

// Allow takes a token from the key's bucket. If there is none it says after how
// long there will be one, if nobody else uses the key; refusals cost nothing.
func (b *Buckets) Allow(key string) (ok bool, retryAfter time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if now.Before(b.latest) {
		now = b.latest
	}
	b.latest = now
	k := b.keys[key]
	if k == nil {
		if k = b.admit(key, now); k == nil {
			return false, b.wait(b.fullest[0], now)
		}
	}
	if !k.tokens.AllowN(now, 1) {
		return false, b.wait(k, now)
	}
	missing := float64(b.burst) - k.tokens.TokensAt(now)
	k.full = now.Add(b.refill(missing))
	heap.Fix(&b.fullest, k.slot)
	return true, 0
}

// Evictions is how often a key took over a bucket that was not yet full: more
// keys are in use than the table holds.
func (b *Buckets) Evictions() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.evictions
}

// Len is the number of buckets kept.
func (b *Buckets) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.fullest)
}

// admit finds a bucket for a key that has none; nil if the table is full and no
// bucket in it has a token.
func (b *Buckets) admit(key string, now time.Time) *bucket {
	var k *bucket
	for range 2 { // two leave for each that comes, so that the table shrinks too
		if len(b.fullest) > 0 && !b.fullest[0].full.After(now) {
			k = heap.Pop(&b.fullest).(*bucket)
			delete(b.keys, k.key)
		}
	}
	if len(b.fullest) < b.max {
		if k == nil {
			k = &bucket{tokens: rate.NewLimiter(b.rate, b.burst)}
		}
		k.key, k.full = key, now
		heap.Push(&b.fullest, k)
		b.keys[key] = k
		return k
	}
	k = b.fullest[0]
	if k.tokens.TokensAt(now) < 1 {
		return nil
	}
	b.evictions++
	delete(b.keys, k.key)
	k.key = key
	b.keys[key] = k
	return k
}

// wait is how long until a bucket that refused has a token.
func (b *Buckets) wait(k *bucket, now time.Time) time.Duration {
	return b.refill(1 - k.tokens.TokensAt(now))
}

// refill is the time that a number of tokens takes, rounded up by more than
// floating point can be wrong: what is promised for then must be there.
func (b *Buckets) refill(tokens float64) time.Duration {
	d := time.Duration(math.Ceil(tokens / float64(b.rate) * float64(time.Second)))
	return max(0, d) + d>>40 + time.Microsecond
}

// fullestFirst orders buckets by when they are full again. All have one rate
// and one size, so that the first is also the one with the most tokens.
type fullestFirst []*bucket

func (f fullestFirst) Len() int           { return len(f) }
func (f fullestFirst) Less(i, j int) bool { return f[i].full.Before(f[j].full) }

func (f fullestFirst) Swap(i, j int) {
	f[i], f[j] = f[j], f[i]
	f[i].slot, f[j].slot = i, j
}

func (f *fullestFirst) Push(x any) {
	k := x.(*bucket)
	k.slot = len(*f)
	*f = append(*f, k)
}

func (f *fullestFirst) Pop() any {
	old := *f
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*f = old[:len(old)-1]
	return k
}
