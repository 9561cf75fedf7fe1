package ratelimit

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrLate says that the ledger's answers came too late to admit anything on
	// them: it is out of reach for practical purposes.
	ErrLate = errors.New("ledger answered too late")
	// ErrStale says that a replica with a newer policy has used the budget: the
	// policy must be read and registered again, and the key with it.
	ErrStale = errors.New("the policy has changed")
)

// A StoppedError says that the key has changed since it was read: it must be
// read again and, if it may still be used, the limits asked with its version.
// Nothing was spent.
type StoppedError struct {
	// Version is the lowest that the ledger answers for.
	Version int64
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("the key has changed, its version is %d by now", e.Version)
}

// A LostError says that the ledger may have lost what was spent, and admits
// nothing until that cannot matter any more.
type LostError struct {
	// RetryAfter is when it answers again.
	RetryAfter time.Duration
}

func (e *LostError) Error() string {
	return fmt.Sprintf("what was spent may be lost, the limit can be kept again in %s", e.RetryAfter)
}
